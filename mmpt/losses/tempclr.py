"""TempCLR's losses: an ordered sequence of texts aligns with its video more cheaply than the same texts in a
shuffled order.

Shapes: V videos of c sampled clips each, D width, L clips (or annotated steps) per sequence, M shuffled
    orders, F labelled frames,
K steps of a task, T frames; few shots: Q queries, S supports. `cost` is the unit distance of text rows and
video columns, low = close.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmpt.losses.loss import Loss, LossConfig, option
from mmpt.losses.nce import ContrastConfig, MMContraLoss
from mmpt.ops.alignment import cosine_cost, otam, soft_dtw
from mmpt.ops.distributed import all_gather
from mmpt.ops.precision import full_precision
from mmpt.ops.windows import mean_by_second, window_seconds
from mmpt.registry import LOSSES

METRICS = ("dtw", "otam")
TEMPCLR = "Yang et al., TempCLR, ICLR 2023, [arXiv 2212.13738](https://arxiv.org/abs/2212.13738)"


@dataclass(frozen=True, kw_only=True)
class DistanceConfig(LossConfig):
    """How far one sequence is from another."""

    metric: str = option(
        "dtw", "distance of two sequences: dtw, or otam (both directions summed)", one_of=METRICS
    )
    smoothing: float = option(
        0.1, "of the soft minimum over alignments, in units of cost", yaml="lbda", symbol="lambda", above=0
    )
    eps: float = option(0.01, "added to the product of norms in the cosine", above=0)

    def distance(self, cost: Tensor) -> Tensor:
        """(..., R, C) -> (...)."""
        return (
            soft_dtw(cost, self.smoothing) if self.metric == "dtw" else otam(cost, self.smoothing, both=True)
        )


@dataclass(frozen=True, kw_only=True)
class ShuffleConfig(DistanceConfig):
    """One ordered sequence against shuffled ones."""

    n_orders: int = option(
        32, "orders of a sequence: the true one and shuffled ones", yaml="total_sample_size", least=2
    )
    weight: float = option(
        0.7,
        "share of the alignment loss; the other loss has the rest",
        yaml="alignment_loss_coeff",
        least=0,
        most=1,
    )

    def loss(self, costs: Tensor) -> Tensor:
        """Cross entropy of the true order, the first of (..., 1 + M, R, C), among all: (...)."""
        return -F.log_softmax(-self.distance(costs), dim=-1)[..., 0]


@dataclass(frozen=True, kw_only=True)
class TempCLRConfig(ShuffleConfig, ContrastConfig):
    """Pre-training; negatives and temperature are those of the clip-caption part."""

    sequence_length: int = option(
        5, "disjoint clips per sequence; videos with fewer do not count", yaml="sampling_threshold", least=2
    )

    def __post_init__(self):
        super().__post_init__()
        if self.n_orders > math.factorial(self.sequence_length):
            raise ValueError(
                f"loss.total_sample_size={self.n_orders}, but "
                f"loss.sampling_threshold={self.sequence_length} clips have only "
                f"{math.factorial(self.sequence_length)} orders. Use at most that many."
            )

    def check_data(self, dataset: Any) -> None:
        if not dataset.sort_clips:
            raise ValueError(
                "dataset.sort_clips: false leaves clips in any order; TempCLRLoss walks through a video "
                "in time. Set it to true."
            )
        if not (dataset.clip_per_video or dataset.subsampling):
            raise ValueError(
                "dataset.clip_per_video is missing: TempCLRLoss makes a sequence of several clips of a "
                "video. "
                f"Use several times loss.sampling_threshold={self.sequence_length}."
            )


@LOSSES.register()
class TempCLRLoss(Loss[TempCLRConfig]):
    """Pulls a video's captions in their true order to its clips, pushes them away in shuffled orders; beside
    the clip-caption loss.

    loss = (1 - weight) * VideoCLIP's loss + weight * alignment.

    Of each video the clips are kept that overlap no earlier one. A video qualifies if L or more are left; L
    of them, evenly spread, form its sequence. Its M orders are the true one and shuffled ones. The alignment
    loss is the cross entropy of the true order among the M, with minus the alignment distance as logit and no
    temperature. It is the mean over the videos that qualify, and 0 if none does. Other videos are no
    negatives of a sequence: with `global_negatives` ranks exchange the clips of VideoCLIP's loss, and how
    many videos qualify.

    Reads `pooled_video`, `pooled_text` (V*c, D) video by video, `clips_per_video`, and `text_start`,
    `text_end` (caption indices), `video_start`, `video_end` (seconds), (V*c,), ends exclusive, each video's
    clips sorted by start (`dataset.sort_clips`). Orders are drawn from `generator` (a CPU generator; default
    torch's own, which a trainer seeds every update). The terms hold both losses and the share of videos that
    qualify.

    Departs from the released code: orders are drawn one by one, not from a list of all L! of them. More
    orders than there are is an error, where the release mixes videos. Costs stay in float32 or better under
    half precision.
    """

    Config = TempCLRConfig
    family = "Sequences"
    formula = (
        "(1 - w) [CE(v t') + CE(t v')]\n"
        "+ w mean over videos of -log( e^-d(t, v) / sum over orders s of e^-d(s(t), v) )\n"
        "d = soft DTW or OTAM over 1 - cos"
    )
    paper = TEMPCLR
    cost = "that of MMContraLoss plus V M alignments of L x L (M orders)."
    note = (
        "Needs `dataset.sort_clips` (the default) and enough disjoint clips a video: watch "
        "`qualifying_share` in the log."
    )
    from_model = ("pooled_video", "pooled_text")

    def __init__(self, config: Mapping[str, Any] | TempCLRConfig | None = None, **keys: Any):
        super().__init__(config, **keys)
        shared = {f.name: getattr(self.config, f.name) for f in fields(ContrastConfig)}
        self.contrast = MMContraLoss(**shared)

    def check(self, clips_per_video: int | None = None, videos_per_batch: int | None = None) -> None:
        length = self.config.sequence_length
        if clips_per_video is not None and clips_per_video < length:
            raise ValueError(
                f"dataset.clip_per_video={clips_per_video} is less than loss.sampling_threshold={length}: "
                "no video could ever form a "
                f"sequence. Use at least {length} clips; with overlaps dropped, several times that."
            )

    def forward(
        self,
        *,
        pooled_video: Tensor,
        pooled_text: Tensor,
        text_start: Tensor,
        text_end: Tensor,
        video_start: Tensor,
        video_end: Tensor,
        clips_per_video: int,
        generator: torch.Generator | None = None,
        logit_scale: Tensor | None = None,
        **batch: Any,
    ) -> Tensor:
        config = self.config
        contrastive = self.contrast(
            pooled_video=pooled_video, pooled_text=pooled_text, logit_scale=logit_scale
        )
        # Clips of one video are drawn independently and overlap; an order of overlapping clips means nothing.
        times = (
            x.to(pooled_video.device).view(-1, clips_per_video)
            for x in (text_start, text_end, video_start, video_end)
        )
        kept = disjoint_clips(*times)
        clips, qualifies = sequence_clips(kept, config.sequence_length)
        text, video = (
            x.view(*kept.shape, -1).take_along_dim(clips[..., None], 1) for x in (pooled_text, pooled_video)
        )  # (V, L, D)
        orders = draw_orders(len(kept), config.n_orders - 1, config.sequence_length, generator).to(
            text.device, non_blocking=True
        )
        per_video = config.loss(reordered(cosine_cost(text, video, config.eps), orders))
        # A mean over the qualifying videos by weights, not by index, which would have to wait for the device.
        counted = all_gather(qualifies, with_grad=False) if config.global_negatives else qualifies
        n_ranks = len(counted) // len(
            qualifies
        )  # the mean over ranks of this rank's alignment is the mean over all qualifying videos
        alignment = n_ranks * torch.where(qualifies, per_video, 0.0).sum() / counted.sum().clamp(min=1)
        self.record(contrastive=contrastive, alignment=alignment, qualifying_share=qualifies.double().mean())
        return (1 - config.weight) * contrastive + config.weight * alignment


def disjoint_clips(text_start: Tensor, text_end: Tensor, video_start: Tensor, video_end: Tensor) -> Tensor:
    """Greedy choice of clips, in the given order, that begin after all chosen ones in both caption index and
    seconds.

    A clip that begins exactly at an exclusive end is not chosen: as published, a gap of one caption and one
    second is required.

    Args:
        text_start, text_end, video_start, video_end: (V, c) integers, ends exclusive.

    Returns:
        (V, c) bool.
    """
    last_text, last_video = torch.full_like(text_end[:, 0], -1), torch.full_like(video_end[:, 0], -1)
    kept = torch.empty_like(text_start, dtype=torch.bool)
    for i in range(kept.shape[1]):
        kept[:, i] = free = (text_start[:, i] > last_text) & (video_start[:, i] > last_video)
        last_text, last_video = (
            torch.where(free, text_end[:, i], last_text),
            torch.where(free, video_end[:, i], last_video),
        )
    return kept


def sequence_clips(kept: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """L evenly spread clips of the kept ones (V, c): their indices (V, L) in ascending order, and which
    videos have L or more (V,)."""
    n_kept = kept.sum(1)
    positions = spread(n_kept, length)
    kept_first = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    return kept_first.gather(1, positions), n_kept >= length


def spread(n: Tensor, count: int) -> Tensor:
    """floor(linspace(0, n - 1, count)) for each n >= 1, ends included: (...) -> (..., count) int64, in
    float64 arithmetic."""
    last = (n - 1).clamp(min=0)[..., None]
    steps = torch.arange(count, device=n.device, dtype=torch.float64) * (last.double() / max(count - 1, 1))
    positions = steps.long()
    if count > 1:
        positions[..., -1:] = last  # the product may round to just below it
    return positions


def draw_orders(n_draws: int, n_orders: int, length: int, generator: torch.Generator | None = None) -> Tensor:
    """Orders of 0..L-1, drawn without replacement from all but the identity, anew for each of V videos: (V,
    M, L), on the CPU.

    Raises:
        ValueError: there are fewer than M such orders.
    """
    if n_orders >= math.factorial(length):
        raise ValueError(
            f"{length} items have only {math.factorial(length) - 1} shuffled orders, asked for {n_orders} "
            "different ones."
        )
    orders = torch.arange(length).repeat(n_draws, n_orders + 1, 1)
    place_value = length ** torch.arange(
        length
    )  # wraps round for long sequences: then two orders may, very rarely, count as equal
    while True:
        codes = (orders * place_value).sum(-1)
        same = codes[:, :, None] == codes[:, None, :]
        again = same.tril(-1).any(-1)  # equal to an earlier order, of which the first is the identity
        if not again.any():
            return orders[:, 1:]
        orders[again] = torch.rand(
            int(again.sum()), length, generator=generator, dtype=torch.float64
        ).argsort(-1)


def reordered(cost: Tensor, orders: Tensor) -> Tensor:
    """(V, L, C) costs with rows as they are, then in each of the orders (V, M, L): (V, 1 + M, L, C)."""
    rows = torch.cat([torch.arange(cost.shape[1], device=cost.device).expand(len(cost), 1, -1), orders], 1)
    return cost[torch.arange(len(cost), device=cost.device)[:, None, None], rows]


@dataclass(frozen=True, kw_only=True)
class TempCLRLocalisationConfig(ShuffleConfig):
    """CrossTask fine-tuning."""

    weight: float = option(
        0.12,
        "share of the alignment loss; the other loss has the rest",
        yaml="alignment_loss_coeff",
        least=0,
        most=1,
    )
    frames_per_step: int = option(
        10,
        "at most this many frames per annotated step enter the alignment",
        yaml="video_sampling_multiplier",
        least=1,
    )
    shuffle_frames: bool = option(
        True, "shuffled orders also shuffle the frames within each run of one step", yaml="inner_shuffling"
    )
    window_stride: int = option(
        16,
        "dataset.sliding_window, by which overlapping windows are averaged into one state per second",
        yaml="sliding_window",
        least=1,
    )
    compat: bool = option(
        False,
        "overlapping windows enter the alignment as they come, as in the released code",
        formerly=("sliding_window: null",),
    )

    def check_data(self, dataset: Any) -> None:
        if not self.compat and self.window_stride != dataset.sliding_window:
            raise ValueError(
                f"loss.sliding_window={self.window_stride} differs from "
                f"dataset.sliding_window={dataset.sliding_window}, by which "
                "the windows were cut. Use that number."
            )


@LOSSES.register()
class TempCLRLocalisationLoss(Loss[TempCLRLocalisationConfig]):
    """Pulls each frame's logits to its steps, and the annotated steps in their true order to the labelled
    frames, away in shuffled orders.

    loss = (1 - weight) * binary cross entropy + weight * alignment. Alignment compares the sequence of
    annotated steps (repeats collapsed) with evenly spread labelled frames; it is 0 in evaluation, for a
    single step, and with fewer than two labelled frames.

    Reads one video: `logits` (T, K), `targets` (T, K) 0/1, `video_seq` (T, D) states of the valid frames of
    all windows, `pooled_text` (K, D), `sequence_targets` (annotated steps in time order), and, if there,
    `vmasks` (W, F), which frames of the windows are valid. Orders are drawn with repetition, from `generator`
    as in `TempCLRLoss`. Shapes depend on the labels: on a GPU it waits for the device.

    Departs from the released code, which aligned overlapping windows as one sequence in which time runs
    backwards (`compat: true`).
    """

    Config = TempCLRLocalisationConfig
    family = "Sequences"
    formula = "(1 - w) BCE + w -log( e^-d(true order) / sum over orders of e^-d )"
    paper = TEMPCLR
    cost = "M alignments of steps x frames for each video."
    from_model = ("logits", "video_seq", "pooled_text")

    def forward(
        self,
        *,
        logits: Tensor,
        targets: Tensor,
        video_seq: Tensor,
        pooled_text: Tensor,
        sequence_targets: Tensor,
        vmasks: Tensor | None = None,
        generator: torch.Generator | None = None,
        **batch: Any,
    ) -> Tensor:
        targets = targets.view(logits.shape)
        bce = F.binary_cross_entropy_with_logits(
            full_precision(logits), targets.to(full_precision(logits).dtype)
        )
        alignment = torch.zeros_like(bce)  # orders are drawn at random, so evaluation leaves it out
        if self.training:
            if vmasks is not None and not self.config.compat:
                second = window_seconds(vmasks.view(-1, vmasks.shape[-1]), self.config.window_stride)
                video_seq, targets = (
                    mean_by_second(full_precision(video_seq), second),
                    mean_by_second(targets.float(), second),
                )
            alignment = self.alignment(video_seq, pooled_text, targets, sequence_targets, generator)
        self.record(bce=bce, alignment=alignment)
        return (1 - self.config.weight) * bce + self.config.weight * alignment

    def alignment(
        self,
        video_seq: Tensor,
        pooled_text: Tensor,
        targets: Tensor,
        sequence_targets: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Cross entropy of the true order of steps among shuffled ones."""
        config = self.config
        steps = sequence_targets.flatten().unique_consecutive()
        labelled = targets.any(-1).nonzero().flatten()  # background frames belong to no step, so to no order
        if len(steps) < 2 or len(labelled) < 2:
            return full_precision(video_seq).new_zeros(())
        n_frames = min(len(labelled), len(steps) * config.frames_per_step)
        frames = labelled[spread(torch.tensor(len(labelled)), n_frames).to(labelled.device)]
        cost = cosine_cost(pooled_text, video_seq[frames], config.eps)  # (K, F)
        orders = draw_step_orders(steps.cpu(), config.n_orders - 1, generator).to(cost.device)
        columns = torch.arange(n_frames).expand(len(orders), -1)
        if config.shuffle_frames:
            columns = draw_frame_orders(targets[frames].argmax(-1).cpu(), len(orders), generator)
        shuffled = cost[orders[:, :, None], columns.to(cost.device)[:, None, :]]  # (M, L, F)
        return config.loss(torch.cat([cost[steps][None], shuffled]))


def draw_step_orders(steps: Tensor, n_orders: int, generator: torch.Generator | None = None) -> Tensor:
    """M arrangements (M, L) of the steps (L,), each different from the given one, drawn independently."""
    orders = steps.repeat(n_orders, 1)
    while (again := (orders == steps).all(-1)).any():
        orders[again] = steps[
            torch.rand(int(again.sum()), len(steps), generator=generator, dtype=torch.float64).argsort(-1)
        ]
    return orders


def draw_frame_orders(classes: Tensor, n_orders: int, generator: torch.Generator | None = None) -> Tensor:
    """M orders (M, F) of frames that shuffle only within each run of equal class (F,)."""
    run = F.pad(classes.diff() != 0, (1, 0)).cumsum(0)
    return (run + torch.rand(n_orders, len(classes), generator=generator, dtype=torch.float64)).argsort(-1)


@dataclass(frozen=True, kw_only=True)
class FewShotConfig(DistanceConfig):
    """Few-shot episodes."""

    metric: str = option(
        "otam", "distance of two sequences: dtw, or otam (both directions summed)", one_of=METRICS
    )
    way: int = option(5, "classes in an episode", least=1)


@LOSSES.register()
class FewShotAlignmentLoss(Loss[FewShotConfig]):
    """Pulls each query video to the support videos of its class, pushes it from those of the other classes,
    frame order respected.

    Cross entropy over minus the mean alignment distance to a class's supports. Reads `support` (S, T, D) and
    `query` (Q, T, D) frame features, and `support_labels` (S,), `query_labels` (Q,) in 0..way-1, every class
    with a support. The terms hold loss and accuracy.
    """

    Config = FewShotConfig
    family = "Sequences"
    formula = "CE over classes k of -mean over supports s of k of d(query, s)"
    paper = "Cao et al., CVPR 2020, [arXiv 1906.11415](https://arxiv.org/abs/1906.11415)"
    cost = "queries x supports alignments of frames x frames."
    from_model = ("support", "query")

    def forward(
        self, *, support: Tensor, support_labels: Tensor, query: Tensor, query_labels: Tensor, **batch
    ) -> Tensor:
        logits = few_shot_logits(support, support_labels, query, self.config)
        loss = F.cross_entropy(logits, query_labels)
        self.record(few_shot=loss, accuracy=(logits.argmax(-1) == query_labels).float().mean())
        return loss


def few_shot_logits(support: Tensor, support_labels: Tensor, query: Tensor, config: FewShotConfig) -> Tensor:
    """Minus the mean distance of each query (Q, T, D) to the supports (S, T', D) of each class: (Q, way)."""
    (n_queries, query_frames), (n_supports, support_frames) = query.shape[:2], support.shape[:2]
    cost = cosine_cost(query.flatten(0, 1), support.flatten(0, 1), config.eps)  # one product for all pairs
    pairs = cost.view(n_queries, query_frames, n_supports, support_frames).transpose(1, 2)
    distance = config.distance(pairs)  # (Q, S)
    member = F.one_hot(support_labels, config.way).to(distance.dtype)
    return -(distance @ member) / member.sum(0)
