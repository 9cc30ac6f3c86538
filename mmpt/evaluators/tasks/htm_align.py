"""Which sentences of a narration are shown, and when (HTM-Align). One video per batch.

Letters: N sentences of one video, T its seconds, W windows, F seconds per window, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from mmpt.config import required
from mmpt.evaluators.bootstrap import PooledMean, times_drawn
from mmpt.evaluators.metric import CLIP_SETTINGS, Metric, named
from mmpt.evaluators.predictor import Arrays, Predictor, item_name
from mmpt.evaluators.result import Result
from mmpt.evaluators.spans import aligned_by_best, calibrated_rows
from mmpt.registry import METRICS, PREDICTORS

UNSEEN = -60000.0  # similarity of a sentence with a second that no window showed it
EDGE_WINDOWS = 4
OFTEN = 0.1  # share of alignable sentences outside all windows that is worth a warning


def window_sentences(
    annotations: np.ndarray, n_seconds: int, window: int = 32, stride: int = 8
) -> list[tuple[int, range]]:
    """Which sentences each window is compared with: (start second, sentence indices).

    Windows start every `stride` seconds while more than half a window is left. Between the first and last
    *non-alignable* sentence whose middle lies within [start - window, start + 2 window], all sentences take
    part: the choice must not be guided by the annotated times of alignable ones. The first four windows reach
        back to the first sentence, the last four on to the last. A window without any
    non-alignable sentence near it is skipped.

    Args:
        annotations: (N, 3) alignable 0/1, start_s, end_s, in the order of speech.
        n_seconds: T.
        window: seconds per window.
        stride: seconds between window starts.
    """
    starts = range(0, n_seconds - window // 2, stride)
    middle = annotations[:, 1:].mean(1)
    chosen = []
    for place, start in enumerate(starts):
        near = (annotations[:, 0] == 0) & (middle >= start - window) & (middle <= start + 2 * window)
        if not near.any():
            continue
        first, last = np.flatnonzero(near)[[0, -1]]
        if place < EDGE_WINDOWS:
            first = 0
        elif place >= len(starts) - EDGE_WINDOWS:
            last = len(annotations) - 1
        chosen.append((start, range(first, last + 1)))
    return chosen


def average_windows(
    windows: Sequence[tuple[int, range]], cosines: Sequence[np.ndarray], n_sentences: int, n_seconds: int
) -> np.ndarray:
    """Mean over windows of each sentence's cosine with each second, (N, T); `UNSEEN` where no window has
    both.

    Args:
        windows: see `window_sentences`.
        cosines: for each window (N, seconds in it).
        n_sentences: N.
        n_seconds: T.
    """
    total, count = np.zeros((2, n_sentences, n_seconds))
    for (start, sentences), cosine in zip(windows, cosines, strict=True):
        cells = slice(sentences.start, sentences.stop), slice(start, start + cosine.shape[1])
        total[cells] += cosine[cells[0]]
        count[cells] += 1
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return np.where(mean == 0, UNSEEN, mean)


def roc_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Probability that a positive scores higher than a negative, ties counting half; NaN without either.

    Args:
        scores: (N).
        positive: (N) bool.
        weights: (..., N) how often each counts; None: once. Gives a result of shape (...).
    """
    order = np.argsort(scores, kind="stable")
    edges = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # first place of each different score
    weights = (np.ones(len(scores)) if weights is None else weights)[..., order]
    of_positives, of_negatives = (
        np.add.reduceat(weights * kept[order], edges, axis=-1) for kept in (positive, ~positive)
    )
    pairs = of_positives.sum(-1) * of_negatives.sum(-1)
    ordered = (of_positives * (of_negatives.cumsum(-1) - of_negatives / 2)).sum(-1)
    return np.divide(ordered, pairs, out=np.full_like(ordered, np.nan), where=pairs > 0)


