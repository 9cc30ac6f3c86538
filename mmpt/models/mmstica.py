"""STiCA on stored features: one modality is embedded whole and by crops of its feature map, in time and where
there are maps in space.

Shape letters: B items, L positions in time, H x W positions of a map, C hidden width, D = model.contra_dim, n
crops of a kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.config import schema
from mmpt.config.fields import Section, option, read_section
from mmpt.models.bert import init_like_bert
from mmpt.models.mmfusion import Encoded
from mmpt.models.mmgram import MMGram
from mmpt.modules.layers import VideoTokenMLP
from mmpt.modules.pooling import AttentionPool, CropEmbedding
from mmpt.ops.crops import Crop, FeatureCrop, map_tokens
from mmpt.ops.distributed import rank
from mmpt.registry import MODELS

VERSIONS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Crops(FeatureCrop):
    """`model.crops`: what is cropped, and the number and size of the crops.

    Attributes:
        modality: which one.
        per_sample_crops: every clip has windows in time of its own, in its own length; false: all of a batch
            share one, in the shortest.
        share_across_ranks: all processes draw the same boxes.
        seed: with the number of the update and the version, seeds the draw.
    """

    compat: bool = option(
        False, "the last valid offset is never drawn, as in the released code", formerly=("legacy_offsets",)
    )
    modality: str = "video"
    per_sample_crops: bool = False
    share_across_ranks: bool = True
    seed: int = 0

    @property
    def in_space(self) -> bool:
        """Whether crops cut maps in height and width."""
        return self.num_small_crops > 0 or self.num_large_crops > 1

    def draw(self, shape: tuple[int | Tensor, ...], update: int, version: int) -> list[Crop]:
        """The crops of a version in one update; `shape` as in `sample`."""
        ours = 0 if self.share_across_ranks else 1 + rank()
        seed = ((self.seed * 1_000_003 + ours) * 1_000_003 + update) * len(VERSIONS) + version
        return self.sample(shape, torch.Generator().manual_seed(seed % 2**63))


@dataclass(frozen=True, kw_only=True)
class Pooling(Section):
    """`model.pooling`: see `AttentionPool`."""

    layers: int = option(2, "attention layers", least=0)
    heads: int = option(4, "of each layer", least=1)
    ffn: int = option(2048, "width of the feed-forward part", least=1)
    positional: bool = option(False, "tell positions apart")
    value_proj: bool = option(False, "project the pooled vector once more")
    out_step: str = option("first", "which step is the pooled vector")
    dropout: float = option(0.0, "probability", least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class Augment(Section):
    """`model.augment`: how a version of a clip differs from the other, where one is stored."""

    feature_dropout: float = option(
        0.1, "probability that a channel is zero in a whole clip, the others scaled up", least=0, most=1
    )
    frame_dropout: float = option(0.1, "probability that a moment is zero", least=0, most=1)
    noise: float = option(
        0.1,
        "standard deviation of Gaussian noise, relative to the root mean square of the clip's features",
        least=0,
    )

    def __call__(self, features: Tensor) -> Tensor:
        """(B, L, ..., width), another draw at every call."""
        channels = features.new_ones(len(features), *[1] * (features.dim() - 2), features.shape[-1])
        moments = features.new_ones(*features.shape[:2], *[1] * (features.dim() - 2))
        size = (
            features.flatten(1)
            .float()
            .square()
            .mean(1)
            .sqrt()
            .to(features.dtype)
            .view(-1, *[1] * (features.dim() - 1))
        )
        changed = features + self.noise * size * torch.randn_like(features)
        kept = functional.dropout(moments, self.frame_dropout) * (1 - self.frame_dropout)
        return changed * functional.dropout(channels, self.feature_dropout) * kept


class CropTower(nn.Module):
    """Features -> tokens, position by position -> attention pooling over time, of the whole and of crops.

    Args:
        width: of the features.
        hidden: C.
        activation: module between the layers that make tokens.
        pooling: of the tokens.
    """

    def __init__(self, width: int, hidden: int, activation: nn.Module, pooling: Pooling):
        super().__init__()
        self.videomlp = VideoTokenMLP(width, hidden, activation)
        self.pool = AttentionPool(hidden, **dataclasses.asdict(pooling))
        self.order_sensitive = self.pool.order_sensitive

    def tokens(self, features: Tensor) -> Tensor:
        """(B, L, width) -> (B, L, C); maps (B, L, H, W, width) -> (B, C, L, H, W)."""
        tokens = self.videomlp(features)
        return tokens if tokens.dim() == 3 else tokens.movedim(-1, 1)

    def whole(self, tokens: Tensor, mask: Tensor) -> Encoded:
        """All of it: `outputs` (B, L, C), maps averaged over their positions."""
        steps = map_tokens(tokens)
        return Encoded(self.pool(steps, mask), steps, mask)

    def crops(self, tokens: Tensor, crops: list[Crop], version: int) -> dict[str, Tensor]:
        """Kind and version, such as `sl1` -> (n, B, C)."""
        return CropEmbedding(self.pool, nn.Identity()).crops(tokens, crops, version)


@MODELS.register()
class MMSTiCA(MMGram):
    """`MMGram` one of whose modalities (`model.crops.modality`) is pooled by attention and also embedded by
    crops: STiCA.

    In place of a transformer, that modality has tokens made position by position, as stored features are the
    end of a backbone already, and attention pooling over time (`model.pooling`); maps (`map: [7, 7]` of the
    modality) are averaged over their positions after cropping. A clip has two versions: two stored ones
    (`versions: 2` of the modality), or the same features augmented twice (`model.augment`). Each gives the
    whole clip and crops, whose boxes are drawn anew in each update: once for all clips, within the shortest
    of the batch, or (`per_sample_crops`) a window in time for each.

    `forward` returns what `MMGram` does, `pooled_<modality>_1`, `pooled_<modality>_2` (B, D), and `crops`:
    kind and version -> (n, B, D).
    Source: STiCA (arXiv 2103.10211), sections 3.2 and 3.3.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(MMGram.Config):
        """Crops and pooling."""

        crops: Mapping[str, Any] | None = option(
            None, "MMSTiCA: modality that is cropped, number and size of its crops", holds=Crops
        )
        pooling: Mapping[str, Any] | None = option(
            None,
            "MMSTiCA: attention pooling of that modality: layers, heads, ffn, positional, ...",
            holds=Pooling,
        )
        augment: Mapping[str, Any] | None = option(
            None,
            "MMSTiCA: what tells two versions of a clip apart: feature_dropout, frame_dropout, noise",
            holds=Augment,
        )

    def __init__(self, config: schema.Config):
        self.crop = read_section(Crops, config.model.crops or {}, "model.crops")
        super().__init__(config)
        self.augment = read_section(Augment, config.model.augment or {}, "model.augment")
        self._check()

    def forward(  # type: ignore[override]  # a batch comes by name
        self, caps: Tensor, cmasks: Tensor, num_updates: int = 0, **batch: Any
    ) -> dict[str, Any]:
        """B items; `num_updates` says which boxes are drawn."""
        name, tower = self.crop.modality, self.cropped_tower
        output = super().forward(caps, cmasks, **batch)
        features, mask = batch[f"{name}_feats"], batch[f"{name}_masks"]
        lengths = mask.sum(1).clamp_min(1)
        shape = (lengths if self.crop.per_sample_crops else int(lengths.min()), *features.shape[2:-1])
        crops: dict[str, Tensor] = {}
        for version in VERSIONS:
            tokens = tower.tokens(self.version(features, version))
            output[f"pooled_{name}_{version}"] = self.embed(name, tower.whole(tokens, mask).pooled)
            crops |= tower.crops(tokens, self.crop.draw(shape, num_updates, version), version)
        output["crops"] = {kind: self.embed(name, pooled) for kind, pooled in crops.items()}
        return output

    def version(self, features: Tensor, version: int) -> Tensor:
        """Version 1 or 2 of clips (B, L, ..., versions * width)."""
        if self.stored_versions > 1:
            return features.chunk(self.stored_versions, dim=-1)[version - 1]
        return self.augment(features) if self.training else features

    @property
    def returns(self) -> frozenset[str]:
        own = {f"pooled_{self.crop.modality}_{version}" for version in VERSIONS}
        return super().returns | own | {"crops"}

    @property
    def cropped_tower(self) -> CropTower:
        return getattr(self, f"{self.crop.modality}_encoder")

    @property
    def stored_versions(self) -> int:
        return self.config.dataset.modalities[self.crop.modality].get("versions", 1)

    def reads_as_stored(self, name: str) -> bool:
        return name == self.crop.modality

    def _encode(self, name: str, caps: Tensor, cmasks: Tensor, batch: Mapping[str, Tensor]) -> Encoded:
        if name != self.crop.modality:
            return super()._encode(name, caps, cmasks, batch)
        features, mask = self.stream(name, batch)
        return self.cropped_tower.whole(
            self.cropped_tower.tokens(features.chunk(self.stored_versions, dim=-1)[0]), mask
        )

    def _tower(self, name: str) -> nn.Module:
        if name != self.crop.modality:
            return super()._tower(name)
        entry, pooling = (
            self.config.dataset.modalities[name],
            read_section(Pooling, self.config.model.pooling or {}, "model.pooling"),
        )
        hidden, activation = self.bert_config.hidden_size, self.bert_config.activation()
        tower = CropTower(entry.get("width", 512), hidden, activation, pooling)
        init_like_bert(tower.videomlp, self.bert_config.initializer_range)
        return tower

    def _check(self) -> None:
        name = self.crop.modality
        if name not in self.stream_names:
            raise ValueError(
                f"model.crops.modality={name}: expected a stream of dataset.modalities "
                f"({', '.join(self.stream_names)})."
            )
        entry = self.config.dataset.modalities[name]
        if self.crop.in_space and not entry.get("map"):
            raise ValueError(
                "model.crops: crops in space need stored feature maps (dataset.modalities."
                f"{name}.map), but {name} is a sequence of vectors. Set model.crops.num_large_crops and "
                "num_small_crops to 0."
            )
        if self.stored_versions not in (1, 2):
            raise ValueError(
                f"dataset.modalities.{name}.versions={self.stored_versions}: STiCA compares two versions; "
                "use 1 or 2."
            )
        if self.config.dataset.on_missing == "mask" or self.config.dataset.modality_dropout:
            raise ValueError(
                "MMSTiCA compares modalities that are there: set dataset.on_missing: drop, "
                "dataset.modality_dropout: 0."
            )
