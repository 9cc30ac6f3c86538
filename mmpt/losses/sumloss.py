"""A weighted sum of losses, written in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmpt.config.fields import option, read_value
from mmpt.losses.loss import Loss, LossConfig, build_loss
from mmpt.registry import LOSSES


@dataclass(frozen=True, kw_only=True)
class SumConfig(LossConfig):
    """The list of losses."""

    losses: list | None = option(
        None, "sections of losses: loss_cls, its own keys, and optionally weight (1.0) and name (loss_cls)"
    )

    def __post_init__(self):
        if not self.losses:
            raise ValueError("loss.losses is empty; list at least one section with loss_cls.")
        names = [part_name(section) for section in self.losses]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"loss.losses: two parts are called {name!r}; give them different names with `name:`."
                )


def part_name(section: Any) -> str:
    """What the log calls one part of the sum."""
    if not hasattr(section, "get"):
        raise ValueError(f"loss.losses: expected a section with loss_cls, got {section!r}.")
    return str(section.get("name") or section.get("loss_cls"))


@LOSSES.register()
class SumLoss(Loss[SumConfig]):
    """Pulls and pushes as its parts do, each times its weight.

        loss:
          loss_cls: SumLoss
          losses:
            - {loss_cls: MMContraLoss}
            - {loss_cls: SequenceContrastLoss, weight: 0.1, threshold: 8, name: paragraph}

    The terms hold each part under its name, unweighted, and its own terms under name/term.
    """

    Config = SumConfig
    family = "Sums"
    formula = "sum over parts of weight * part"
    cost = "the sum of its parts; encoders run once."

    def __init__(self, config: Mapping[str, Any] | SumConfig | None = None, **keys: Any):
        super().__init__(config, **keys)
        sections = {part_name(section): dict(section) for section in self.config.losses or ()}
        self.weights = {
            name: read_value(section.pop("weight", 1.0), float, f"loss.losses ({name}).weight")
            for name, section in sections.items()
        }
        # a list: the names of a ModuleDict may hold no dots
        self.parts = nn.ModuleList(
            build_loss({key: section[key] for key in section if key != "name"})
            for section in sections.values()
        )

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.reads))

    def check(self, clips_per_video: int | None = None, videos_per_batch: int | None = None) -> None:
        for part in self.parts:
            part.check(clips_per_video, videos_per_batch)

    def check_data(self, dataset: Any) -> None:
        for part in self.parts:
            part.check_data(dataset)

    def check_model(self, model: nn.Module) -> None:
        for part in self.parts:
            part.check_model(model)

    @property
    def reads_logit_scale(self) -> bool:
        return any(part.reads_logit_scale for part in self.parts)

    def forward(self, **batch) -> Tensor:
        values = [part(**batch) for part in self.parts]
        inner = {
            f"{name}/{term}": value
            for name, part in zip(self.weights, self.parts, strict=True)
            for term, value in part.terms.items()
        }
        self.record(**dict(zip(self.weights, values, strict=True)), **inner)
        return sum(weight * value for weight, value in zip(self.weights.values(), values, strict=True))
