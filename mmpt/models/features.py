"""Models on ready-made features, without a transformer: the baselines of recognition, and few-shot
classification.

Shape letters: B videos, F frames or seconds, D feature width; S supports and Q queries of an episode.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mmpt.config import schema
from mmpt.config.fields import Section, option
from mmpt.config.schema import Config
from mmpt.models.bert import DEFAULT_INPUT_DIM
from mmpt.models.mmfusion import Encoded
from mmpt.registry import MODELS


@MODELS.register()
class FeatureMean(nn.Module):
    """The mean of the features of a video, nothing learned: what a backbone gives by itself."""

    def __init__(self, config: Config):
        super().__init__()

    def forward_video(self, vfeats: Tensor, vmasks: Tensor, caps: Tensor, cmasks: Tensor) -> Encoded:
        """(B, F, D) and (B, F) -> pooled (B, D)."""
        return Encoded.of(vfeats, vmasks)


@MODELS.register()
class FrameProjection(nn.Module):
    """One linear map of every frame, starting as the identity: untrained, it compares the features
    themselves."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """Width of the features."""

        feature_dim: int | None = option(None, "width of the features; null: 512", least=1)

    returns = frozenset({"support", "query"})

    def __init__(self, config: schema.Config):
        super().__init__()
        width = config.model.feature_dim or DEFAULT_INPUT_DIM
        self.projection = nn.Linear(width, width)
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, support: Tensor, query: Tensor, **batch) -> dict[str, Tensor]:
        """support (S, F, D) and query (Q, F, D), each mapped."""
        return {"support": self.projection(support), "query": self.projection(query)}
