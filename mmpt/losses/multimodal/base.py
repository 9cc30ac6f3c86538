"""What losses on tuples of modalities share: gathering, masks, the temperature, and the matching loss.

Shapes: B items on this rank, R ranks, N = R * B gathered items, K modalities besides the anchor, D width.

All of them read `pooled_<modality>` (B, D), the anchor's first. A model that can lack modalities also returns
`present`: modality name -> (B,) bool; a name that is not in it is always there. A missing modality must be
    declared there: a vector of zeros would make a volume zero,
the best match of every text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpt.losses.loss import Loss, LossConfig, option
from mmpt.ops.distributed import all_gather, rank, world_size
from mmpt.ops.gram.contrast import hard_negative_weights
from mmpt.ops.logit_scale import TEMPERATURE, inverse_temperature
from mmpt.ops.normalize import unit_rows_once
from mmpt.ops.precision import full_precision


class Tuples(NamedTuple):
    """An anchor and the modalities it is compared with."""

    anchor: Tensor  # (B, D), zero where missing
    modalities: list[Tensor]  # K x (B, D), zero where missing
    anchor_mask: Tensor | None  # (B,) bool; None = all there
    mask: Tensor | None  # (B, K) bool; None = all there

    @property
    def valid(self) -> Tensor | None:
        """(B,) items with an anchor and at least one modality."""
        if self.mask is None:
            return self.anchor_mask
        return self.mask.any(1) if self.anchor_mask is None else self.mask.any(1) & self.anchor_mask

    def gathered(self, with_grad: bool = True) -> Tuples:
        """The same of all ranks."""
        return Tuples(
            all_gather(self.anchor, with_grad),
            [all_gather(x, with_grad) for x in self.modalities],
            None if self.anchor_mask is None else all_gather(self.anchor_mask, with_grad=False),
            None if self.mask is None else all_gather(self.mask, with_grad=False),
        )

    def vectors(self) -> Tensor:
        """(B, 1 + K, D), zero where missing."""
        return torch.stack([self.anchor, *self.modalities], dim=1)

    @property
    def complete(self) -> Tensor | None:
        """(B,) items without a missing modality; None = all."""
        return None if self.mask is None and self.anchor_mask is None else self.vectors().any(2).all(1)


@dataclass(frozen=True, kw_only=True)
class TupleConfig(LossConfig):
    """Which modalities, temperature, gathering."""

    anchor: str = option(
        "text", "modality that the others are compared with; `all` takes each in turn and averages"
    )
    modalities: list | None = option(
        None, "the other modalities; null: video, and every further pooled_<modality> of the batch"
    )
    temperature: float = option(
        TEMPERATURE,
        "divides the scores, unless the model returns a learned logit_scale",
        symbol="tau",
        above=0,
    )
    min_temperature: float = option(0.01, "lower bound of a learned temperature", above=0)
    label_smoothing: float = option(0.1, "share of the target spread over all classes", least=0, most=1)
    normalize: bool = option(True, "bring embeddings to unit length (those that have it pass untouched)")
    gather: str = option(
        "full", "negatives: full = of all ranks, with gradient; local", one_of=("full", "local")
    )

    def __post_init__(self):
        super().__post_init__()
        names = [self.anchor, *(self.modalities or [])]
        if self.modalities == [] or len(set(names)) < len(names):
            raise ValueError(
                f"loss.modalities: expected names other than the anchor {self.anchor}, each once, got "
                f"{self.modalities}."
            )


T = TypeVar("T", bound=TupleConfig)


class TupleLoss(Loss[T]):
    """What the losses on tuples share: which modalities, temperature, gathering."""

    Config: type[T] = TupleConfig  # type: ignore[assignment]
    family = "Tuples of modalities"

    @property
    def reads(self) -> tuple[str, ...]:
        anchor = "text" if self.config.anchor == "all" else self.config.anchor
        others = self.config.modalities or (["video"] if anchor != "video" else [])
        return tuple(f"pooled_{name}" for name in (anchor, *others))

    def forward(
        self,
        *,
        pooled_video: Tensor | None = None,
        pooled_text: Tensor | None = None,
        present: Mapping[str, Tensor] | None = None,
        logit_scale: Tensor | None = None,
        **batch: Any,
    ) -> Tensor:
        pooled = {
            name.removeprefix("pooled_"): x for name, x in sorted(batch.items()) if name.startswith("pooled_")
        }
        pooled = {
            name: x
            for name, x in {"text": pooled_text, "video": pooled_video, **pooled}.items()
            if x is not None
        }
        names = self._names(pooled)
        anchors = names if self.config.anchor == "all" else names[:1]
        scale = self.scale(logit_scale, pooled[names[0]])
        sums: dict[str, Tensor] = {}
        for anchor in anchors:
            tuples = self._tuples(
                pooled, [anchor, *(name for name in names if name != anchor)], present or {}
            )
            for term, value in self.terms_of(tuples, scale, **batch).items():
                sums[term] = sums.get(term, 0.0) + value / len(anchors)
        self.record(**sums)
        return sum(sums.values())

    def scale(self, logit_scale: Tensor | None, like: Tensor) -> Tensor:
        """1 / tau, learned where the model returns it."""
        most = -math.log(self.config.min_temperature)
        return inverse_temperature(logit_scale, like, self.config.temperature, most=most)

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        """Weighted terms, whose sum is the loss of one choice of anchor."""
        raise NotImplementedError

    def everywhere(self, tuples: Tuples) -> Tuples:
        """Tuples of all ranks, for losses cheap enough to be computed whole on each of them."""
        return tuples if self.config.gather == "local" else tuples.gathered()

    def _names(self, pooled: Mapping[str, Tensor]) -> list[str]:
        """The anchor, then the other modalities in use."""
        anchor = "text" if self.config.anchor == "all" else self.config.anchor
        return [anchor, *(self.config.modalities or [name for name in pooled if name != anchor])]

    def _tuples(
        self, pooled: Mapping[str, Tensor], names: list[str], present: Mapping[str, Tensor]
    ) -> Tuples:
        if len({pooled[name].shape for name in names}) > 1:
            shapes = ", ".join(f"{name} {tuple(pooled[name].shape)}" for name in names)
            raise ValueError(
                f"{type(self).__name__}: modalities of different shape: {shapes}; expected (B, D) of the "
                "same items in each."
            )
        # What stands in the place of a missing modality may be anything, NaN included: it must not enter, not
        # even times zero.
        vectors = [
            pooled[name].where(present[name][:, None], 0.0) if name in present else pooled[name]
            for name in names
        ]
        vectors = [unit_rows_once(x) if self.config.normalize else full_precision(x) for x in vectors]
        everything = torch.ones(len(vectors[0]), dtype=torch.bool, device=vectors[0].device)
        masks = [present.get(name, everything) for name in names]
        has_mask = any(name in present for name in names[1:])
        return Tuples(
            vectors[0],
            vectors[1:],
            masks[0] if names[0] in present else None,
            torch.stack(masks[1:], 1) if has_mask else None,
        )


@dataclass(frozen=True, kw_only=True)
class MatchedTupleConfig(TupleConfig):
    """Keys of losses to which the matching loss can be added."""

    dam_weight: float = option(
        0.0, "weight of the matching loss (itm_ratio, published 0.1); needs a model with a matcher", least=0
    )
    dam_warmup: int = option(0, "updates over which dam_weight grows from 0", least=0)
    seed: int = option(0, "of the draws of hard negatives")


M = TypeVar("M", bound=MatchedTupleConfig)


class MatchedTupleLoss(TupleLoss[M]):
    """A loss on tuples to which the matching loss can be added: a binary classifier (the model's `matcher`)
    has to tell matched pairs from hard negatives, drawn by what the loss itself calls similar.

    `matcher` is a callable (text index, tuple index) -> logits (n, 2) over the gathered batch; see
    `mmpt.modules.PairMatcher`. Negatives are drawn from a generator seeded by `seed`, the update
    (`num_updates`) and the rank.
    """

    Config: type[M] = MatchedTupleConfig  # type: ignore[assignment]

    def __init__(self, config: Mapping[str, Any] | M | None = None, **keys: Any):
        super().__init__(config, **keys)
        self._generators: dict[torch.device, torch.Generator] = {}

    @property
    def reads(self) -> tuple[str, ...]:
        return (*super().reads, "matcher") if self.config.dam_weight else super().reads

    def check_model(self, model: nn.Module) -> None:
        if self.config.dam_weight and "matcher" not in getattr(model, "returns", ("matcher",)):
            raise ValueError(
                f"loss.dam_weight={self.config.dam_weight} ({type(self).__name__}) needs a model with a "
                "matching head: set "
                "model.matching_head: true (MMGram), or loss.dam_weight: 0."
            )
        super().check_model(model)

    def mining_logits(self, local: Tuples, everyone: Tuples, scale: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) logits of this rank's anchors over all tuples, and of its tuples over all anchors; -inf for
        what is missing."""
        raise NotImplementedError

    def matching(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        """The weighted term, or none where dam_weight is 0."""
        if not self.config.dam_weight:
            return {}
        return {"matching": self._weight(batch.get("num_updates")) * self._matching(tuples, scale, **batch)}

    def _weight(self, num_updates: int | None) -> float:
        warmup = self.config.dam_warmup
        if not warmup:
            return self.config.dam_weight
        if num_updates is None:
            raise ValueError(
                f"{type(self).__name__}: loss.dam_warmup needs num_updates in the batch. Set "
                "loss.dam_warmup: 0."
            )
        return self.config.dam_weight * min(1.0, num_updates / warmup)

    def _matching(
        self, local: Tuples, scale: Tensor, matcher: Callable[[Tensor, Tensor], Tensor], **batch: Any
    ) -> Tensor:
        """Binary cross entropy over matched pairs, (text, hard tuple) and (hard text, tuple)."""
        own = torch.arange(len(local.anchor), device=local.anchor.device) + rank() * len(local.anchor)
        # Mining only chooses: the loss itself already gives these similarities their gradient.
        with torch.no_grad():
            to_tuples, to_texts = self.mining_logits(local, local.gathered(with_grad=False), scale)
            tuples, found_tuple = self._draw(hard_negative_weights(to_tuples, own), batch.get("num_updates"))
            texts, found_text = self._draw(hard_negative_weights(to_texts, own), None)
        valid = torch.ones_like(found_text) if local.valid is None else local.valid
        weight = torch.cat([valid, valid & found_tuple, valid & found_text]).to(scale.dtype)
        logits = matcher(torch.cat([own, own, texts]), torch.cat([own, tuples, own]))
        target = torch.zeros_like(weight, dtype=torch.long)
        target[: len(own)] = 1
        return (
            F.cross_entropy(logits.to(scale.dtype), target, reduction="none") * weight
        ).sum() / weight.sum().clamp_min(1)

    def _draw(self, weights: Tensor, num_updates: int | None) -> tuple[Tensor, Tensor]:
        """One column for each row (B,), and whether the row had any to choose from."""
        generator = self._generators.setdefault(
            weights.device, torch.Generator(weights.device).manual_seed(self.config.seed + rank())
        )
        # From the update, not from where the generator stands: a resumed run then draws what an uninterrupted
        # one would.
        if num_updates is not None:
            generator.manual_seed((self.config.seed + num_updates) * world_size() + rank())
        possible = weights.sum(1) > 0
        return torch.multinomial(weights.where(possible[:, None], 1.0), 1, generator=generator)[
            :, 0
        ], possible
