"""Contrastive losses over clips and captions: NCE, one-directional, VideoCLIP's and Norton's.

Shapes: N clips in the batch, D width. Norton's video-paragraph part is in `sequence.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmpt.losses.loss import Loss, LossConfig, NegativesConfig, option
from mmpt.losses.sequence import NORTON, SequenceConfig, SequenceContrastLoss, SimilarityConfig
from mmpt.ops.contrastive import (
    Excluded,
    dot_scores,
    exclude_negatives,
    info_nce,
    nce_of_rows,
    soft_cross_entropy,
    symmetric_info_nce,
)
from mmpt.ops.logit_scale import inverse_temperature
from mmpt.ops.precision import full_precision
from mmpt.ops.sinkhorn import log_sinkhorn
from mmpt.registry import LOSSES

MOST_STORED = 2**26  # scores that are stored: 256 MB
VIDEOCLIP = "Xu et al., VideoCLIP, EMNLP 2021, [arXiv 2109.14084](https://arxiv.org/abs/2109.14084)"


@LOSSES.register()
class NCE(Loss[LossConfig]):
    """Pulls each aligned score above the scores of all misaligned pairs of the batch.

    Reads `align_scores` (2b, 2): column 0 scores "aligned", the first b rows are aligned pairs, the rest are
    not.
    """

    family = "Clips and captions"
    formula = "mean_i -log( exp a_i / (exp a_i + sum_j exp n_j) ),  a aligned, n misaligned scores"
    paper = VIDEOCLIP
    cost = "quadratic in the number of pairs."
    note = "Model: `model_cls: MMFusionAlign`, which reads clip and caption together."
    from_model = ("align_scores",)

    def forward(self, *, align_scores: Tensor, **batch: Any) -> Tensor:
        positives, negatives = align_scores[:, 0].chunk(2)
        scores = full_precision(torch.cat([positives[:, None], negatives.expand(len(positives), -1)], dim=1))
        loss = (scores.logsumexp(1) - scores[:, 0]).mean()
        self.record(nce=loss)
        return loss


@dataclass(frozen=True, kw_only=True)
class ContrastConfig(NegativesConfig):
    """Negatives and temperature of scores that are dot products."""

    temperature: float | None = option(
        None,
        "divides the dot products, unless the model returns a learned logit_scale; null: neither (published)",
        symbol="tau",
        above=0,
    )

    @property
    def reads_logit_scale(self) -> bool | None:
        """The published forms have no temperature, so a learned one needs to be asked for."""
        return self.temperature is not None


P = TypeVar("P", bound=ContrastConfig)


class PooledContrast(Loss[P]):
    """A loss on dot products of pooled vectors, of all ranks or of this one."""

    Config: type[P] = ContrastConfig  # type: ignore[assignment]
    family = "Clips and captions"
    from_model: tuple[str, ...] | None = ("pooled_video", "pooled_text")

    def scores(self, queries: Tensor, candidates: Tensor, logit_scale: Tensor | None = None) -> Tensor:
        """(N, D), (M, D) of this rank -> (N, M) of those that `global_negatives` says."""
        return dot_scores(self._scaled(self.config.join(queries), logit_scale), self.config.join(candidates))

    def row_losses(
        self,
        queries: Tensor,
        candidates: Tensor,
        logit_scale: Tensor | None,
        excluded: Excluded | None = None,
    ) -> Tensor:
        """Cross entropy of queries against candidates, of the joined batch: this rank's rows of the scores
        alone are computed, and never stored."""
        config = self.config
        scaled, first = self._scaled(queries, logit_scale), config.first_of(queries)
        return config.over_ranks(nce_of_rows(scaled, config.join(candidates), first, excluded))

    def one_direction(self, queries: Tensor, candidates: Tensor, logit_scale: Tensor | None) -> Tensor:
        """Cross entropy of each query against its own candidate."""
        if self.stores_scores(queries, candidates):
            return info_nce(self.scores(queries, candidates, logit_scale))
        return self.row_losses(queries, candidates, logit_scale)

    def stores_scores(self, queries: Tensor, candidates: Tensor, copies: int = 1) -> bool:
        """Are so many copies of the matrix of scores small, and all this rank's own? One product then serves
        both directions."""
        number = copies * queries.shape[0] * candidates.shape[0]
        return not self.config.spans_ranks and number <= MOST_STORED

    def _scaled(self, queries: Tensor, logit_scale: Tensor | None) -> Tensor:
        if self.config.temperature is None:
            return queries
        queries = full_precision(queries)
        return queries * inverse_temperature(logit_scale, queries, self.config.temperature)


@LOSSES.register()
class T2VContraLoss(PooledContrast[ContrastConfig]):
    """Pulls each caption to its clip, pushes it from the other clips of the batch: cross entropy of raw dot
    products, rows = captions."""

    formula = "CE(t v')"
    paper = VIDEOCLIP
    cost = "N^2 D operations, one N x N matrix."

    def forward(
        self, *, pooled_video: Tensor, pooled_text: Tensor, logit_scale: Tensor | None = None, **batch: Any
    ) -> Tensor:
        loss = self.one_direction(pooled_text, pooled_video, logit_scale)
        self.record(text_to_video=loss)
        return loss


@LOSSES.register()
class V2TContraLoss(PooledContrast[ContrastConfig]):
    """Pulls each clip to its caption, pushes it from the other captions of the batch: cross entropy of raw
    dot products, rows = clips."""

    formula = "CE(v t')"
    paper = VIDEOCLIP
    cost = "N^2 D operations, one N x N matrix."

    def forward(
        self, *, pooled_video: Tensor, pooled_text: Tensor, logit_scale: Tensor | None = None, **batch: Any
    ) -> Tensor:
        loss = self.one_direction(pooled_video, pooled_text, logit_scale)
        self.record(video_to_text=loss)
        return loss


@dataclass(frozen=True, kw_only=True)
class MMContraConfig(ContrastConfig, SimilarityConfig):
    """Without `sinkhorn_iterations` and `sequence_contrast` this is VideoCLIP's loss, with them Norton's."""

    n_iters: int | None = option(
        None,
        "row-then-column steps of the transport that softens targets; null: one-hot targets",
        yaml="sinkhorn_iterations",
        symbol="I",
        least=1,
    )
    beta: float = option(
        0.3, "share of the softened targets; 0: one-hot targets", symbol="beta", least=0, most=1
    )
    sequence_contrast: SequenceConfig | None = option(
        None, "section of the video-paragraph loss; null: without it"
    )
    mask_duplicate_clips: bool = option(
        False, "clips drawn twice (same span of video or of captions) are not each other's negatives"
    )

    @property
    def reads_logit_scale(self) -> bool | None:
        """The video-paragraph part always does."""
        section = self.sequence_contrast
        return (section is not None and section.weight is not None) or super().reads_logit_scale

    def check_data(self, dataset: Any) -> None:
        if self.sequence_contrast is not None:
            self.sequence_contrast.check_data(dataset)


@LOSSES.register()
class MMContraLoss(PooledContrast[MMContraConfig]):
    """Pulls each clip and its caption together, pushes them from the other captions and clips of the batch.

    VideoCLIP: CE(p_v p_t^T) + CE(p_t p_v^T), summed, raw dot products; `temperature` divides them.

    Norton: the targets are beta * Q + (1 - beta) * identity, where Q is the transport plan of the same
    scores, without gradient. So captions that also fit another clip are not pushed away from it.
    `sequence_contrast_weight` times `SequenceContrastLoss` is added, which takes 50 steps of transport where
    `sinkhorn_iterations` is null.

    Negatives are the clips of this rank, so that the loss depends on the number of ranks. With
    `global_negatives` they are the clips of all ranks. With `compat: true` the identity is rounded to float32
    in the targets, and the sequence loss is that of the released code.
    """

    Config = MMContraConfig
    from_model = None  # token states too, where the video-paragraph part reads them
    formula = (
        "VideoCLIP:  CE(v t') + CE(t v')\n"
        "Norton:     CE(v t'; Y) + CE(t v'; Y') + weight * SequenceContrastLoss,\n"
        "            Y = beta Q + (1 - beta) I,\n"
        "            Q = transport plan of v t' with rows and columns of mass 1"
    )
    paper = f"{VIDEOCLIP}; {NORTON}, eq. 5-6"
    cost = (
        "N^2 D operations; with `sinkhorn_iterations` I, 2 I passes over an N x N matrix; with "
        "`sequence_contrast` that loss's cost."
    )

    def __init__(self, config: Mapping[str, Any] | MMContraConfig | None = None, **keys: Any):
        super().__init__(config, **keys)
        section = self.config.sequence_contrast
        self.sequence: SequenceContrastLoss | None = None
        self.sequence_weight = 0.0
        if section is not None and section.weight is not None:
            keys = asdict(section) | {f.name: getattr(self.config, f.name) for f in fields(SimilarityConfig)}
            if self.config.n_iters is not None:
                keys["n_iters"] = self.config.n_iters
            self.sequence = SequenceContrastLoss(**keys)
            self.sequence_weight = section.weight

    @property
    def reads(self) -> tuple[str, ...]:
        return super().reads if self.sequence is None else self.sequence.reads

    def check(self, clips_per_video: int | None = None, videos_per_batch: int | None = None) -> None:
        if self.sequence is not None:
            self.sequence.check(clips_per_video, videos_per_batch)

    def forward(self, *, pooled_video: Tensor, pooled_text: Tensor, **batch: Any) -> Tensor:
        # the sequence part first: its large gradients are then made last, when the rest of the graph is
        # already freed
        terms = {}
        if self.sequence is not None:
            terms["sequence"] = self.sequence(pooled_video=pooled_video, pooled_text=pooled_text, **batch)
        to_text, to_video = self.clip_caption_losses(pooled_video, pooled_text, **batch)
        self.record(video_to_text=to_text, text_to_video=to_video, **terms)
        both = to_text + to_video
        return both + self.sequence_weight * terms["sequence"] if terms else both

    def clip_caption_losses(
        self, pooled_video: Tensor, pooled_text: Tensor, **batch: Any
    ) -> tuple[Tensor, Tensor]:
        """Cross entropies of clips over captions and of captions over clips."""
        scale, one_hot = batch.get("logit_scale"), self.config.n_iters is None or self.config.beta == 0
        duplicates = self._duplicates(batch) if self.config.mask_duplicate_clips else None
        if one_hot and not self.stores_scores(pooled_video, pooled_text):
            sides = (pooled_video, pooled_text), (pooled_text, pooled_video)
            first, second = (self.row_losses(*side, scale, duplicates) for side in sides)
            return first, second
        # The transport needs all scores, so that every rank computes those of the joined batch.
        scores = self.scores(pooled_video, pooled_text, scale)
        whole = slice(0, len(scores))
        excluded = None if duplicates is None else duplicates(whole, whole)
        if one_hot:
            return symmetric_info_nce(scores, excluded)
        # Before the transport: mass that flows to a duplicate would come back as a soft target.
        scores = exclude_negatives(scores, excluded)
        targets = self.targets(soft_targets(scores, self.config.n_iters))
        return soft_cross_entropy(scores, targets), soft_cross_entropy(scores.T, targets.T)

    def targets(self, soft: Tensor) -> Tensor:
        """beta * Q + (1 - beta) * identity."""
        # 0.7 in float32 is not 0.7 in float64: the released code mixes the two, and only `compat` repeats it.
        beta, dtype = self.config.beta, torch.float32 if self.config.compat else soft.dtype
        return (beta * soft).add_((1 - beta) * torch.eye(len(soft), dtype=dtype, device=soft.device))

    def _duplicates(self, batch: dict) -> Excluded:
        """True where clips or captions of the same video cover the same span."""
        names = ("video_start", "video_end", "text_start", "text_end")
        missing = [name for name in (*names, "clips_per_video") if batch.get(name) is None]
        if missing:
            raise ValueError(
                f"loss.mask_duplicate_clips needs {', '.join(missing)} in the batch; use an aligner that "
                "draws timed clips."
            )
        spans = [self.config.join(batch[name].flatten()) for name in names]
        video = torch.arange(len(spans[0]), device=spans[0].device) // batch["clips_per_video"]

        def tile(rows: slice, columns: slice) -> Tensor:
            same_video, *same = (x[rows, None] == x[columns] for x in (video, *spans))
            return same_video & ((same[0] & same[1]) | (same[2] & same[3]))

        return tile


@torch.no_grad()
def soft_targets(scores: Tensor, n_iters: int) -> Tensor:
    """Q (N, N), rows clips, columns captions: balanced transport plan of the scores scaled so that rows and
    columns sum to one.

    Columns do so exactly, rows as far as `n_iters` steps converge.
    """
    n = len(scores)
    # The released code gives rows and columns half of the mass, which only shifts the potentials; the factor
    # 2 n then makes each caption a distribution over clips, as a one-hot target is.
    log_mass = scores.new_full((n,), -math.log(2 * n))
    return log_sinkhorn(scores, log_mass, log_mass, n_iters).add_(math.log(2 * n)).exp_()
