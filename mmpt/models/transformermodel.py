"""BERT over video and text tokens, on the public transformers API, with the parameter names of published
checkpoints.

An encoder is built from a `BertConfig` that also carries `max_video_len`, `input_dim` (video feature width)
and `use_seg_emb`. Shape letters: B clips, F video tokens, T caption columns, D width, C vocabulary.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.config import Config, required
from mmpt.models import sequence_layout as layout
from mmpt.modules.layers import VideoTokenMLP
from mmpt.registry import ENCODERS
from mmpt.utils.optional import optional_import, pretrained

optional_import("transformers")
try:
    from transformers import BertConfig, BertForPreTraining, BertModel
    from transformers.activations import ACT2FN
except (
    OSError,
    RuntimeError,
) as error:  # transformers imports any torchaudio it finds; one built for CUDA breaks beside a CPU torch
    cure = "If that names torchaudio: pip uninstall torchaudio"
    raise ImportError(f"transformers is installed but does not import ({error}). {cure}") from error

from mmpt.models.packing import chosen, read_packed  # noqa: E402  it imports transformers, too

DEFAULT_INPUT_DIM = 512
COIN_LABELS = 779
WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)

ENCODERS.register("BertModel")(BertModel)


def for_heads(mask: Tensor) -> Tensor:
    """A mask (B, L) or (B, Q, L) as attention takes it, (B, 1, Q or 1, L).

    Of a flat mask transformers asks whether it is all true, which would make the host wait for the device.
    """
    return (mask[:, None, None] if mask.dim() == 2 else mask[:, None]).bool()


class MMBert(nn.Module):
    """BERT that reads video features between the first and the second token id."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.max_video_len = config.max_video_len
        self.videomlp = VideoTokenMLP(
            getattr(config, "input_dim", DEFAULT_INPUT_DIM), config.hidden_size, ACT2FN[config.hidden_act]
        )
        self.bert = BertModel(config)
        if getattr(config, "use_seg_emb", False):
            self.bert.embeddings.seg_embeddings = nn.Embedding(256, config.hidden_size)
        init_like_bert(self.videomlp, config.initializer_range)

    def forward(
        self,
        ids: Tensor,
        vfeats: Tensor | None,
        mask: Tensor,
        types: Tensor | None = None,
        n_layers: int | None = None,
        lengths: np.ndarray | None = None,
    ) -> Tensor:
        """Hidden states of `[CLS] video ids..`.

        Args:
            ids: (B, n) token ids.
            vfeats: (B, F, input_dim) video features; None: text alone.
            mask: (B, L) readable positions, or (B, L, L) which position reads which.
            types: (1 or B, L) token types; None: all 0.
            n_layers: hidden states after so many layers; None: after the last.
            lengths: of a mask (B, L); its other positions are left out, see `read_packed`.

        Returns:
            (B, L, D), L = n + F.
        """
        n_video = None if vfeats is None else vfeats.shape[1]
        video = None if vfeats is None else self.videomlp(vfeats)
        embeds = layout.splice(self.bert.embeddings.word_embeddings(ids), video)
        types = (
            torch.zeros(1, embeds.shape[1], dtype=torch.long, device=ids.device) if types is None else types
        )
        inputs = {
            "inputs_embeds": embeds,
            "position_ids": layout.position_ids(ids.shape[1], n_video, self.max_video_len, ids.device),
            "token_type_ids": types.expand(embeds.shape[:2]),
        }
        if lengths is not None:
            return read_packed(self.bert, mask, lengths, **inputs)
        output = self.bert(
            attention_mask=for_heads(mask), output_hidden_states=n_layers is not None, **inputs
        )
        return output.last_hidden_state if n_layers is None else output.hidden_states[n_layers]


@ENCODERS.register()
class MMBertForEncoder(MMBert):
    """Video tower of two-tower models."""


@ENCODERS.register()
class MMBertForJoint(MMBert):
    """One encoder for both modalities."""


@ENCODERS.register()
class MMBertForTokenClassification(MMBert):
    """Adds a label classifier over video positions (COIN: background and 778 steps)."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, COIN_LABELS)
        init_like_bert(self.classifier, config.initializer_range)


class PredictionTransform(nn.Module):
    """dense, activation, LayerNorm of BERT's prediction head."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.LayerNorm(self.activation(self.dense(hidden)))


class PredictionHead(nn.Module):
    """Hidden states -> vocabulary; the decoder shares the word embeddings.

    Args:
        words: word embeddings (C, D).
        bias: with a bias per word, stored as `bias` and `decoder.bias` like BERT's.
    """

    def __init__(self, config: BertConfig, words: nn.Parameter, bias: bool):
        super().__init__()
        self.transform = PredictionTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=bias)
        init_like_bert(self, config.initializer_range)
        self.decoder.weight = words
        if bias:
            self.bias = self.decoder.bias


