"""Fusion models: clips in, pooled vectors and token sequences of both modalities out.

Every model returns one dict with `pooled_video`, `pooled_text` (B, D), `video_outputs` (B, F + 2, D),
`text_outputs` (B, T - 1, D), their pooling masks `video_mask_outputs`, `text_mask_outputs` (bool), and
`logit_scale` when the temperature is learned.

Shape letters: B clips, F video tokens (seconds), T caption columns, D width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.config import required, schema
from mmpt.config.fields import Section, option
from mmpt.config.schema import Config
from mmpt.models import sequence_layout as layout
from mmpt.models.bert import read_bert_config
from mmpt.models.packing import Packing
from mmpt.models.transformermodel import build_encoder
from mmpt.modules.layers import FeatureNorm, masked_mean
from mmpt.ops.logit_scale import INITIAL_LOGIT_SCALE, inverse_temperature
from mmpt.ops.normalize import unit_rows
from mmpt.registry import ENCODERS, MODELS
from mmpt.utils.columns import known_lengths

RETURNED = (
    "pooled_video",
    "pooled_text",
    "video_outputs",
    "text_outputs",
    "video_mask_outputs",
    "text_mask_outputs",
)


class Encoded(NamedTuple):
    """One modality of a batch."""

    pooled: Tensor  # (B, D) mean over `mask`
    outputs: Tensor  # (B, L, D) all positions
    mask: Tensor  # (B, L) positions in the mean

    @classmethod
    def of(cls, outputs: Tensor, mask: Tensor) -> Encoded:
        return cls(masked_mean(outputs, mask), outputs, mask)


class MMFusion(nn.Module):
    """What all fusion models share: sizes, encoder building, the output dict.

    Args:
        config: `dataset.bert_name`, `dataset.max_video_len`, `dataset.max_len`, `dataset.feature_norm` and
            the `model` section are read.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """The towers."""

        num_hidden_video_layers: int | None = option(None, "layers of the video tower", least=1)
        feature_dim: int | None = option(
            None, "width of the features; null: input_dim of bert_name's config.json, or 512", least=1
        )
        use_seg_emb: bool | None = option(None, "adds the unused segment embedding that VLM checkpoints hold")
        learnable_temperature: bool = option(
            False, "the model owns a trained logit_scale, starting at ln(1/0.07), which losses then read"
        )
        similarity: str = option(
            "dot",
            "dot: pooled vectors as they are (published); cosine: of unit length, those of text times a "
            "learned scale that starts at 1/0.07, for any loss on dot products",
            one_of=("dot", "cosine"),
        )

    def __init__(self, config: schema.Config):
        super().__init__()
        self.config = config
        self.max_video_len = required(self.config, "dataset.max_video_len", self)
        self.bert_config = read_bert_config(required(self.config, "dataset.bert_name", self))
        self.bert_config.input_dim = config.model.feature_dim or self.bert_config.input_dim
        max_len = config.dataset.max_len or self.max_video_len + layout.SPECIAL
        if max_len > self.bert_config.max_position_embeddings:
            available = self.bert_config.max_position_embeddings
            raise ValueError(
                f"dataset.max_len={max_len} exceeds the {available} positions of {config.dataset.bert_name}."
            )
        self.logit_scale = (
            nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE)) if config.model.learnable_temperature else None
        )
        self.cosine_scale = (
            nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE)) if config.model.similarity == "cosine" else None
        )
        norm = config.dataset.feature_norm
        self.feature_norm = FeatureNorm(self.feature_width, norm == "whiten") if norm else nn.Identity()
        self.tokens_in_training = True  # false where the loss reads pooled vectors alone
        self.packed = False  # see mmpt.models.batching.pack_towers

    @property
    def feature_width(self) -> int:
        """Width of a video feature."""
        return self.bert_config.input_dim

    def scored(self, encoded: Encoded, text: bool = False) -> Encoded:
        """One modality with its pooled vectors as `model.similarity` says."""
        if self.cosine_scale is None:
            return encoded
        unit = unit_rows(encoded.pooled)
        scale = inverse_temperature(self.cosine_scale, unit) if text else 1.0
        return encoded._replace(pooled=(unit * scale).to(encoded.pooled.dtype))

    @property
    def decisive_weights(self) -> dict[str, str]:
        """Tensors of a checkpoint that change every score -> the key with which a model reads them."""
        return {
            "feature_norm.whitening": "Set dataset.feature_norm: whiten, as in its training.",
            "feature_norm.mean": "Set dataset.feature_norm: center, as in its training.",
            "cosine_scale": "Set model.similarity: cosine, as in its training.",
        }

    def build_encoder(self, encoder_cls: str | type, n_layers: int | None = None) -> nn.Module:
        """An encoder started from `dataset.bert_name` as `model.init` says, with its first `n_layers`
        layers."""
        bert_config = copy.deepcopy(self.bert_config)
        bert_config.max_video_len = self.max_video_len
        bert_config.use_seg_emb = bool(self.config.model.use_seg_emb)
        if n_layers is not None:
            bert_config.num_hidden_layers = n_layers
        if isinstance(encoder_cls, str):
            encoder_cls = ENCODERS.get(encoder_cls, f"{self.config.source}: model.*_encoder_cls")
        if hasattr(encoder_cls, "encode"):  # a small encoder: no transformer, no weights to start from
            return encoder_cls(self.config.model, bert_config)
        return build_encoder(encoder_cls, bert_config, self.config)

    @property
    def returns(self) -> frozenset[str]:
        """Names of the tensors that `forward` gives; losses are compared with it before training."""
        names = RETURNED if self.logit_scale is None else (*RETURNED, "logit_scale")
        return frozenset(names)

    @property
    def with_tokens(self) -> bool:
        """Whether small encoders give token vectors beside the pooled ones."""
        return self.tokens_in_training or not self.training

    def order_sensitive(self, name: str) -> bool:
        """Whether the embedding of `video` or `text` changes with the order of its positions; an encoder
        without such an attribute does."""
        return getattr(getattr(self, f"{name}_encoder", None), "order_sensitive", True)

    def outputs(self, video: Encoded, text: Encoded) -> dict[str, Tensor]:
        """The dict every fusion model returns."""
        result = {
            "pooled_video": video.pooled,
            "pooled_text": text.pooled,
            "video_outputs": video.outputs,
            "text_outputs": text.outputs,
            "video_mask_outputs": video.mask,
            "text_mask_outputs": text.mask,
        }
        scales = {"logit_scale": self.logit_scale, "cosine_scale": self.cosine_scale}
        return result | {name: scale for name, scale in scales.items() if scale is not None}

    def forward_video(
        self, vfeats: Tensor, vmasks: Tensor, caps: Tensor, cmasks: Tensor, lengths: np.ndarray | None = None
    ) -> Encoded:
        """Video alone. Of `caps` and `cmasks` only the first two columns, [CLS] and [SEP], are read.

        Args:
            vfeats: (B, F, features) one feature vector per second.
            vmasks: (B, F) true on valid seconds.
            caps: (B, >= 2) token ids.
            cmasks: (B, >= 2) true on tokens to read.
            lengths: see `forward_text`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot encode a video alone; use a Separate or Share model."
        )

    def forward_text(self, caps: Tensor, cmasks: Tensor, lengths: np.ndarray | None = None) -> Encoded:
        """Text alone: `caps` (B, T) = [CLS] [SEP] words [SEP] [PAD].., `cmasks` (B, T).

        Args:
            lengths: (B,) positions of the tower that each row reads; transformers leave the others out, which
                come out as zeros. None: they are computed.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot encode a text alone; use a Separate or Share model."
        )

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch
    ) -> dict[str, Tensor]:
        """Both modalities of B clips, with one caption each or the same number of candidates; further entries
        of the batch are ignored."""
        candidates = len(caps) // len(vfeats)
        of_video, of_text = {}, {}
        if self.packed:
            columns, seconds = known_lengths("cmasks", cmasks, batch), known_lengths("vmasks", vmasks, batch)
            of_video["lengths"], of_text["lengths"] = layout.segment_lengths(columns, seconds, candidates)
        video = self.forward_video(vfeats, vmasks, caps[::candidates], cmasks[::candidates], **of_video)
        return self.outputs(video, self.forward_text(caps, cmasks, **of_text))


