"""Norton's video-paragraph loss: sequences of captions against sequences of clips, aligned by optimal
transport.

Shapes: N clips in the batch (rows of C are captions, columns clips), L clips per sequence, S = N / L
    sequences, D width.
From YAML to the Sinkhorn iteration: SequenceContrastLoss.forward -> transport_log_plan ->
mmpt.ops.sinkhorn.log_sinkhorn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.losses.loss import Loss, LossConfig, NegativesConfig, option
from mmpt.ops.contrastive import cosine_scores, symmetric_info_nce
from mmpt.ops.late_interaction import token_similarity
from mmpt.ops.logit_scale import TEMPERATURE, inverse_temperature
from mmpt.ops.precision import PRECISIONS, full_precision
from mmpt.ops.sinkhorn import log_sinkhorn
from mmpt.registry import LOSSES

LOGIT_SCALES = (0.0, 4.6052)  # bounds of the released code; the upper is a factor of 100
NORTON = "Lin et al., Norton, ICLR 2024, [arXiv 2401.16702](https://arxiv.org/abs/2401.16702)"
POOLED = ("pooled_video", "pooled_text")
TOKENS = ("video_outputs", "text_outputs", "video_mask_outputs", "text_mask_outputs")


@dataclass(frozen=True, kw_only=True)
class SequenceConfig(LossConfig):
    """The `sequence_contrast:` section."""

    weight: float | None = option(
        0.1, "weight of the video-paragraph loss; null: without it", yaml="sequence_contrast_weight", least=0
    )
    sequence_length: int = option(8, "clips per sequence", yaml="threshold", symbol="L", least=1)
    bucket_quantile: float | None = option(
        0.3,
        "share of aligned pairs that score below the alignable prompt bucket; null: no bucket",
        yaml="prompt_ratio",
        symbol="p",
        least=0,
        most=1,
    )
    epsilon: float = option(
        0.1,
        "entropic regulariser of the transport between two sequences",
        yaml="scale",
        symbol="epsilon",
        above=0,
    )
    mask_same_video: bool = option(False, "sequences of the same video are not each other's negatives")

    def check_data(self, dataset: Any) -> None:
        name = "clip_per_video" if dataset.clip_per_video else "subsampling"
        if self.weight:
            self.check_clips(name, getattr(dataset, name))

    def check_clips(self, name: str, clips: int | None) -> None:
        """Do the clips of a video, a key of `dataset`, fill whole sequences?

        Raises:
            ValueError: they do not.
        """
        length = self.sequence_length
        if clips is not None and clips % length:
            raise ValueError(
                f"dataset.{name}={clips} is not a multiple of loss.sequence_contrast.threshold={length}; "
                f"sequences need whole groups. Use {-(-clips // length) * length}."
            )


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig(NegativesConfig):
    """Keys of the clip-caption similarity, which in YAML stand beside the `sequence_contrast:` section."""

    alpha: float | None = option(
        1.0,
        "smoothing of the maximum over tokens; 0 or null: hard maximum",
        yaml="alpha_lse",
        symbol="alpha",
        least=0,
    )
    fusion_weight: float | None = option(
        0.5,
        "weight of the cosine of pooled vectors beside token similarity; null: pooled vectors alone",
        symbol="w",
        least=0,
    )
    precision: str = option(
        "auto",
        "of the factors of the token products, whose sums are float32: float32, tf32 or bf16; auto: half "
        "precision for outputs of half precision and under autocast, where the hardware is then faster",
        one_of=PRECISIONS,
    )
    compat: bool = option(False, "historic behaviour where it is known to be wrong")


@dataclass(frozen=True, kw_only=True)
class SequenceContrastConfig(SequenceConfig, SimilarityConfig):
    """The section with what it shares with the clip-caption loss, for use as a loss of its own."""

    n_iters: int = option(
        50, "row-then-column steps of the transport", yaml="sinkhorn_iterations", symbol="I", least=1
    )


@LOSSES.register()
class SequenceContrastLoss(Loss[SequenceContrastConfig]):
    """Pulls the captions of a sequence of clips to those clips as a whole, pushes them from the other
    sequences of the batch.

    The similarity of a caption and a clip is the weighted mean of the cosine of their pooled vectors and of
    their token similarity, each scaled to [0, 1] over the batch. For every pair of sequences a transport plan
    says which caption belongs to which clip; a bucket takes what cannot be aligned. The sum of similarities
    times plan is the logit of a symmetric cross entropy. The plan itself carries no gradient.

    The temperature is exp(`logit_scale`) of the batch where the model learns one, else 1/0.07.

    Departs from the released code in three points, which `compat: true` brings back. Padded query tokens do
    not enter the token similarity. The log-sum-exp runs over valid tokens; the release sums over all of them
    and subtracts the padded ones, which loses digits. A batch whose similarities are all equal gives 0
    instead of 0/0.

    """

    Config = SequenceContrastConfig
    family = "Sequences"
    formula = (
        "C_ij = (w cos(t_i, v_j) + token similarity_ij) / (w + 1), each scaled to [0, 1]\n"
        "score(paragraph p, video q) = <Q_pq, C_pq> / tau,  Q_pq = transport plan of block C_pq with a "
        "bucket\n"
        "loss = CE(score) + CE(score')"
    )
    paper = NORTON
    cost = (
        "N^2 (words x seconds) D operations for token similarity, tiled, memory linear in N; 2 I passes "
        "over (N / L)^2 problems of L x L."
    )
    note = "It does not train the dot products by which clips are retrieved: keep a clip loss beside it."

    @property
    def reads(self) -> tuple[str, ...]:
        return POOLED if self.config.fusion_weight is None else POOLED + TOKENS

    @property
    def reads_padding(self) -> bool:  # type: ignore[override]
        return self.config.compat and self.config.fusion_weight is not None

    def check(self, clips_per_video: int | None = None, videos_per_batch: int | None = None) -> None:
        self.config.check_clips("clip_per_video", clips_per_video)

    def forward(
        self,
        *,
        pooled_video: Tensor,
        pooled_text: Tensor,
        video_outputs: Tensor | None = None,
        text_outputs: Tensor | None = None,
        video_mask_outputs: Tensor | None = None,
        text_mask_outputs: Tensor | None = None,
        logit_scale: Tensor | None = None,
        clips_per_video: int | None = None,
        **batch: Any,
    ) -> Tensor:
        similarity = self.clip_caption_similarity(
            pooled_video, pooled_text, video_outputs, text_outputs, video_mask_outputs, text_mask_outputs
        )
        logits = self.paragraph_video_logits(similarity, logit_scale)
        excluded = (
            self._same_video(len(logits), clips_per_video, logits.device)
            if self.config.mask_same_video
            else None
        )
        to_video, to_paragraph = symmetric_info_nce(logits, excluded)
        self.record(paragraph_to_video=to_video, video_to_paragraph=to_paragraph)
        return to_video + to_paragraph

    def clip_caption_similarity(
        self,
        pooled_video: Tensor,
        pooled_text: Tensor,
        video_outputs: Tensor | None = None,
        text_outputs: Tensor | None = None,
        video_mask_outputs: Tensor | None = None,
        text_mask_outputs: Tensor | None = None,
    ) -> Tensor:
        """C (N, N), rows captions, columns clips: (w * pooled cosine + token similarity) / (w + 1), each in
        [0, 1]."""
        config, join = self.config, self.config.join
        # Float64: cosines of close items differ in the digits that float32 rounds, and are scaled to [0, 1].
        cosines = cosine_scores(join(pooled_text).double(), join(pooled_video).double())
        dtype = full_precision(pooled_text).dtype
        pooled = scale_to_unit_interval(cosines, torch.finfo(dtype).eps).to(dtype)
        if config.fusion_weight is None:
            return pooled
        # Each rank computes the rows of its own captions against the clips of all ranks; the rows are joined
        # before they are scaled, as minimum and maximum are those of the whole batch.
        to_video, to_text = token_similarity(
            text_outputs,
            join(video_outputs),
            text_mask_outputs,
            join(video_mask_outputs),
            alpha=config.alpha,
            compat=config.compat,
            precision=config.precision,
        )
        # The three parts have different ranges (a soft maximum may exceed 1): each is scaled before fusion.
        to_video, to_text = scale_to_unit_interval(join(to_video)), scale_to_unit_interval(join(to_text))
        tokens = (to_video + to_text).div_(2)
        return tokens.add_(pooled, alpha=config.fusion_weight).div_(config.fusion_weight + 1)

    def paragraph_video_logits(self, similarity: Tensor, logit_scale: Tensor | None = None) -> Tensor:
        """(S, S): exp(logit_scale) * sum of similarity under the transport plan of each pair; rows
        paragraphs, columns videos."""
        config = self.config
        blocks = sequence_blocks(similarity, config.sequence_length)
        bucket = (
            None
            if config.bucket_quantile is None
            else bucket_score(similarity.detach(), config.bucket_quantile)
        )
        # The plan only says who belongs to whom: a gradient through it would train the features to be easy to
        # transport instead of close.
        log_plan = transport_log_plan(blocks.detach(), bucket, config.epsilon, config.n_iters)
        n_sequences = len(similarity) // config.sequence_length
        aligned = (unit_mass_per_clip(log_plan) * blocks).sum((1, 2)).view(n_sequences, n_sequences)
        return aligned * inverse_temperature(logit_scale, similarity, TEMPERATURE, *LOGIT_SCALES)

    def _same_video(self, n_sequences: int, clips_per_video: int | None, device: torch.device) -> Tensor:
        if clips_per_video is None:
            raise ValueError(
                "loss.sequence_contrast.mask_same_video needs clips_per_video in the batch "
                "(dataset.clip_per_video)."
            )
        video = torch.arange(n_sequences, device=device) * self.config.sequence_length // clips_per_video
        return video[:, None] == video


def scale_to_unit_interval(scores: Tensor, rounding: float | None = None) -> Tensor:
    """Scores minus their minimum, over their range; zero where all are equal. Gradients flow through minimum
    and maximum.

    Args:
        scores: of any shape.
        rounding: of what the scores were computed from; None: that of the scores.
    """
    return _UnitInterval.apply(scores, torch.finfo(scores.dtype).eps if rounding is None else rounding)


class _UnitInterval(torch.autograd.Function):
    """Written out because it needs one (N, N) matrix for its backward pass where autograd would keep
    three."""

    @staticmethod
    def forward(ctx, scores: Tensor, rounding: float) -> Tensor:
        low, high = torch.aminmax(scores)
        span = high - low
        # A range of a few roundings is no range: dividing by it would turn noise into similarities 0 and 1.
        per_span = torch.where(span > 8 * rounding, 1 / span, 0.0)
        scaled = torch.where(per_span > 0, (scores - low).div_(span), 0.0)
        ctx.save_for_backward(scaled, per_span)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        scaled, per_span = ctx.saved_tensors
        # y = (x - low) / (high - low): beside grad / span, every y depends on low with -(1 - y) / span and on
        # high with -y / span; where several entries are the extreme, each gets its share.
        weighted = (grad * scaled).sum()
        out = grad * per_span
        for end, through_end in ((0, weighted - grad.sum()), (1, -weighted)):
            ties = scaled == end
            out += ties * (through_end * per_span / ties.sum().clamp(min=1))
        return out, None


def sequence_blocks(similarity: Tensor, length: int) -> Tensor:
    """C (N, N) cut into the blocks of all pairs of sequences: (S*S, L, L), pair index = paragraph * S +
    video.

    Raises:
        ValueError: N is not a multiple of L.
    """
    n = len(similarity)
    if n % length:
        raise ValueError(
            f"{n} clips in the batch do not divide into sequences of "
            f"loss.sequence_contrast.threshold={length}; "
            f"use a batch of {max(1, n // length) * length} clips."
        )
    s = n // length
    return similarity.view(s, length, s, length).transpose(1, 2).reshape(s * s, length, length)


def bucket_score(similarity: Tensor, quantile: float) -> Tensor:
    """Score of the alignable prompt bucket: the k-th smallest similarity of aligned pairs, k = int(quantile *
    N) within 1..N."""
    k = min(max(int(quantile * len(similarity)), 1), len(similarity))
    return similarity.diagonal().kthvalue(k).values


@torch.no_grad()
def transport_log_plan(blocks: Tensor, bucket: Tensor | None, epsilon: float, n_iters: int) -> Tensor:
    """Log transport plans (P, L, L) of P pairs of sequences, each real row and column of mass at most 1.

    Args:
        blocks: (P, L, L) clip-caption similarities.
        bucket: score of the extra row and column that take what aligns with nothing; None: plain balanced
            transport.
        epsilon: entropic regulariser.
        n_iters: row-then-column steps.
    """
    blocks = full_precision(blocks)
    length = blocks.shape[-1]
    if bucket is None:
        log_mass = blocks.new_full((length,), -math.log(length))
        return log_sinkhorn(blocks / epsilon, log_mass, log_mass, n_iters) + math.log(length)
    # The bucket's row and column hold L clips' worth of mass, half of the total each way, so that a sequence
    # that fits nowhere can empty itself into them.
    scores = bucket.to(blocks.dtype).expand(len(blocks), length + 1, length + 1).clone()
    scores[:, :length, :length] = blocks
    log_mass = blocks.new_full((length + 1,), -math.log(2 * length))
    log_mass[length] = -math.log(2.0)
    log_plan = log_sinkhorn(scores.div_(epsilon), log_mass, log_mass, n_iters)[:, :length, :length]
    return log_plan.add_(math.log(2 * length))


def unit_mass_per_clip(log_plan: Tensor) -> Tensor:
    """Plans (P, L, L) rescaled to mass L per pair; finite also where the bucket took almost everything."""
    # Without this a sequence could score well by sending all its mass to the bucket.
    return F.softmax(log_plan.flatten(1), dim=1).view(log_plan.shape).mul_(log_plan.shape[-1])
