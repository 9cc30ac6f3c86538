"""Losses on tuples of modalities: GRAM and its peers Triangle, PMRL, Symile and pairwise NCE.

Shapes: B items on this rank, R ranks, N = R * B gathered items, K modalities besides the anchor, D width.

All of them read `pooled_text`, `pooled_video` and any further `pooled_<modality>` (B, D). A model that can lack modalities also returns
`present`: modality name -> (B,) bool; a name that is not in it is always there. A missing modality must be declared there: a vector of
zeros would make the volume zero, the best match of every text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmpt.losses.loss import Loss, LossConfig, option
from mmpt.ops.gather import all_gather, rank, world_size
from mmpt.ops.gram import gram_volume, leading_components, multilinear_product, triangle_score, unit_rows_once
from mmpt.ops.gram_contrast import hard_negative_weights, pair_cross_entropy, volume_cross_entropy
from mmpt.ops.precision import full_precision
from mmpt.registry import LOSSES


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


class TupleLoss(Loss):
    """What the losses on tuples share: which modalities, temperature, gathering."""

    @dataclass(frozen=True, kw_only=True)
    class Config(LossConfig):
        anchor: str = option("text", "modality that the others are compared with; `all` takes each in turn and averages")
        modalities: list | None = option(None, "the other modalities; null: video, and every further pooled_<modality> of the batch")
        temperature: float = option(0.07, "divides the scores, unless the model returns a learned logit_scale", symbol="tau")
        min_temperature: float = option(0.01, "lower bound of a learned temperature")
        label_smoothing: float = option(0.1, "share of the target spread over all classes")
        normalize: bool = option(True, "bring embeddings to unit length (those that have it pass untouched)")
        gather: str = option("full", "negatives: full = of all ranks, with gradient; detached = of all ranks, as constants; local")

    def __init__(self, config: Mapping[str, Any] | LossConfig | None = None):
        super().__init__(config)
        _expect(self, "gather", self.config.gather, ("full", "detached", "local"))
        if self.config.temperature <= 0 or self.config.min_temperature <= 0:
            raise ValueError(f"loss ({type(self).__name__}): temperature and min_temperature must be positive.")

    def forward(
        self,
        *,
        pooled_video: Tensor,
        pooled_text: Tensor,
        present: Mapping[str, Tensor] | None = None,
        logit_scale: Tensor | None = None,
        **batch: Any,
    ) -> Tensor:
        pooled = {name.removeprefix("pooled_"): x for name, x in batch.items() if name.startswith("pooled_") and x is not None}
        pooled = {"text": pooled_text, "video": pooled_video, **dict(sorted(pooled.items()))}
        names = self._names(pooled)
        anchors = names if self.config.anchor == "all" else names[:1]
        scale = self._scale(logit_scale, pooled_text)
        sums: dict[str, Tensor] = {}
        for anchor in anchors:
            tuples = self._tuples(pooled, [anchor, *(name for name in names if name != anchor)], present or {})
            for term, value in self.terms_of(tuples, scale, **batch).items():
                sums[term] = sums.get(term, 0.0) + value / len(anchors)
        self.record(**sums)
        return sum(sums.values())

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        """Weighted terms, whose sum is the loss of one choice of anchor."""
        raise NotImplementedError

    def everywhere(self, tuples: Tuples) -> Tuples:
        """Tuples of all ranks, for losses cheap enough to be computed whole on each of them."""
        return tuples if self.config.gather == "local" else tuples.gathered(self.config.gather == "full")

    def _names(self, pooled: Mapping[str, Tensor]) -> list[str]:
        """The anchor, then the other modalities in use."""
        anchor = "text" if self.config.anchor == "all" else self.config.anchor
        others = self.config.modalities or [name for name in pooled if name != anchor]
        absent = [name for name in (anchor, *others) if name not in pooled]
        if absent or anchor in others:
            cure = f"the model returns no pooled_{absent[0]}" if absent else f"{anchor} is the anchor already"
            raise ValueError(f"{type(self).__name__}: loss.modalities = {list(others)}: {cure} (there are: {', '.join(pooled)}).")
        return [anchor, *others]

    def _tuples(self, pooled: Mapping[str, Tensor], names: list[str], present: Mapping[str, Tensor]) -> Tuples:
        if len({pooled[name].shape for name in names}) > 1:
            shapes = ", ".join(f"{name} {tuple(pooled[name].shape)}" for name in names)
            raise ValueError(f"{type(self).__name__}: modalities of different shape: {shapes}; expected (B, D) of the same items in each.")
        # What stands in the place of a missing modality may be anything, NaN included: it must not enter, not even times zero.
        vectors = [pooled[name].where(present[name][:, None], 0.0) if name in present else pooled[name] for name in names]
        vectors = [unit_rows_once(x) if self.config.normalize else full_precision(x) for x in vectors]
        everything = torch.ones(len(vectors[0]), dtype=torch.bool, device=vectors[0].device)
        masks = [present.get(name, everything) for name in names]
        has_mask = any(name in present for name in names[1:])
        return Tuples(vectors[0], vectors[1:], masks[0] if names[0] in present else None, torch.stack(masks[1:], 1) if has_mask else None)

    def _scale(self, logit_scale: Tensor | None, like: Tensor) -> Tensor:
        if logit_scale is None:
            return full_precision(like).new_tensor(1 / self.config.temperature)
        logit_scale = full_precision(logit_scale)
        bounded = logit_scale.clamp_max(-math.log(self.config.min_temperature))
        return (logit_scale + (bounded - logit_scale).detach()).exp()  # at the bound gradients still flow, so that it can come back


@LOSSES.register()
class GRAMLoss(TupleLoss):
    """Makes the parallelotope spanned by a text and its other modalities small, and that of mismatched ones large.

    With V the volume (`mmpt.ops.gram`), logits -V / tau: cross entropy of every anchor over all tuples and of every tuple over all anchors,
    averaged; plus `dam_weight` times the matching loss: a binary classifier (the model's `matcher`) has to tell matched pairs from
    hard negatives drawn by volume. Source: GRAM (arXiv 2412.11959).

    Departures from the released code: gradients reach both sides of each pair (`gather: detached` restores the published ones, where the
    row term trains only the anchor and the column term only the others); missing modalities are masked, not zero; `dam_weight` is 0
    until the model has a matching head (published: 0.1). Volumes do not see signs: opposite vectors look aligned; `cosine_weight` cures it.

    The model may return `matcher`, a callable (text index, tuple index) -> logits (n, 2) over the gathered batch; see
    `mmpt.modules.PairMatcher`. Negatives are drawn from a generator seeded by `seed`, the update (`num_updates`) and the rank.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(TupleLoss.Config):
        score: str = option("volume", "volume, distance (anchor to the span of the others) or logvolume")
        direction: str = option("both", "a2d (anchor picks its tuple), d2a (tuple picks its anchor) or both")
        missing: str = option("mask", "tuples with missing modalities: mask = compare what is there; drop = leave them out")
        dim_norm: bool | None = option(None, "compare V^(1/K) over the K modalities present; null: when the batch has a presence mask")
        chunk: int | None = option(None, "anchors per block; null: automatic")
        cosine_weight: float = option(0.0, "weight of a symmetric InfoNCE on the mean cosine")
        dam_weight: float = option(0.0, "weight of the matching loss (itm_ratio, published 0.1); needs a model with a matcher")
        dam_warmup: int = option(0, "updates over which dam_weight grows from 0")
        seed: int = option(0, "of the draws of hard negatives")

    def __init__(self, config: Mapping[str, Any] | LossConfig | None = None):
        super().__init__(config)
        _expect(self, "score", self.config.score, ("volume", "distance", "logvolume"))
        _expect(self, "direction", self.config.direction, ("both", "a2d", "d2a"))
        _expect(self, "missing", self.config.missing, ("mask", "drop"))
        self._generators: dict[torch.device, torch.Generator] = {}

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        config = self.config
        if config.missing == "drop" and tuples.mask is not None:
            complete = tuples.mask.all(1)
            anchor_mask = complete if tuples.anchor_mask is None else complete & tuples.anchor_mask
            tuples = tuples._replace(mask=complete[:, None].expand_as(tuples.mask), anchor_mask=anchor_mask)
        a2d, d2a = self._contrast(tuples, scale)
        chosen = {"a2d": {"a2d": a2d}, "d2a": {"d2a": d2a}, "both": {"a2d": a2d / 2, "d2a": d2a / 2}}
        terms = dict(chosen[config.direction])
        if config.cosine_weight:
            terms["cosine"] = config.cosine_weight * self._cosine(self.everywhere(tuples), scale)
        if config.dam_weight:
            terms["matching"] = self._dam_weight(batch.get("num_updates")) * self._matching(tuples, scale, **batch)
        return terms

    @property
    def _score(self) -> dict[str, Any]:
        return {"score": self.config.score, "chunk": self.config.chunk}

    def _dim_norm(self, mask: Tensor | None) -> bool:
        return (mask is not None and self.config.missing == "mask") if self.config.dim_norm is None else self.config.dim_norm

    def _contrast(self, local: Tuples, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Both cross entropies of this rank's rows; their mean over ranks is that of the whole batch."""
        gather = self.config.gather
        options = {"label_smoothing": self.config.label_smoothing, "dim_norm": self._dim_norm(local.mask), **self._score}
        if gather == "local" or (gather == "full" and world_size() == 1):
            return volume_cross_entropy(local.anchor, local.modalities, scale, mask=local.mask, anchor_mask=local.anchor_mask, **options)
        everyone, n_own = local.gathered(gather == "full"), len(local.anchor)
        first, options["pairs"] = rank() * n_own, n_own
        masks = {"mask": everyone.mask, "anchor_mask": local.anchor_mask}
        a2d, _ = volume_cross_entropy(local.anchor, everyone.modalities, scale, first_column=first, **masks, **options)
        masks = {"mask": local.mask, "anchor_mask": everyone.anchor_mask}
        _, d2a = volume_cross_entropy(everyone.anchor, local.modalities, scale, first_row=first, **masks, **options)
        if local.valid is None:
            return a2d, d2a
        share = local.valid.sum() * world_size() / everyone.valid.sum().clamp_min(1)  # ranks with fewer items weigh less
        return share * a2d, share * d2a

    def _cosine(self, tuples: Tuples, scale: Tensor) -> Tensor:
        weights = torch.ones_like(tuples.anchor[:, :1]).expand(-1, len(tuples.modalities)) if tuples.mask is None else tuples.mask
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
        mean = sum(x * weights[:, k, None] for k, x in enumerate(tuples.modalities))
        return sum(pair_cross_entropy(scale * tuples.anchor @ mean.T, tuples.valid, self.config.label_smoothing)) / 2

    def _dam_weight(self, num_updates: int | None) -> float:
        warmup = self.config.dam_warmup
        if not warmup:
            return self.config.dam_weight
        if num_updates is None:
            raise ValueError("GRAMLoss: loss.dam_warmup needs num_updates in the batch, which is not there. Set loss.dam_warmup: 0.")
        return self.config.dam_weight * min(1.0, num_updates / warmup)

    def _matching(self, local: Tuples, scale: Tensor, matcher: Callable[[Tensor, Tensor], Tensor] | None = None, **batch: Any) -> Tensor:
        """Binary cross entropy over matched pairs, (text, hard tuple) and (hard text, tuple)."""
        if matcher is None:
            raise ValueError("GRAMLoss: loss.dam_weight needs a model that returns `matcher`. Use one with a matching head or set 0.")
        own = torch.arange(len(local.anchor), device=local.anchor.device) + rank() * len(local.anchor)
        with torch.no_grad():
            to_tuples, to_texts = self._mining_logits(local, local.gathered(with_grad=False), scale)
            tuples, found_tuple = self._draw(hard_negative_weights(to_tuples, own), batch.get("num_updates"))
            texts, found_text = self._draw(hard_negative_weights(to_texts, own), None)
        valid = torch.ones_like(found_text) if local.valid is None else local.valid
        weight = torch.cat([valid, valid & found_tuple, valid & found_text]).to(scale.dtype)
        logits = matcher(torch.cat([own, own, texts]), torch.cat([own, tuples, own]))
        target = torch.zeros_like(weight, dtype=torch.long)
        target[: len(own)] = 1
        return (F.cross_entropy(logits.to(scale.dtype), target, reduction="none") * weight).sum() / weight.sum().clamp_min(1)

    def _mining_logits(self, local: Tuples, everyone: Tuples, scale: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) logits of this rank's anchors over all tuples, and of its tuples over all anchors; -inf for what is missing."""
        options = {"dim_norm": self._dim_norm(local.mask), **self._score}
        to_tuples = -scale * gram_volume(local.anchor, everyone.modalities, everyone.mask, **options)
        to_texts = -scale * gram_volume(everyone.anchor, local.modalities, local.mask, **options).T
        if everyone.anchor_mask is not None:
            to_texts = to_texts.masked_fill(~everyone.anchor_mask, -torch.inf)
        return to_tuples.nan_to_num(nan=-torch.inf, neginf=-torch.inf), to_texts

    def _draw(self, weights: Tensor, num_updates: int | None) -> tuple[Tensor, Tensor]:
        """One column for each row (B,), and whether the row had any to choose from."""
        generator = self._generators.setdefault(weights.device, torch.Generator(weights.device).manual_seed(self.config.seed + rank()))
        if num_updates is not None:
            generator.manual_seed((self.config.seed + num_updates) * world_size() + rank())
        possible = weights.sum(1) > 0
        return torch.multinomial(weights.where(possible[:, None], 1.0), 1, generator=generator)[:, 0], possible


@LOSSES.register()
class TriangleLoss(TupleLoss):
    """Makes the triangle between a text and its two other modalities small, and that of mismatched ones large.

    Logits -(|u|^2 |w|^2 - (u . w)^2) / (2 tau) with edges u, w from the anchor, both directions. It sees signs, as edges are differences.
    Source: TRIANGLE (arXiv 2509.24734). Needs exactly two modalities besides the anchor.
    """

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        if len(tuples.modalities) != 2:
            raise ValueError(f"TriangleLoss compares an anchor with two modalities, got {len(tuples.modalities)}. Set loss.modalities.")
        tuples = self.everywhere(tuples)
        logits = -scale * triangle_score(tuples.anchor, *tuples.modalities)
        a2d, d2a = pair_cross_entropy(logits, tuples.complete, self.config.label_smoothing)
        return {"a2d": a2d / 2, "d2a": d2a / 2}


@LOSSES.register()
class PMRLLoss(TupleLoss):
    """Makes each matched tuple one-dimensional (its largest singular value dominates) and the directions of different tuples differ.

    Cross entropy of the singular values over `rank_temperature` against the largest, plus InfoNCE among the leading left singular vectors
    over `temperature`. Source: principled multimodal representation learning, PMRL. The published matching term is left out.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(TupleLoss.Config):
        temperature: float = option(0.1, "of the contrast between leading vectors", symbol="tau_2")
        label_smoothing: float = option(0.0, "share of the target spread over all classes")
        rank_temperature: float = option(0.05, "of the softmax over singular values", symbol="tau_1")

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        tuples = self.everywhere(tuples)
        vectors = tuples.vectors()
        values, leading = leading_components(vectors)
        count = vectors.any(2).sum(1)
        # Missing vectors add zero singular values, the smallest ones: leave them out of the softmax.
        real = torch.arange(values.shape[1], device=values.device) >= values.shape[1] - count.clamp_min(1)[:, None]
        log_share = (values / self.config.rank_temperature).masked_fill(~real, -torch.inf).log_softmax(1)[:, -1]
        valid = count > 1
        weight = valid.to(values.dtype) / valid.sum().clamp_min(1)
        separation, _ = pair_cross_entropy(scale * leading @ leading.T, count > 0, self.config.label_smoothing)
        return {"alignment": -(weight * log_share).sum(), "separation": separation}


@LOSSES.register()
class SymileLoss(TupleLoss):
    """Raises the multilinear product of matched tuples over those where one modality is exchanged.

    For each modality in turn: cross entropy of its row i over the products of the other modalities of item j; mean over modalities.
    Source: Symile (arXiv 2411.01053), with in-batch negatives.
    """

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        tuples = self.everywhere(tuples)
        vectors = [tuples.anchor, *tuples.modalities]
        total = 0.0
        for k, query in enumerate(vectors):
            logits = scale * multilinear_product(query, vectors[:k] + vectors[k + 1 :])
            total = total + pair_cross_entropy(logits, tuples.complete, self.config.label_smoothing)[0] / len(vectors)
        return {"symile": total}


@LOSSES.register()
class PairwiseNCE(TupleLoss):
    """Pulls the anchor to each modality of its own item and pushes it from those of other items, one modality at a time.

    Symmetric InfoNCE of cosine scores, mean over modalities (the contrast of VAST, ImageBind, LanguageBind).
    """

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        tuples = self.everywhere(tuples)
        total = 0.0
        for k, modality in enumerate(tuples.modalities):
            valid = tuples.anchor_mask if tuples.mask is None else tuples.mask[:, k]
            if tuples.mask is not None and tuples.anchor_mask is not None:
                valid = valid & tuples.anchor_mask
            both = pair_cross_entropy(scale * tuples.anchor @ modality.T, valid, self.config.label_smoothing)
            total = total + sum(both) / (2 * len(tuples.modalities))
        return {"pairwise": total}


def _expect(loss: Loss, key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"loss.{key} ({type(loss).__name__}): expected one of {', '.join(allowed)}, got {value!r}.")
