"""What every loss shares: a typed configuration, the tensors it reads, named terms, what documents it.

@LOSSES.register()
class MyLoss(Loss[MyConfig]):
    "One sentence: what is pulled together and pushed apart."

    Config = MyConfig
    family = "Clips and captions"
    formula = "CE(v t' / tau)"
    from_model = ("pooled_video", "pooled_text")

    def forward(self, *, pooled_video, pooled_text, **batch):
        loss = ...
        self.record(nce=loss)
        return loss
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from mmpt.config.fields import Section, option
from mmpt.ops.distributed import all_gather, rank, world_size
from mmpt.ops.precision import autocast_off
from mmpt.registry import LOSSES, keyword_arguments


@dataclass(frozen=True, kw_only=True)
class LossConfig(Section):
    """Keys of a loss without keys."""

    @classmethod
    def _place(cls) -> str:
        return "loss"

    @property
    def reads_logit_scale(self) -> bool | None:
        """Whether a temperature that the model learns has an effect with these keys; None: `forward` says
        so."""
        return None

    def check_data(self, dataset: Any) -> None:
        """Before torch is imported: does the `dataset:` section make what this loss expects?

        Raises:
            ValueError: it does not; the message names the keys of both sections.
        """


@dataclass(frozen=True, kw_only=True)
class NegativesConfig(LossConfig):
    """Keys of losses whose negatives are the other clips of the batch."""

    global_negatives: bool = option(
        False, "join the clips of all ranks, with gradient; every rank needs the same shapes"
    )

    def join(self, x: Tensor) -> Tensor:
        """The rows of all ranks, or `x` itself where negatives are local."""
        return all_gather(x) if self.global_negatives else x

    @property
    def spans_ranks(self) -> bool:
        """Are there candidates of other ranks?"""
        return self.global_negatives and world_size() > 1

    def first_of(self, x: Tensor) -> int:
        """Where the rows of this rank begin among the joined ones."""
        return rank() * len(x) if self.spans_ranks else 0

    def over_ranks(self, loss: Tensor) -> Tensor:
        """The mean over ranks of a loss of own rows, which is that of the joined batch; gradients stay those
        of the own rows."""
        if not self.spans_ranks:
            return loss
        own = loss.detach()
        return loss + (all_gather(own[None], with_grad=False).mean() - own)


C = TypeVar("C", bound=LossConfig)


class Loss(nn.Module, Generic[C]):
    """A Module without parameters over maths in `mmpt.ops`.

    Subclasses name every tensor they read as a keyword-only argument of `forward`, accept the rest of the
    batch as `**batch`, and return a scalar. All maths runs outside autocast: float32 for half inputs, float64
    for float64 inputs.

    Args:
        config: the `loss:` section in YAML spelling (without or with `loss_cls`), a ready `Config`, or None
            for the defaults.
        **keys: single keys, as the fields of `Config` or as YAML spells them: `MMContraLoss(beta=0.3)`.

    Attributes:
        Config: the keys; of a class whose `__init__` names them itself, made from its arguments.
        family: the heading under which the loss is described.
        formula, paper, cost, note: what docs/losses.md says of it beside its docstring.
        from_model: tensors that the model must return; None: all that `forward` cannot do without.
        reads_padding: whether token states outside of their masks change the value.
        terms: detached value of each term of the last forward pass, by name.
    """

    Config: type[C] = LossConfig  # type: ignore[assignment]  # a loss without keys needs no other
    family: str = "Further losses"
    formula: str = ""
    paper: str = ""
    cost: str = ""
    note: str = ""
    from_model: tuple[str, ...] | None = None
    reads_padding: bool = False

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        own = vars(cls).get("__init__")
        if own is not None and not _takes_config(own):
            if cls.Config.yaml_names():
                raise TypeError(
                    f"{cls.__name__}.__init__ hides the keys of {cls.Config.__qualname__}. Write "
                    "`def __init__(self, config=None, **keys): super().__init__(config, **keys)`."
                )
            cls.Config = _config_of(own, cls.__name__)  # type: ignore[assignment]

    def __init__(self, config: Mapping[str, Any] | C | None = None, **keys: Any):
        super().__init__()
        self.config: C = self._configured(config, keys)
        self.terms: dict[str, Tensor] = {}

    @classmethod
    def _configured(cls, config: Mapping[str, Any] | LossConfig | None, keys: Mapping[str, Any]) -> Any:
        if isinstance(config, cls.Config):
            return dataclasses.replace(config, **keys)
        if isinstance(config, LossConfig):
            raise TypeError(f"{cls.__name__} is configured by {cls.Config.__qualname__}, got {config}.")
        spelling = {field.name: name for name, field in cls.Config.yaml_names().items()}
        section = {name: value for name, value in (config or {}).items() if name != "loss_cls"}
        section |= {spelling.get(name, name): value for name, value in keys.items()}
        return cls.Config.from_yaml(section, where=f"loss ({cls.__name__})")

    def __call__(self, **batch: Any) -> Tensor:
        tensor = next((value for value in batch.values() if isinstance(value, Tensor)), None)
        missing = [name for name in self.reads if batch.get(name) is None]
        if missing or tensor is None:
            raise TypeError(
                f"{type(self).__name__} reads {', '.join(missing) or 'a tensor'}, which neither the model "
                f"nor the batch gives (given: {', '.join(n for n in sorted(batch) if batch[n] is not None)})."
            )
        with autocast_off(tensor):
            loss = super().__call__(**batch)
        if not isinstance(loss, Tensor) or loss.dim():
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(f"{type(self).__name__}.forward returned {found}; expected a scalar tensor.")
        return loss

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the tensors that `forward` cannot do without."""
        return keyword_arguments(type(self).forward, needed=True)

    @property
    def reads_logit_scale(self) -> bool:
        """Whether a temperature that the model learns has an effect."""
        said = self.config.reads_logit_scale
        return "logit_scale" in inspect.signature(self.forward).parameters if said is None else said

    def check(self, clips_per_video: int | None = None, videos_per_batch: int | None = None) -> None:
        """Before training: do the sizes of the data fit this loss?

        Raises:
            ValueError: they do not; the message names the keys and a value that works.
        """

    def check_data(self, dataset: Any) -> None:
        """Before training: does the `dataset:` section make what this loss expects? Its `Config` answers.

        Raises:
            ValueError: it does not; the message names the keys of both sections.
        """
        self.config.check_data(dataset)

    def check_model(self, model: nn.Module) -> None:
        """Before training: does the model return what this loss reads? A model without `returns` is not
        asked; its first batch will tell.

        Raises:
            ValueError: it does not; the message names what is missing, and what there is. Or the loss has
                parameters, which nobody would train or save.
        """
        if own := [name for name, _ in self.named_parameters()]:
            raise ValueError(
                f"{type(self).__name__} has parameters ({', '.join(own)}), which are neither trained nor "
                "saved. Make each a key, or a part of the model, which returns it."
            )
        returned = getattr(model, "returns", None)
        if returned is None:
            return
        missing = [
            n for n in (self.reads if self.from_model is None else self.from_model) if n not in returned
        ]
        if missing:
            name = type(self).__name__
            undeclared = f" What the data set gives is to be left out of {name}.from_model."
            raise ValueError(
                f"loss.loss_cls {name} reads {', '.join(missing)}, which model.model_cls "
                f"{type(model).__name__} does not return (it returns {', '.join(sorted(returned))}). Choose "
                f"another loss, or a model that does.{undeclared if self.from_model is None else ''}"
            )

    def check_temperature(self, model: nn.Module) -> None:
        """Before training: is a temperature that the model learns read by anything?

        Raises:
            ValueError: it is not, so that it would never change.
        """
        if "logit_scale" in getattr(model, "returns", ()) and not self.reads_logit_scale:
            has_key = "temperature" in self.Config.yaml_names()
            cure = "loss.temperature: 0.07, with which it does, or " if has_key else ""
            raise ValueError(
                f"model.learnable_temperature: true trains a logit_scale that {type(self).__name__} does not "
                f"read. Set {cure}model.learnable_temperature: false."
            )

    def record(self, **terms: Tensor) -> None:
        """Keeps the terms for the log.

        On the CPU, where looking at a value costs nothing, a non-finite term raises at once; elsewhere
        `Task.assert_finite` tells when the values are read anyway.
        """
        found = {name: term.detach() for name, term in terms.items()}
        # not `self.terms =`: a Module asks whether what it is given is a parameter, which small losses feel
        object.__setattr__(self, "terms", found)
        for term in found.values():
            if not term.is_cpu:
                return
            if not math.isfinite(term.item()):
                self.assert_finite()

    def assert_finite(self) -> None:
        """Raises FloatingPointError naming each term of the last forward pass that is NaN or infinite."""
        if not self.terms:
            return
        values = list(self.terms.values())
        # one look at a device; on the CPU, looking costs less than joining
        numbers = [x.item() for x in values] if values[0].is_cpu else torch.stack(values).tolist()
        terms = zip(self.terms, numbers, strict=True)
        bad = [f"{name} = {value}" for name, value in terms if not math.isfinite(value)]
        if bad:
            raise not_finite(self, bad)


