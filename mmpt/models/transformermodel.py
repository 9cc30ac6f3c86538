"""BERT over video and text tokens, with the parameter names of published checkpoints.

An encoder is built from a `BertConfig`. Shape letters: B clips, F video tokens, T caption columns, D width, C
vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.backbones.backbone import refuse_random
from mmpt.checkpoints.weights import read_state_dict
from mmpt.config import Config, required
from mmpt.models import sequence_layout as layout
from mmpt.models.bert import BertConfig, BertModel, init_like_bert
from mmpt.models.packing import Packing, chosen
from mmpt.modules.layers import VideoTokenMLP
from mmpt.registry import ENCODERS
from mmpt.utils.optional import pretrained_file
from mmpt.utils.text import quoted, read_json

COIN_LABELS = 779
SEGMENTS = 256  # rows of the segment embedding of VLM checkpoints
WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)


class MMBert(nn.Module):
    """BERT that reads video features between the first and the second token id."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.max_video_len = config.max_video_len
        self.videomlp = VideoTokenMLP(config.input_dim, config.hidden_size, config.activation())
        self.bert = BertModel(config)
        if config.use_seg_emb:
            self.bert.embeddings.seg_embeddings = nn.Embedding(SEGMENTS, config.hidden_size)
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
            lengths: of a mask (B, L); its other positions are left out, and come out as zeros.

        Returns:
            (B, L, D), L = n + F.
        """
        n_video = None if vfeats is None else vfeats.shape[1]
        video = None if vfeats is None else self.videomlp(vfeats)
        embeds = layout.splice(self.bert.embeddings.word_embeddings(ids), video)
        return self.bert(
            None,
            mask,
            embeds=embeds,
            positions=layout.position_ids(ids.shape[1], n_video, self.max_video_len, ids.device),
            types=types,
            n_layers=n_layers,
            packing=None if lengths is None else Packing.of(mask, lengths),
        )


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
        self.activation = config.activation()
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
        name = required(config, "dataset.bert_name")
        load_bert_weights(encoder, pretrained_bert(name), name)
    return encoder


def pretrained_bert(bert_name: str) -> dict[str, Tensor]:
    """State of BERT with its prediction head, by the names of today.

    Args:
        bert_name: hub id or folder.
    """
    cure = "Set model.init: random to train from scratch, or give a bert_name with weights."
    path = pretrained_file(
        bert_name, WEIGHT_FILES, "model.init is pretrained, but dataset.bert_name", cure=cure
    )
    if path.suffix == ".json":
        places = read_json(path, dict).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(part, str) for part in places.values()):
            raise ValueError(f"{path}: weight_map is {quoted(places)}, expected the file of each tensor.")
        parts = sorted(set(places.values()))
        files = [pretrained_file(bert_name, (part,), "dataset.bert_name") for part in parts]
    else:
        files = [path]
    state = {name: tensor for file in files for name, tensor in read_state_dict(file).items()}
    norms = {"gamma": "weight", "beta": "bias"}  # as the first conversions of the published weights have them
    stems = (name.rpartition(".") for name in state)
    names = [f"{stem}{dot}{norms.get(last, last)}" for stem, dot, last in stems]
    whole = any(name.startswith("bert.") for name in names)  # else one saved without its prediction head
    return {
        name if whole else f"bert.{name}": tensor for name, tensor in zip(names, state.values(), strict=True)
    }


def load_bert_weights(encoder: nn.Module, state: dict[str, Tensor], bert_name: str) -> None:
    """Copies what `encoder` has of a BERT; tokens for video and labels stay random.

    Raises:
        ValueError: the state lacks a tensor of BERT that is read, or has it in another shape.
    """
    prefix = "" if hasattr(encoder, "bert") else "bert."
    found = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    theirs = ("bert.", "embeddings.", "encoder.", "pooler.", "cls.")
    own = {name: tensor for name, tensor in encoder.state_dict().items() if name.startswith(theirs)}
    filled: dict[int, str] = {}  # a tied tensor takes the first of its names that the state has
    for name in own:
        if name in found:
            filled.setdefault(own[name].data_ptr(), name)
    absent = [
        name
        for name, tensor in own.items()
        if tensor.data_ptr() not in filled and not any(part in name for part in ("pooler.", "seg_embeddings"))
    ]
    cure = "Name a model with them in dataset.bert_name, or set model.init: random to train from scratch."
    refuse_random(bert_name, type(encoder).__name__, absent, len(own), cure)
    for name in filled.values():
        if found[name].shape != own[name].shape:
            raise ValueError(
                f"{bert_name}: {name} has the shape {tuple(found[name].shape)} in the weights, and "
                f"{tuple(own[name].shape)} after config.json. Take both from one model."
            )
    encoder.load_state_dict({name: found[name] for name in filled.values()}, strict=False)
