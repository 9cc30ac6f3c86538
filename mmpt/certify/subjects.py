"""What is certified: a loss, a batch it can read, and how that batch is cut into items."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmpt.certify.batches import BUILT_IN, SPECIAL, Maker
from mmpt.losses import build_loss
from mmpt.registry import LOSSES

ITEMS, VIDEOS = 16, 4  # of a batch; a video is an unbroken run of clips
Batch = dict[str, Any]
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Subject:
    """A loss and its batch.

    Attributes:
        name: of the loss.
        make_loss: a new loss; called once for every evaluation, so that no draw or count is carried over.
        make_batch: dtype -> a batch of the loss's keyword arguments, the same numbers at every call.
        layout: "items": tensors have an item a row; "views": rows are view-major; "crops": so, and crops have
            items in their second dimension; "": the batch cannot be cut.
        joins: whether the loss compares with the items of other processes.
        adds_up: whether the loss is a mean over items, so that gradients of micro-batches add up.
        draws: why rearranged items and further processes draw differently; empty: they do not.
    """

    name: str
    make_loss: Callable[[], Loss]
    make_batch: Callable[[torch.dtype], Batch]
    layout: str = "items"
    joins: bool = False
    adds_up: bool = False
    draws: str = ""

    def take(self, batch: Batch, items: Tensor) -> Batch:
        """The batch of some items, which keep their videos."""

        def cut(name: str, value: Any) -> Any:
            if isinstance(value, Mapping):
                return {key: cut(name, inner) for key, inner in value.items()}
            if not isinstance(value, Tensor) or value.dim() == 0:
                return value
            if name == "crops":
                return value[:, items]
            if self.layout == "views":
                return value.unflatten(0, (-1, ITEMS))[:, items].flatten(0, 1)
            return value[items]

        return {name: cut(name, value) for name, value in batch.items()}


def subjects() -> list[Subject]:
    """Every loss that comes with mmpt, but for those whose scores are random or made by the model's head."""
    left_out = {"CaptionLoss", "AnswerLoss", "DummyLoss", "DummyK400Loss"}
    return [subject_of(name) for name in BUILT_IN if name not in left_out]


def subject_of(name: str, **keys: Any) -> Subject:
    """A registered loss with keys of its own, on a batch made for it.

    Raises:
        KeyError: no loss has that name.
    """
    cls = LOSSES.get(name)
    config = cls.Config.yaml_names()
    draws = "generator" in inspect.signature(cls.forward).parameters
    usual, make = SPECIAL.get(name, (lambda n: {}, None))
    joined = {"global_negatives": True} if "global_negatives" in config else {}
    section = {"loss_cls": name, **usual(ITEMS), **joined}
    section.pop("dam_weight", None)  # its negatives are drawn, and its scores are the model's
    if name == "MMContraLoss":  # sequences of a video each
        section["sequence_contrast"] = {"threshold": ITEMS // VIDEOS}
    if name == "SequenceContrastLoss":
        section["threshold"] = ITEMS // VIDEOS
    section |= keys
    layouts: dict[Any, str] = {Maker.views: "views", Maker.crops: "crops"}
    layouts |= dict.fromkeys([Maker.clips, Maker.tuples, Maker.conditions, None], "items")
    layouts |= dict.fromkeys([Maker.labels, Maker.soft_labels], "items")

    def batch(dtype: torch.dtype) -> Batch:
        maker = Maker("random", ITEMS, torch.float32, VIDEOS)
        return cast(make(maker) if make else maker.usual(build_loss(section)), dtype)

    def loss() -> Loss:
        made = build_loss(section)
        return functools.partial(made, generator=torch.Generator().manual_seed(0)) if draws else made

    return Subject(
        name,
        loss,
        batch,
        layouts.get(make, ""),
        joins=bool(joined) or bool({"gather", "negative_scope"} & config.keys()),
        adds_up=make in (Maker.labels, Maker.soft_labels),
        draws="orders are drawn video by video" if draws else "",
    )


def pairs_subject(
    name: str, make: Callable[[], Callable[[Tensor, Tensor], Tensor]], joins: bool = False, width: int = 16
) -> Subject:
    """A loss of another library on (N, D) video (or image) and text vectors.

    Args:
        name: for the table.
        make: gives a new loss, which maps (video, text) to a scalar.
        joins: whether it gathers the vectors of other processes.
        width: of the vectors.
    """

    def batch(dtype: torch.dtype) -> Batch:
        video, text = torch.randn(2, ITEMS, width, generator=torch.Generator().manual_seed(0))
        return cast({"pooled_video": video, "pooled_text": text}, dtype)

    def loss() -> Loss:
        made = make()
        return lambda *, pooled_video, pooled_text: made(pooled_video, pooled_text)

    return Subject(name, loss, batch, joins=joins)


def cast(batch: Batch, dtype: torch.dtype) -> Batch:
    """Floating tensors in a dtype, as constants."""
    return filled(batch, (x.detach().to(dtype) for x in floats(batch)))


def floats(batch: Batch) -> list[Tensor]:
    """The floating tensors, which are those with gradients."""
    values = (
        v for value in batch.values() for v in (value.values() if isinstance(value, Mapping) else [value])
    )
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def filled(batch: Batch, tensors: Iterable[Tensor]) -> Batch:
    """The batch with other floating tensors."""
    given = iter(tensors)

    def inner(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: inner(x) for key, x in value.items()}
        return next(given) if isinstance(value, Tensor) and value.is_floating_point() else value

    return {name: inner(value) for name, value in batch.items()}