def not_finite(loss: Any, terms: list[str]) -> FloatingPointError:
    """The error that says which terms of a loss are not finite."""
    return FloatingPointError(
        f"{type(loss).__name__}: {', '.join(terms)}. Look for NaN in the features, a learning rate that is "
        "too high, or overflow in half precision."
    )


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
    cls = LOSSES.get(str(section["loss_cls"]), f"{source}: loss.loss_cls")
    keys = {name: value for name, value in section.items() if name != "loss_cls"}
    return cls(keys) if _takes_config(cls) else _with_arguments(cls, keys)


# A plugin may name its keys as arguments of __init__, as Modules usually do ---------------------------------


def _takes_config(init: Callable) -> bool:
    return "config" in inspect.signature(init).parameters


def _arguments(init: Callable) -> list[inspect.Parameter]:
    """Without self, *args and **kwargs."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [a for a in inspect.signature(init).parameters.values() if a.kind in named and a.name != "self"]


def _config_of(init: Callable, name: str) -> type[LossConfig]:
    """The arguments as keys, so that they are checked and described as those of any other loss."""
    try:
        hints = typing.get_type_hints(init)
    except NameError:  # of a type that is imported for type checkers alone
        hints = {}
    fields = [
        (a.name, hints.get(a.name, Any), option(None if a.default is a.empty else a.default, "see its code"))
        for a in _arguments(init)
    ]
    return dataclasses.make_dataclass(f"{name}Config", fields, bases=(LossConfig,), frozen=True, kw_only=True)


def _with_arguments(cls: type[Loss], keys: Mapping[str, Any]) -> Loss:
    config = cls.Config.from_yaml(keys, where=f"loss ({cls.__name__})")
    missing = [a.name for a in _arguments(cls) if a.default is a.empty and a.name not in keys]
    if missing:
        raise ValueError(f"loss ({cls.__name__}): {', '.join(missing)} missing, which has no default.")
    loss = cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})
    loss.config = config
    return loss