class MMBertWithHead(MMBert):
    """Adds BERT's prediction head under `cls.predictions`."""

    head_bias = True

    def __init__(self, config: BertConfig):
        super().__init__(config)
        words = self.bert.embeddings.word_embeddings.weight
        self.cls = nn.ModuleDict({"predictions": PredictionHead(config, words, self.head_bias)})

    @property
    def head(self) -> PredictionHead:
        return self.cls["predictions"]

    def video_targets(
        self, vfeats: Tensor, vmasks: Tensor, video_label: Tensor, n: int | None = None, m: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens of the masked frames (n, D), and of all other valid frames of the batch (m, D), the
        negatives; for n and m see `chosen`."""
        tokens = self.videomlp(vfeats)
        return chosen(tokens, video_label, n), chosen(tokens, vmasks & ~video_label, m)


@ENCODERS.register()
@ENCODERS.register("MMFusionForMFMMLM")  # as the published mfmmlm.yaml spells it
class MMBertForMFMMLM(MMBertWithHead):
    """Masked frames are told apart from the batch's other frames, masked words from the vocabulary."""

    def logits(
        self, video: Tensor, text: Tensor, targets: Tensor, negatives: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Hidden states of masked frames (n, D) and words (k, D) -> logits (n, 1 + m), target 0, and (k,
        C)."""
        video = self.head.transform(video)
        return frame_logits(video, targets, negatives), self.head.decoder(self.head.transform(text))


@ENCODERS.register()
class MMBertForMTM(MMBertWithHead):
    """Masked tokens of either modality compete over frames and words together (VLM)."""

    head_bias = False

    def logits(
        self, video: Tensor, text: Tensor, targets: Tensor, negatives: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Hidden states of masked frames (n, D) and words (k, D) -> logits (n, 1 + m + C), target 0, and (k,
        C + m)."""
        video, text = self.head.transform(video), self.head.transform(text)
        video_logits = torch.cat([frame_logits(video, targets, negatives), self.head.decoder(video)], dim=1)
        return video_logits, torch.cat([self.head.decoder(text), text @ negatives.T], dim=1)


@ENCODERS.register()
class MMBertForNLG(MMBertWithHead):
    """Writes captions: vocabulary logits of text positions."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) -> (..., C)."""
        return self.head.decoder(self.head.transform(hidden))


def frame_logits(hidden: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Dot products with the own frame (column 0) and with the negatives: (n, D), (n, D), (m, D) -> (n, 1 +
    m)."""
    own = (hidden * targets).sum(dim=-1, keepdim=True)
    return torch.cat([own, hidden @ negatives.T], dim=1)


def init_like_bert(module: nn.Module, std: float) -> None:
    """Linear layers ~ N(0, std^2) with zero bias, as in BERT; LayerNorms start at 1 and 0 already."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def read_bert_config(bert_name: str) -> BertConfig:
    """The `BertConfig` of a hub name or a local folder."""
    return pretrained(BertConfig, bert_name, "dataset.bert_name", "config.json and vocab.txt")


def build_encoder(encoder_cls: type, bert_config: BertConfig, config: Config) -> nn.Module:
    """An encoder with its starting weights.

    Args:
        encoder_cls: the class.
        bert_config: sizes; of pretrained weights only the first `num_hidden_layers` layers are used.
        config: with `model.init`, "pretrained" (weights of `dataset.bert_name`; what BERT does not have stays
            random) or "random".

    Raises:
        FileNotFoundError: `model.init` is "pretrained" and there are no weights.
    """
    encoder = encoder_cls(bert_config)
    if config.model.init != "random":
        load_bert_weights(encoder, pretrained_bert(required(config, "dataset.bert_name"), bert_config))
    return encoder


def pretrained_bert(bert_name: str, config: BertConfig) -> dict[str, Tensor]:
    """State of BERT with its prediction head, cut to the layers of `config`."""
    cure = "Set model.init: random to train from scratch, or give a bert_name with weights."
    folder = Path(bert_name)
    if folder.is_dir() and not any((folder / name).exists() for name in WEIGHT_FILES):
        raise FileNotFoundError(
            f"model.init is pretrained, but {folder} holds no weights ({', '.join(WEIGHT_FILES[:2])}). {cure}"
        )
    chatter = logging.getLogger("transformers.modeling_utils")
    level = chatter.level
    chatter.setLevel(logging.ERROR)  # layers beyond the tower's are left out on purpose: not worth a warning
    try:
        return BertForPreTraining.from_pretrained(bert_name, config=config).state_dict()
    except OSError as error:
        raise FileNotFoundError(
            f"model.init is pretrained, but the weights of {bert_name!r} cannot be had: {error}. {cure}"
        ) from error
    finally:
        chatter.setLevel(level)


def load_bert_weights(encoder: nn.Module, state: dict[str, Tensor]) -> None:
    """Copies what `encoder` has in common with a BertForPreTraining state; every BERT tensor must be
    there."""
    prefix = "" if hasattr(encoder, "bert") else "bert."
    found = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    result = encoder.load_state_dict(
        {k: v for k, v in found.items() if k in encoder.state_dict()}, strict=False
    )
    absent = [
        k
        for k in result.missing_keys
        if k.startswith(("bert.", "embeddings.", "encoder.")) and "seg_embeddings" not in k
    ]
    assert not absent, absent