class VideoTower(MMFusion):
    """A transformer over video alone, with its first `model.num_hidden_video_layers` layers."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.video_encoder = self.build_encoder(
            required(self.config, "model.video_encoder_cls", self), config.model.num_hidden_video_layers
        )

    def forward_video(
        self, vfeats: Tensor, vmasks: Tensor, caps: Tensor, cmasks: Tensor, lengths: np.ndarray | None = None
    ) -> Encoded:
        vfeats = self.feature_norm(vfeats)
        if hasattr(self.video_encoder, "encode"):
            return self.scored(self.video_encoder.encode(vfeats, vmasks, self.with_tokens))
        ids, mask, pool = layout.video_segment(caps, cmasks, vmasks)
        return self.scored(Encoded.of(self.video_encoder(ids, vfeats, mask, lengths=lengths), pool))


@MODELS.register()
class MMFusionSeparate(VideoTower):
    """Two towers (VideoCLIP, Norton): a short video transformer and BERT, compared by dot product of
    mean-pooled tokens."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.text_encoder = self.build_encoder(required(self.config, "model.text_encoder_cls", self))

    def forward_text(self, caps: Tensor, cmasks: Tensor, lengths: np.ndarray | None = None) -> Encoded:
        if hasattr(self.text_encoder, "encode"):
            return self.scored(self.text_encoder.encode(caps, cmasks, self.with_tokens), text=True)
        ids, mask, pool = layout.text_segment(caps, cmasks)
        packing = None if lengths is None else Packing.of(mask, lengths)
        hidden = self.text_encoder(ids, mask, packing=packing)
        return self.scored(Encoded.of(hidden, pool), text=True)


@MODELS.register()
class MMFusionShare(MMFusion):
    """One encoder, run once per modality."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.mm_encoder = self.build_encoder(required(self.config, "model.mm_encoder_cls", self))

    def forward_video(
        self, vfeats: Tensor, vmasks: Tensor, caps: Tensor, cmasks: Tensor, lengths: np.ndarray | None = None
    ) -> Encoded:
        ids, mask, pool = layout.video_segment(caps, cmasks, vmasks)
        hidden = self.mm_encoder(ids, self.feature_norm(vfeats), mask, lengths=lengths)
        return self.scored(Encoded.of(hidden, pool))

    def forward_text(self, caps: Tensor, cmasks: Tensor, lengths: np.ndarray | None = None) -> Encoded:
        ids, mask, pool = layout.text_segment(caps, cmasks)
        types = layout.token_types(ids.shape[1], None, ids.device)
        hidden = self.mm_encoder(ids, None, mask, types, lengths=lengths)
        return self.scored(Encoded.of(hidden, pool), text=True)