@METRICS.register()
class HTMAlignMetric(Metric):
    """Is a sentence shown, and when?

    recall: share of alignable sentences whose most similar second lies in their annotated interval; auc: how
        well the highest similarity of a sentence tells alignable from non-alignable ones. Both over the
        sentences of all videos together. Beside them: a random second. calibrated: spans of seconds with a
        promised coverage, and which sentences are shown at a promised false discovery, see
        `mmpt.evaluators.spans`.

    The protocol compares only what lies between non-alignable sentences. An alignable one outside meets no
    second, is missed, and ranks below every other; `compared-recall` and `compared-auc` leave such sentences
    out.
    """

    best_metric = "recall"
    published_settings = CLIP_SETTINGS

    def evaluate(
        self, similarity: Sequence[np.ndarray], annotations: Sequence[np.ndarray], ids=None, **_
    ) -> Result:
        """Score a run.

        Args:
            similarity: (videos) of (N, T).
            annotations: (videos) of (N, 3) alignable 0/1, start_s, end_s.
            ids: (videos).
        """
        if not len(similarity) == len(annotations) > 0:
            raise ValueError(
                f"{len(similarity)} similarity matrices for {len(annotations)} annotated videos; expected "
                "one for each."
            )
        parts: list[tuple[np.ndarray, ...]] = []  # hits, best, alignable, luck, video
        aligned = []
        for index, (scores, annotated) in enumerate(zip(similarity, annotations, strict=True)):
            if not np.isfinite(scores).all():
                bad = int((~np.isfinite(scores)).any(1).sum())
                raise ValueError(
                    f"video {index}: {bad} of {len(scores)} sentences have non-finite similarities."
                )
            first, last = np.floor(annotated[:, 1]), np.ceil(annotated[:, 2])
            second = scores.argmax(1)
            n_seconds = scores.shape[1]
            seen = np.clip(np.minimum(last, n_seconds - 1) - np.maximum(first, 0) + 1, 0, None)
            hit = (second >= first) & (second <= last)
            shown = annotated[:, 0] == 1
            parts.append((hit, scores.max(1), shown, seen / n_seconds, np.full(len(scores), index)))
            aligned.append(aligned_by_best(str(index), _compared(scores), _truth(annotated, n_seconds)))
        hits, best, alignable, luck, video = map(np.concatenate, zip(*parts, strict=True))
        if not alignable.any():
            raise ValueError("no sentence is alignable; look at dataset.anno_path.")
        compared = best > UNSEEN
        of_spans, facts = calibrated_rows(aligned, "seconds")
        never = (
            f"{int((alignable & ~compared).sum())} of {int(alignable.sum())} alignable sentences meet "
            "no second"
        )
        found, shown = np.bincount(video, hits & alignable), np.bincount(video, alignable)
        of_videos, everyone = found / np.maximum(shown, 1), np.arange(len(found))

        def auc(index: np.ndarray) -> np.ndarray:
            return roc_auc(best, alignable, times_drawn(index, len(found))[..., video])

        return Result(
            {
                "recall": float(hits[alignable].mean()),
                "auc": float(roc_auc(best, alignable)),
                "compared-recall": float(hits[alignable & compared].mean())
                if (alignable & compared).any()
                else float("nan"),
                "compared-auc": float(roc_auc(best[compared], alignable[compared])),
                **of_spans,
            },
            self.best_metric,
            self.intervals({"recall": (everyone, PooledMean(of_videos, shown)), "auc": (everyone, auc)}),
            {"random second": {"recall": float(luck[alignable].mean()), "auc": 0.5}},
            {
                "videos": len(found),
                "sentences": len(hits),
                "alignable": int(alignable.sum()),
                "compared": int(compared.sum()),
                **facts,
            },
            {"recall": of_videos, "weight": shown, **named(ids)},
            [
                f"{never} under the protocol's choice of windows, which lowers recall and auc whatever "
                "the model; "
                "the row `compared` leaves them out."
            ]
            if (alignable & ~compared).sum() > OFTEN * alignable.sum()
            else [],
        )


def _compared(similarity: np.ndarray) -> np.ndarray:
    """With the least similarity that was seen in place of `UNSEEN`, whose pattern the annotations decide."""
    seen = similarity > UNSEEN
    return np.where(seen, similarity, similarity[seen].min() if seen.any() else 0.0)


def _truth(annotations: np.ndarray, n_seconds: int) -> np.ndarray:
    """(N, 3) alignable, start_s, end_s -> (N, 2) spans within the video, NaN where a sentence is not
    alignable."""
    return np.where(annotations[:, :1] == 1, annotations[:, 1:].clip(0, n_seconds), np.nan)


@PREDICTORS.register()
class HTMAlignPredictor(Predictor):
    """`similarity` (N, seconds) and `annotations` (N, 3) of each video.

    A batch holds the whole video: vfeats (1, seconds, D) without padding, caps and cmasks (1, N, T),
    `annotations` (1, N, 3) with alignable 0/1, start_s, end_s. Every window is encoded once, whatever the
    number of sentences.
    """

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        caps, cmasks, video = batch["caps"][0], batch["cmasks"][0], batch["vfeats"][0]
        annotations = batch["annotations"][0].cpu().numpy()
        size = required(self.config, "dataset.max_video_len")
        windows = window_sentences(annotations, len(video), size)
        text = normalize(model.forward_text(caps, cmasks).pooled.float(), dim=-1)  # (N, D)
        cosines = []
        if windows:
            vfeats, vmasks = cut_windows(video, [start for start, _ in windows], size)
            repeated = (
                part[:1].expand(len(vfeats), -1) for part in (caps, cmasks)
            )  # the video side reads [CLS] [SEP] alone
            seconds = normalize(
                model.forward_video(vfeats, vmasks, *repeated).outputs[:, 1:-1].float(), dim=-1
            )  # (W, F, D)
            products = (text @ seconds.transpose(1, 2)).cpu().numpy()  # (W, N, F)
            cosines = [product[:, : int(mask.sum())] for product, mask in zip(products, vmasks, strict=True)]
        return {
            "similarity": [average_windows(windows, cosines, len(caps), len(video))],
            "annotations": [annotations],
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
        }


def cut_windows(video: Tensor, starts: list[int], size: int) -> tuple[Tensor, Tensor]:
    """Windows (W, F, D) of a video (seconds, D), zero padded, and their masks (W, F)."""
    parts = [video[start : start + size] for start in starts]
    vfeats = torch.stack([pad(part, (0, 0, 0, size - len(part))) for part in parts])
    lengths = torch.tensor([len(part) for part in parts], device=video.device)
    return vfeats, torch.arange(size, device=video.device) < lengths[:, None]
