"""A weighted sum of losses, written in YAML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmpt.losses.loss import Loss, LossConfig, build_loss, option
from mmpt.registry import LOSSES


@dataclass(frozen=True, kw_only=True)
class SumConfig(LossConfig):
    """The list of losses."""

    losses: list | None = option(None, "sections of losses: loss_cls, its own keys, and optionally weight (1.0) and name (loss_cls)")

    def __post_init__(self):
        if not self.losses:
            raise ValueError("loss.losses is empty; list at least one section with loss_cls.")
        names = [part_name(section) for section in self.losses]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"loss.losses: two parts are called {name!r}; give them different names with `name:`.")


def part_name(section: Any) -> str:
    """What the log calls one part of the sum."""
    if not hasattr(section, "get"):
        raise ValueError(f"loss.losses: expected a section with loss_cls, got {section!r}.")
    return str(section.get("name") or section.get("loss_cls"))


@LOSSES.register()
class SumLoss(Loss):
    """Pulls and pushes as its parts do, each times its weight.

        loss:
          loss_cls: SumLoss
          losses:
            - {loss_cls: MMContraLoss}
            - {loss_cls: SequenceContrastLoss, weight: 0.1, threshold: 8, name: paragraph}

    The terms hold each part under its name, unweighted, and its own terms under name/term.
    """

    Config = SumConfig

    def __init__(self, config=None):
        super().__init__(config)
        self.parts, self.weights = nn.ModuleDict(), {}
        for section in self.config.losses:
            name = part_name(section)
            self.parts[name] = build_loss({key: value for key, value in section.items() if key not in ("weight", "name")})
            self.weights[name] = float(section.get("weight", 1.0))

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts.values() for name in part.reads))

    def check(self, clips_per_video: int | None = None, videos_per_batch: int | None = None) -> None:
        for part in self.parts.values():
            part.check(clips_per_video, videos_per_batch)

    def check_data(self, dataset: Any) -> None:
        for part in self.parts.values():
            part.check_data(dataset)

    def check_model(self, model: nn.Module) -> None:
        for part in self.parts.values():
            part.check_model(model)

    def forward(self, **batch) -> Tensor:
        values = {name: part(**batch) for name, part in self.parts.items()}
        inner = {f"{name}/{term}": value for name, part in self.parts.items() for term, value in part.terms.items()}
        self.record(**values, **inner)
        return sum(self.weights[name] * value for name, value in values.items())
