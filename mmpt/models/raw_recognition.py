"""Action recognition on frames: a video network of GDT or STiCA with a linear classifier.

Shape letters: B clips, T frames, H, W pixels, C = 8 width.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.backbones.backbone import refuse_random
from mmpt.backbones.r2plus1d import R2Plus1D
from mmpt.checkpoints.weights import read_state_dict
from mmpt.config import schema
from mmpt.config.fields import option, read_section
from mmpt.models.gdt import LAST
from mmpt.models.mmstica import Pooling
from mmpt.models.raw_clips import VideoNetwork
from mmpt.modules.pooling import AttentionPool
from mmpt.ops.crops import map_tokens
from mmpt.registry import MODELS

logger = logging.getLogger(__name__)
# names here <- names in files of pre-training; of torchvision there is nothing before `stem`
ORIGINS = {
    "base.": ("video_network.base.", "base.", ""),
    "pooling_arch.": ("video_pooling.", "pooling_arch."),
}


@MODELS.register()
class RawRecognition(nn.Module):
    """Classes of a clip, from the video network that `model.init_from` brings.

    Names of tensors are those of the release's fine-tuned files. Source: GDT (Patrick et al. 2020),
    `eval_video.py`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(VideoNetwork):
        """The network and the classifier on top."""

        n_classes: int | None = option(None, "classes: 101 of UCF101, 51 of HMDB51; required", least=2)
        init_from: str | None = option(
            None, "checkpoint whose video network the model starts from: of GDT, STiCA or torchvision"
        )
        pooling: Mapping[str, Any] | None = option(
            None, "attention pooling of feature maps, as STiCA has it; null: their mean", holds=Pooling
        )
        probe: bool = option(
            False, "train the classifier alone; the network stays as it is, its BatchNorm too"
        )
        classifier_norm: bool = option(False, "BatchNorm before the classifier")
        classifier_dropout: float = option(0.0, "before the classifier; released: 0.9", least=0, most=1)
        unit_vectors: bool = option(False, "bring vectors to unit length before the classifier")

    returns = frozenset({"logits"})

    def __init__(self, config: schema.Config):
        super().__init__()
        model = config.model
        if model.n_classes is None:
            raise ValueError(
                "model.n_classes is not set: RawRecognition needs the number of classes, 101 of "
                "UCF101, 51 of HMDB51."
            )
        width = LAST * model.width
        self.base = R2Plus1D(model.video_depth, pool=model.pooling is None, width=model.width)
        if model.pooling is not None:
            pooling = read_section(Pooling, model.pooling, "model.pooling")
            self.pooling_arch = nn.ModuleDict({"2": AttentionPool(width, **dataclasses.asdict(pooling))})
        self.classifier = linear_classifier(width, model.n_classes, model.classifier_norm)
        self.dropout = nn.Dropout(model.classifier_dropout)
        self.unit_vectors, self.probe = model.unit_vectors, model.probe
        if model.init_from is not None:
            self._start_from(model.init_from)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not self.probe or name.startswith("classifier."))

    def train(self, mode: bool = True) -> RawRecognition:
        """A frozen network also keeps its BatchNorm statistics."""
        super().train(mode)
        if self.probe:
            self.base.eval()
            if hasattr(self, "pooling_arch"):
                self.pooling_arch.eval()
        return self

    def video_vectors(self, video: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W) -> (B, C)."""
        with torch.no_grad() if self.probe else contextlib.nullcontext():
            features = self.base(video)
            return self.pooling_arch["2"](map_tokens(features)) if features.dim() == 5 else features

    def forward(self, video: Tensor, **batch: Any) -> dict[str, Tensor]:
        """Clips (B, 3, T, H, W) -> `logits` (B, classes)."""
        vectors = self.video_vectors(video)
        vectors = functional.normalize(vectors, dim=-1) if self.unit_vectors else vectors
        return {"logits": self.classifier(self.dropout(vectors))}

    def _start_from(self, path: str) -> None:
        """Takes the video network over.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file lacks tensors of the network, or has them in other sizes.
        """
        stored, own = read_state_dict(path), self.state_dict()
        found: dict[str, Tensor] = {}
        for here, origins in ORIGINS.items():
            names = [
                name for name in own if name.startswith(here) and not name.endswith("num_batches_tracked")
            ]
            there = max(
                origins, key=lambda origin: sum(origin + name.removeprefix(here) in stored for name in names)
            )
            wanted = {name: there + name.removeprefix(here) for name in names}
            absent = [name for name, other in wanted.items() if other not in stored]
            refuse_random(path, f"model.init_from: {here}*", absent, len(names))
            found |= {name: stored[other] for name, other in wanted.items()}
        wrong = [
            f"{name}: file {tuple(value.shape)}, model {tuple(own[name].shape)}"
            for name, value in found.items()
            if value.shape != own[name].shape
        ]
        if wrong:
            raise ValueError(
                f"model.init_from={path} has other sizes: {'; '.join(wrong[:3])}. Check "
                "model.video_depth and model.width."
            )
        self.load_state_dict(found, strict=False)
        logger.info("%s: %d tensors of the video network loaded", path, len(found))


def linear_classifier(width: int, n_classes: int, norm: bool) -> nn.Module:
    """Vectors (B, width) -> (B, n_classes), with orthogonal weights; `norm`: BatchNorm first."""
    linear = nn.Linear(width, n_classes)
    nn.init.orthogonal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(width), linear) if norm else linear
