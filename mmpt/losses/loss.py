"""What every loss shares: a typed configuration beside the class, the YAML spelling of its keys, named terms.

@LOSSES.register()
class MyLoss(Loss):
    "One sentence: what is pulled together and pushed apart."

    @dataclass(frozen=True, kw_only=True)
    class Config(LossConfig):
        temperature: float = option(0.07, "divides the scores", yaml="t")

    def forward(self, *, pooled_video, pooled_text, **batch):
        loss = ...
        self.record(nce=loss)
        return loss
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.config.fields import Section, option
from mmpt.ops.distributed import all_gather
from mmpt.ops.precision import autocast_off
from mmpt.registry import LOSSES


@dataclass(frozen=True, kw_only=True)
class LossConfig(Section):
    """Keys of a loss without keys."""

    @classmethod
    def _place(cls) -> str:
        return "loss"


@dataclass(frozen=True, kw_only=True)
class NegativesConfig(LossConfig):
    """Keys of losses whose negatives are the other clips of the batch."""

    global_negatives: bool = option(
        False, "join the clips of all ranks, with gradient; every rank needs the same shapes"
    )

    def join(self, x: Tensor) -> Tensor:
        """The rows of all ranks, or `x` itself where negatives are local."""
        return all_gather(x) if self.global_negatives else x


class Loss(nn.Module):
    """A Module without parameters over maths in `mmpt.ops`.

    Subclasses name every tensor they read as a keyword-only argument of `forward`, accept the rest of the
    batch as `**batch`, and return a scalar. All maths runs outside autocast: float32 for half inputs, float64
    for float64 inputs.

    Args:
        config: the `loss:` section in YAML spelling (without or with `loss_cls`), a ready `Config`, or None
            for the defaults.

    Attributes:
        terms: detached value of each term of the last forward pass, by name.
    """

    Config: type[LossConfig] = LossConfig

    def __init__(self, config: Mapping[str, Any] | LossConfig | None = None):
        super().__init__()
        if not isinstance(config, LossConfig):
            section = {name: value for name, value in (config or {}).items() if name != "loss_cls"}
            config = self.Config.from_yaml(section, where=f"loss ({type(self).__name__})")
        self.config = config
        self.terms: dict[str, Tensor] = {}

    def __call__(self, **batch: Any) -> Tensor:
        tensor = next((value for value in batch.values() if isinstance(value, Tensor)), None)
        missing = [name for name in self.reads if batch.get(name) is None]
        if missing:
            raise TypeError(
                f"{type(self).__name__} reads {', '.join(missing)}, which neither the model nor the batch "
                "gives "
                f"(given: {', '.join(sorted(name for name, value in batch.items() if value is not None))})."
            )
        with autocast_off(tensor):
            return super().__call__(**batch)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the tensors that `forward` cannot do without."""
        arguments = inspect.signature(self.forward).parameters.values()
        return tuple(a.name for a in arguments if a.kind is a.KEYWORD_ONLY and a.default is a.empty)

    def check(self, clips_per_video: int | None = None, videos_per_batch: int | None = None) -> None:
        """Before training: do the sizes of the data fit this loss?

        Raises:
            ValueError: they do not; the message names the keys and a value that works.
        """

    def check_data(self, dataset: Any) -> None:
        """Before training: does the `dataset:` section make what this loss expects?

        Raises:
            ValueError: it does not; the message names the keys of both sections.
        """

    def check_model(self, model: nn.Module) -> None:
        """Before training: does the model return what this loss reads? A model without `returns` is not
        asked; its first batch will tell.

        Raises:
            ValueError: it does not; the message names what is missing, and what there is.
        """
        returned = getattr(model, "returns", None)
        missing = [
            name for name in self.reads if _comes_from_a_model(name) and name not in (returned or self.reads)
        ]
        if missing:
            raise ValueError(
                f"loss.loss_cls {type(self).__name__} reads {', '.join(missing)}, which model.model_cls "
                f"{type(model).__name__} does not "
                f"return (it returns {', '.join(sorted(returned))}). Choose another loss, or a model that "
                "does."
            )

    def record(self, **terms: Tensor) -> None:
        """Keeps the terms for the log.

        On the CPU, where looking at a value costs nothing, a non-finite term raises at once; elsewhere call
        `assert_finite` when the values are read anyway.
        """
        self.terms = {name: term.detach() for name, term in terms.items()}
        if all(term.device.type == "cpu" for term in self.terms.values()):
            self.assert_finite()

    def assert_finite(self) -> None:
        """Raises FloatingPointError naming each term of the last forward pass that is NaN or infinite."""
        bad = [f"{name} = {term.item()}" for name, term in self.terms.items() if not torch.isfinite(term)]
        if bad:
            raise FloatingPointError(
                f"{type(self).__name__}: {', '.join(bad)}. Look for NaN in the features, a learning rate "
                "that is too high, or overflow in "
                "half precision."
            )


def _comes_from_a_model(name: str) -> bool:
    """Not from the data set, as targets, times and labels do."""
    others = ("crops", "matcher", "video_seq", "support", "query")
    return name.startswith("pooled_") or name.endswith(("_outputs", "logits", "_scores")) or name in others


def build_loss(section: Mapping[str, Any], source: str = "") -> Loss:
    """The loss that a `loss:` section, of the file `source`, describes.

    Raises:
        ValueError: no `loss_cls`, an unknown key, or a value out of range.
        mmpt.registry.UnknownName: no loss has that name.
    """
    if section and not isinstance(section, Mapping):
        raise ValueError(f"loss: expected a section with loss_cls, got {section!r}.")
    if not section or not section.get("loss_cls"):
        raise ValueError(f"loss.loss_cls is missing; name one of {', '.join(LOSSES.names())}.")
    return LOSSES.get(str(section["loss_cls"]), f"{source}: loss.loss_cls")(section)
