"""Peers of GRAM on the same tuples of modalities: Triangle, PMRL, Symile, pairwise NCE and VAST. What they
share is in `base.py`.

Shapes: B items on this rank, N items of all ranks, K modalities besides the anchor, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.config.conditions import letters_of
from mmpt.losses.loss import Loss, option
from mmpt.losses.multimodal.base import MatchedTupleConfig, MatchedTupleLoss, TupleConfig, TupleLoss, Tuples
from mmpt.ops.gram import leading_components, multilinear_product, triangle_score
from mmpt.ops.gram.contrast import pair_cross_entropy
from mmpt.registry import LOSSES


@LOSSES.register()
class TriangleLoss(MatchedTupleLoss[MatchedTupleConfig]):
    """Makes the triangle between a text and its two other modalities small, and that of mismatched ones
    large.

    Logits -(|u|^2 |w|^2 - (u . w)^2) / (2 tau) with edges u, w from the anchor, both directions. It sees
    signs, as edges are differences.
    Needs exactly two modalities besides the anchor. With `dam_weight` also GRAM's matching loss.
    """

    formula = (
        "[CE(-T / 2 tau) + CE(-T' / 2 tau)] / 2,  T = |u|^2 |w|^2 - (u . w)^2, edges u, w from the anchor"
    )
    paper = "TRIANGLE, [arXiv 2509.24734](https://arxiv.org/abs/2509.24734)"
    cost = "3 N^2 D operations."
    note = "Needs three modalities; text and video alone span no triangle."

    def check_model(self, model: nn.Module) -> None:
        super().check_model(model)
        found = (
            self.config.modalities
            or [name for name in getattr(model, "returns", ()) if name.startswith("pooled_")][1:]
        )
        if len(found) != 2 and hasattr(model, "returns"):
            raise ValueError(_not_two(len(found)))

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        if len(tuples.modalities) != 2:
            raise ValueError(_not_two(len(tuples.modalities)))
        everyone = self.everywhere(tuples)
        logits = -scale * triangle_score(everyone.anchor, *everyone.modalities)
        a2d, d2a = pair_cross_entropy(logits, everyone.complete, self.config.label_smoothing)
        return {"a2d": a2d / 2, "d2a": d2a / 2} | self.matching(tuples, scale, **batch)

    def mining_logits(self, local: Tuples, everyone: Tuples, scale: Tensor) -> tuple[Tensor, Tensor]:
        to_tuples = -scale * triangle_score(local.anchor, *everyone.modalities)
        to_texts = -scale * triangle_score(everyone.anchor, *local.modalities).T
        return _only(everyone.complete, to_tuples), _only(everyone.complete, to_texts)


@dataclass(frozen=True, kw_only=True)
class PMRLConfig(MatchedTupleConfig):
    """Keys of `PMRLLoss`."""

    temperature: float = option(0.1, "of the contrast between leading vectors", symbol="tau_2", above=0)
    label_smoothing: float = option(0.0, "share of the target spread over all classes", least=0, most=1)
    rank_temperature: float = option(0.05, "of the softmax over singular values", symbol="tau_1", above=0)


@LOSSES.register()
class PMRLLoss(MatchedTupleLoss[PMRLConfig]):
    """Makes each matched tuple one-dimensional (its largest singular value dominates) and the directions of
    different tuples differ.

    Cross entropy of the singular values over `rank_temperature` against the largest, plus InfoNCE among the
    leading left singular vectors over `temperature`; with `dam_weight` (published: 0.1) the matching loss,
    whose hard negatives are tuples of similar direction.
    """

    Config = PMRLConfig
    formula = (
        "mean_i -log softmax(s_i / tau_1)_1 + CE(u u' / tau_2),\n"
        "s_i singular values of tuple i, u_i its leading left singular vector"
    )
    paper = "Liu et al., PMRL, [arXiv 2507.17343](https://arxiv.org/abs/2507.17343)"
    cost = "N singular value decompositions of (K + 1) x (K + 1) Gram matrices and N^2 D operations."

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        vectors = self.everywhere(tuples).vectors()
        values, leading = leading_components(vectors)
        count = vectors.any(2).sum(1)
        # Missing vectors add zero singular values, the smallest ones: leave them out of the softmax.
        real = (
            torch.arange(values.shape[1], device=values.device)
            >= values.shape[1] - count.clamp_min(1)[:, None]
        )
        log_share = (
            (values / self.config.rank_temperature).masked_fill(~real, -torch.inf).log_softmax(1)[:, -1]
        )
        valid = count > 1
        weight = valid.to(values.dtype) / valid.sum().clamp_min(1)
        separation, _ = pair_cross_entropy(
            scale * leading @ leading.T, count > 0, self.config.label_smoothing
        )
        return {"alignment": -(weight * log_share).sum(), "separation": separation} | self.matching(
            tuples, scale, **batch
        )

    def mining_logits(self, local: Tuples, everyone: Tuples, scale: Tensor) -> tuple[Tensor, Tensor]:
        (_, own), (_, others) = leading_components(local.vectors()), leading_components(everyone.vectors())
        logits = _only(everyone.valid, scale * own @ others.T)
        return logits, logits


@LOSSES.register()
class SymileLoss(TupleLoss[TupleConfig]):
    """Raises the multilinear product of matched tuples over those where one modality is exchanged.

    For each modality in turn: cross entropy of its row i over the products of the other modalities of item j;
    mean over modalities.
    Negatives are those of the batch.
    """

    formula = "mean over modalities m of CE( <x_m,i ; product of the other modalities of j> / tau )"
    paper = "Symile, [arXiv 2411.01053](https://arxiv.org/abs/2411.01053)"
    cost = "(K + 1) N^2 D operations."
    note = "With two modalities the product is the dot product, and the loss is PairwiseNCE's."

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        tuples = self.everywhere(tuples)
        vectors = [tuples.anchor, *tuples.modalities]
        total = 0.0
        for k, query in enumerate(vectors):
            logits = scale * multilinear_product(query, vectors[:k] + vectors[k + 1 :])
            total = total + pair_cross_entropy(logits, tuples.complete, self.config.label_smoothing)[0] / len(
                vectors
            )
        return {"symile": total}


@LOSSES.register()
class PairwiseNCE(TupleLoss[TupleConfig]):
    """Pulls the anchor to each modality of its own item and pushes it from those of other items, one modality
    at a time.

    Symmetric InfoNCE of cosine scores, mean over modalities (the contrast of VAST, ImageBind, LanguageBind).
    """

    formula = "mean over modalities m of [CE(a m' / tau) + CE(m a' / tau)] / 2, unit vectors"
    paper = (
        "the contrast of VAST ([arXiv 2305.18500](https://arxiv.org/abs/2305.18500)) and ImageBind "
        "([arXiv 2305.05665](https://arxiv.org/abs/2305.05665))"
    )
    cost = "K N^2 D operations."

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


@dataclass(frozen=True, kw_only=True)
class VASTConfig(MatchedTupleConfig):
    """Keys of `VASTLoss`."""

    conditions: list | None = option(
        None, "first letters of the modalities that captions are compared with, such as [tvas, tv, ta]"
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.conditions:
            raise ValueError("loss.conditions is empty; name at least one, such as tva.")
        if self.modalities is not None or self.anchor != "text":
            raise ValueError(
                "loss.conditions of VASTLoss say what is compared: remove loss.modalities, anchor."
            )
        for condition in self.conditions:
            letters_of(condition)


@LOSSES.register()
class VASTLoss(MatchedTupleLoss[VASTConfig]):
    """Pulls a caption to its item, seen through some modalities together, and pushes it from other items;
    each choice of modalities with captions of its own.

    A condition is a choice of modalities, named by their first letters: tv for text and video. The model
    returns one vector for its modalities together, `joint_<letters>`. The loss is the symmetric InfoNCE of
    the cosines of texts and these vectors, averaged over the conditions. With `dam_weight` (published: 0.1)
    each condition adds its matching loss, whose negatives are drawn by the same cosines. A condition has
    captions of its own where `dataset.condition_captions` names them, such as what is heard for ta.
    """

    Config = VASTConfig
    formula = "mean over conditions c of [CE(t_c m_c' / tau) + CE(m_c t_c' / tau)] / 2, unit vectors"
    paper = "Chen et al., VAST, NeurIPS 2023, [arXiv 2305.18500](https://arxiv.org/abs/2305.18500)"
    cost = "N^2 D operations for each condition."
    note = "Needs `model_cls: GRAM`, whose heads join va, vs and vas."

    @property
    def reads(self) -> tuple[str, ...]:
        joint = (f"joint_{letters_of(condition)}" for condition in self.config.conditions or ())
        return ("pooled_text", *joint, *(("matchers",) if self.config.dam_weight else ()))

    def check_model(self, model: nn.Module) -> None:
        Loss.check_model(self, model)

    def forward(
        self,
        *,
        pooled_text: Tensor | None = None,
        present: Mapping[str, Tensor] | None = None,
        logit_scale: Tensor | None = None,
        matchers: Callable[[str], Callable[[Tensor, Tensor], Tensor]] | None = None,
        **batch: Any,
    ) -> Tensor:
        scale = self.scale(logit_scale, pooled_text)
        sums: dict[str, Tensor] = {}
        conditions = self.config.conditions or ()
        for condition in conditions:
            letters = letters_of(condition)
            there = [mask for name, mask in (present or {}).items() if name[0] in letters]
            pair = {"text": batch.get(f"text_{letters}", pooled_text), "item": batch[f"joint_{letters}"]}
            whole = {"item": torch.stack(there, 1).all(1)} if there else {}
            tuples = self._tuples(pair, [*pair], whole)
            matcher = {"matcher": matchers(condition)} if matchers and self.config.dam_weight else {}
            for term, value in self.terms_of(tuples, scale, **batch | matcher).items():
                sums[f"{condition}_{term}"] = value / len(conditions)
        self.record(**sums)
        return sum(sums.values())

    def terms_of(self, tuples: Tuples, scale: Tensor, **batch: Any) -> dict[str, Tensor]:
        everyone = self.everywhere(tuples)
        logits = scale * everyone.anchor @ everyone.modalities[0].T
        both = pair_cross_entropy(logits, everyone.valid, self.config.label_smoothing)
        return {"nce": sum(both) / 2} | self.matching(tuples, scale, **batch)

    def mining_logits(self, local: Tuples, everyone: Tuples, scale: Tensor) -> tuple[Tensor, Tensor]:
        to_items = scale * local.anchor @ everyone.modalities[0].T
        to_texts = scale * local.modalities[0] @ everyone.anchor.T
        return _only(everyone.valid, to_items), _only(everyone.valid, to_texts)


def _not_two(found: int) -> str:
    return f"TriangleLoss compares an anchor with two modalities, got {found}. Set loss.modalities."


def _only(usable: Tensor | None, logits: Tensor) -> Tensor:
    """Logits (B, N) with -inf in the columns that are not usable."""
    return logits if usable is None else logits.masked_fill(~usable, -torch.inf)
