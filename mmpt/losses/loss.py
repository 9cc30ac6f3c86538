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

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmpt.ops.distributed import all_gather
from mmpt.ops.precision import autocast_off
from mmpt.registry import LOSSES


class Allowed(NamedTuple):
    """The values of a key: numbers within bounds, or one of some words. Null is a matter of the type."""

    above: float | None
    least: float | None
    most: float | None
    one_of: Collection[str]

    def __contains__(self, value: Any) -> bool:
        if self.one_of:
            return value in self.one_of
        if not isinstance(value, (int, float)):
            return True
        too_low = (self.above is not None and value <= self.above) or (
            self.least is not None and value < self.least
        )
        return math.isfinite(value) and not too_low and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.one_of:
            return f"one of {', '.join(self.one_of)}"
        bounds = {"above": self.above, "at least": self.least, "at most": self.most}
        return " and ".join(
            ["a finite number", *(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)]
        )


def option(
    default: Any,
    help: str,
    yaml: str | None = None,
    symbol: str | None = None,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    one_of: Collection[str] = (),
) -> Any:
    """A key of a loss: its default, one line of meaning, its spelling in YAML where that differs, its symbol
    in the paper, its values."""
    allowed = Allowed(above, least, most, one_of)
    return field(default=default, metadata={"help": help, "yaml": yaml, "symbol": symbol, "allowed": allowed})


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Keys of a loss without keys."""

    def __post_init__(self):
        """Refuses values that a key does not allow; subclasses add what concerns several keys."""
        faults = self._out_of_range({f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "loss")
        if faults:
            raise ValueError("\n".join(faults))

    @classmethod
    def yaml_names(cls) -> dict[str, dataclasses.Field]:
        """YAML spelling -> field."""
        return {f.metadata.get("yaml") or f.name: f for f in dataclasses.fields(cls)}

    @classmethod
    def from_yaml(cls, section: Mapping[str, Any], where: str = "loss") -> LossConfig:
        """Reads a section in YAML spelling.

        Raises:
            ValueError: unknown keys or values of the wrong type; all of them in one message, each with the
                place and what is expected.
        """
        known, hints, values, faults = cls.yaml_names(), typing.get_type_hints(cls), {}, []
        for name, value in section.items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                cure = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known) or 'none'}."
                faults.append(f"{where}.{name}: unknown key; {cure}")
                continue
            try:
                values[known[name].name] = convert(value, hints[known[name].name], f"{where}.{name}")
            except ValueError as error:
                faults.append(str(error))
        faults += cls._out_of_range(values, where)
        if faults:
            raise ValueError("\n".join(faults))
        return cls(**values)

    @classmethod
    def _out_of_range(cls, values: Mapping[str, Any], where: str) -> list[str]:
        """One message for each of the values, by field name, that its key does not allow."""
        allowed = {
            f.name: (name, f.metadata["allowed"])
            for name, f in cls.yaml_names().items()
            if "allowed" in f.metadata
        }
        found = [
            (*allowed[name], value) for name, value in values.items() if value is not None and name in allowed
        ]
        return [
            f"{where}.{name}: expected {wanted}, got {value!r}."
            for name, wanted, value in found
            if value not in wanted
        ]


@dataclass(frozen=True, kw_only=True)
class NegativesConfig(LossConfig):
    """Keys of losses whose negatives are the other clips of the batch."""

    global_negatives: bool = option(
        False, "join the clips of all ranks, with gradient; every rank needs the same shapes"
    )

    def join(self, x: Tensor) -> Tensor:
        """The rows of all ranks, or `x` itself where negatives are local."""
        return all_gather(x) if self.global_negatives else x


def convert(value: Any, hint: Any, where: str) -> Any:
    """A YAML value as the type that the dataclass states; "1e-5", which YAML reads as a string, becomes a
    number.

    Raises:
        ValueError: it is of another type; the message names the place.
    """
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in choices:
        return None
    for choice in choices:
        if isinstance(choice, type) and issubclass(choice, LossConfig) and isinstance(value, Mapping):
            return choice.from_yaml(value, where)
        if (
            choice is float
            and isinstance(value, (int, float, str))
            and not isinstance(value, bool)
            and _is_number(value)
        ):
            return float(value)
        plain = typing.get_origin(choice) or choice
        if (
            isinstance(plain, type)
            and isinstance(value, plain)
            and not (plain is int and isinstance(value, bool))
        ):
            return value
    expected = " or ".join("null" if c is type(None) else getattr(c, "__name__", str(c)) for c in choices)
    raise ValueError(f"{where}: expected {expected}, got {value!r}.")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


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
