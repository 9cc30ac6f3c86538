"""GRAM's loss: the volume that a text and the other modalities of its item span. What it shares with its
peers is in `tuples.py`.

Shapes: B items on this rank, R ranks, N = R * B gathered items, K modalities besides the anchor, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmpt.losses.loss import option
from mmpt.losses.multimodal.base import MatchedTupleConfig, MatchedTupleLoss, Tuples
from mmpt.ops.distributed import rank, world_size
from mmpt.ops.gram import SCORES, gram_volume
from mmpt.ops.gram.contrast import pair_cross_entropy, volume_cross_entropy
from mmpt.registry import LOSSES


@dataclass(frozen=True, kw_only=True)
class GRAMConfig(MatchedTupleConfig):
    """Keys of `GRAMLoss`."""

    gather: str = option(
        "full",
        "negatives: full = of all ranks, with gradient; detached = of all ranks, as constants (those of the "
        "cosine keep their gradient); local",
        one_of=("full", "detached", "local"),
    )
    score: str = option(
        "volume", "volume, distance (anchor to the span of the others) or logvolume", one_of=SCORES
    )
    direction: str = option(
        "both",
        "a2d (anchor picks its tuple), d2a (tuple picks its anchor) or both",
        one_of=("both", "a2d", "d2a"),
    )
    missing: str = option(
        "mask",
        "tuples with missing modalities: mask = compare what is there; drop = leave them out",
        one_of=("mask", "drop"),
    )
    dim_norm: bool | None = option(
        None, "compare V^(1/K) over the K modalities present; null: when the batch has a presence mask"
    )
    chunk: int | None = option(None, "anchors per block; null: automatic", least=1)
    cosine_weight: float = option(0.0, "weight of a symmetric InfoNCE on the mean cosine", least=0)


@LOSSES.register()
class GRAMLoss(MatchedTupleLoss[GRAMConfig]):
    """Makes the parallelotope spanned by a text and its other modalities small, and that of mismatched ones
    large.

    A tuple is the modalities of one item beside the anchor. The logits are -V / tau, with V the volume
    (`mmpt.ops.gram`). The loss is the mean of two cross entropies: of every anchor over all tuples, and of
    every tuple over all anchors. `dam_weight` times the matching loss is added: a binary classifier, which
    the model returns as `matcher`, has to tell matched pairs from hard negatives drawn by volume.

    Departs from the released code: gradients reach both sides of each pair. With `gather: detached`, as
    released, the first term trains only the anchor and the second only the others. Missing modalities are
    masked, not zero. `dam_weight` is 0 (published: 0.1), since not every model has a matching head.

    Volumes do not see signs, so that opposite vectors look aligned; `cosine_weight` cures it.
    """

    Config = GRAMConfig
    formula = (
        "[CE(-V / tau) + CE(-V' / tau)] / 2,  V_ij = sqrt det Gram(anchor_i, modalities_j)\n"
        "two modalities: V = sqrt(1 - cos^2), the sine of the angle"
    )
    paper = "Cicchetti et al., GRAM, ICLR 2025, [arXiv 2412.11959](https://arxiv.org/abs/2412.11959)"
    cost = "(K + 1) N^2 D operations, memory linear in N when chunked."

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
        return terms | self.matching(tuples, scale, **batch)

    @property
    def _score(self) -> dict[str, Any]:
        return {"score": self.config.score, "chunk": self.config.chunk}

    def _dim_norm(self, mask: Tensor | None) -> bool:
        return (
            (mask is not None and self.config.missing == "mask")
            if self.config.dim_norm is None
            else self.config.dim_norm
        )

    def _contrast(self, local: Tuples, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Both cross entropies of this rank's rows; their mean over ranks is that of the whole batch."""
        gather = self.config.gather
        smoothing, dim_norm = self.config.label_smoothing, self._dim_norm(local.mask)

        def contrast(anchor: Tensor, modalities: list[Tensor], **part: Any) -> tuple[Tensor, Tensor]:
            options = {"label_smoothing": smoothing, "dim_norm": dim_norm, **self._score, **part}
            return volume_cross_entropy(anchor, modalities, scale, **options)

        if gather == "local" or (gather == "full" and world_size() == 1):
            return contrast(local.anchor, local.modalities, mask=local.mask, anchor_mask=local.anchor_mask)
        everyone, n_own = local.gathered(gather == "full"), len(local.anchor)
        # Own anchors look at the tuples of all ranks, own tuples at the anchors of all: two strips, (B, N)
        # and (N, B), of a matrix that no rank needs whole. `first` is where the own pairs begin in them.
        first, pairs = rank() * n_own, n_own
        masks = {"mask": everyone.mask, "anchor_mask": local.anchor_mask}
        a2d, _ = contrast(local.anchor, everyone.modalities, first_column=first, pairs=pairs, **masks)
        masks = {"mask": local.mask, "anchor_mask": everyone.anchor_mask}
        _, d2a = contrast(everyone.anchor, local.modalities, first_row=first, pairs=pairs, **masks)
        if local.valid is None or everyone.valid is None:
            return a2d, d2a
        # Ranks are averaged with equal weights, items should be: a rank with fewer usable items weighs less.
        share = local.valid.sum() * world_size() / everyone.valid.sum().clamp_min(1)
        return share * a2d, share * d2a

    def _cosine(self, tuples: Tuples, scale: Tensor) -> Tensor:
        everything = torch.ones_like(tuples.anchor[:, :1]).expand(-1, len(tuples.modalities))
        weights = everything if tuples.mask is None else tuples.mask
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)  # (B, K)
        mean = sum(x * weights[:, k, None] for k, x in enumerate(tuples.modalities))  # (B, D)
        logits = scale * tuples.anchor @ mean.T
        return sum(pair_cross_entropy(logits, tuples.valid, self.config.label_smoothing)) / 2

    def mining_logits(self, local: Tuples, everyone: Tuples, scale: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) logits of this rank's anchors over all tuples, and of its tuples over all anchors; -inf for
        what is missing."""
        options = {"dim_norm": self._dim_norm(local.mask), "exact": False, **self._score}
        to_tuples = -scale * gram_volume(local.anchor, everyone.modalities, everyone.mask, **options)
        to_texts = -scale * gram_volume(everyone.anchor, local.modalities, local.mask, **options).T
        if everyone.anchor_mask is not None:
            to_texts = to_texts.masked_fill(~everyone.anchor_mask, -torch.inf)
        return to_tuples.nan_to_num(nan=-torch.inf, neginf=-torch.inf), to_texts
