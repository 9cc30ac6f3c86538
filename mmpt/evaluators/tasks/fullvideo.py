"""Full-video retrieval: all captions of a video, in order, look for the video.

The measures of `mmpt.evaluators.paragraphs` give the ranks. The published forms of DTW and OTAM change with a
constant added to all scores and stand in the report under `eval.compat` alone; a shift curve shows for every
model what a constant does to them. `docs/alignment.md` tells why. `cosine-` measures use cosines of
mean-centred embeddings instead of raw dot products.

Letters: V videos, Q query paragraphs in a tile.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.config.fields import Section, option
from mmpt.evaluators.metric import CLIP_SETTINGS, COMPAT_SETTINGS, WINDOW_SETTINGS, Metric, count_duplicates
from mmpt.evaluators.paragraphs import (
    Block,
    Groups,
    Paragraphs,
    Spread,
    align_pair,
    keep_best,
    rank_paragraphs,
    shift_free_measures,
)
from mmpt.evaluators.plots import plot_paths, plot_score_matrix, plot_shift_curve
from mmpt.evaluators.predictor import Arrays, Predictor, video_name
from mmpt.evaluators.ranking import RankCounts, ScoreMatrix
from mmpt.evaluators.result import Result
from mmpt.evaluators.spans import aligned_by_best, calibrated_rows
from mmpt.historic.full_video import PROTOCOLS, Protocol, published_measures
from mmpt.registry import METRICS, PREDICTORS

KEEP = 1.3  # clips per caption that transport looks at where the background is kept
SHIFTS = (-6, -3, -2, -1, 0, 1, 2, 3, 6)  # of the shift curve, in standard deviations of the scores
CURVE = "R1 of scores + c: "  # name of a fact that holds one line of the curve
_CURVE_PAIRS = 2**15  # paragraphs x videos behind a shift curve


@PREDICTORS.register()
class BGRetrievalPredictor(Predictor):
    """Pooled vectors of the windows and captions of whole videos, one video per batch; `*_lengths` count them
    per video."""

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        outputs = model(**batch)
        return {
            "pooled_text": outputs["pooled_text"].float(),  # (N, D)
            "pooled_video": outputs["pooled_video"].float(),  # (W, D)
            "text_lengths": [len(outputs["pooled_text"])],
            "video_lengths": [len(outputs["pooled_video"])],
            "video_ids": [video_name(video_id) for video_id in batch["video_id"]],
            "texts": self.texts(batch["caps"]),
        }


class _ParagraphMetric(Metric):
    best_metric = "R1"

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """Whose offsets and scales."""

        protocol: str = option(
            "norton", "whose cost offsets and scales full-video alignment uses", one_of=("norton", "tempclr")
        )

    background: str

    @abstractmethod
    def read(self, *args: Any, **arrays: Any) -> Paragraphs:
        """Scores and groups of a run."""

    def evaluate(self, texts=None, **arrays) -> Result:
        """Score a run: the arguments of `read`, and `texts` (captions) to count duplicates.

        `eval.compat` gives the plain names `DTW` and `OTAM` to the values of the released code, `exact-` to
        those of its formulas, and `shift-free-` to those that otherwise have the plain names.
        """
        run = self.read(**arrays)
        matrix, captions, clips, names = run
        spread = Spread.of(matrix)
        counts = rank_paragraphs(run, lambda block: shift_free_measures(block, spread, self.keep))
        curve = self.shift_curve(run, spread, counts)
        if (cosine := matrix.centred_cosine()) is not None:
            of_cosine, its_spread = run._replace(matrix=cosine), Spread.of(cosine)
            found = rank_paragraphs(
                of_cosine, lambda block: shift_free_measures(block, its_spread, self.keep)
            )
            counts |= {f"cosine-{measure}".rstrip("-"): count for measure, count in found.items()}
        if self.config.compat:
            counts |= rank_paragraphs(run, lambda block: self.published(block, run))
            for measure in ("DTW", "OTAM"):
                counts[f"shift-free-{measure}"] = counts[measure]
                counts[measure] = counts.pop(f"historic-{measure}")
        facts = {
            "queries": len(captions.lengths),
            "gallery": len(clips.lengths),
            "captions": matrix.shape[0],
            "clips": matrix.shape[1],
            "background": self.background,
            "tie rule": self.tie_rule,
            "tied queries": int((counts[""].tied > 0).sum()),
        }
        if self.config.compat:
            facts["protocol"] = f"{self.config.protocol}: {self.protocol}"
        if texts is not None:
            facts["duplicate captions"] = count_duplicates(texts)
        facts |= {f"{CURVE}{measure}": values for measure, values in curve.items()}
        ranks = {measure: self.ranks(count) for measure, count in counts.items()}
        of_spans, of_calibration = self.spans(run)
        result = self.rank_result(ranks, len(clips.lengths), facts | of_calibration, ids=names)
        return replace(result, values=result.values | of_spans)

    def spans(self, run: Paragraphs) -> tuple[dict[str, float], dict[str, str]]:
        """Calibrated rows, where the true place of each caption is known."""
        return {}, {}

    @property
    def protocol(self) -> Protocol:
        """Constants of the published evaluation that `eval.protocol` names."""
        return PROTOCOLS[self.config.protocol, self.background]

    @property
    def keep(self) -> float | None:
        return KEEP if self.background == "kept" else None

    def published(self, block: Block, run: Paragraphs, shift: float = 0.0) -> dict[str, Tensor]:
        """DTW and OTAM in their published forms, of scores plus a constant."""
        block = block if self.keep is None else keep_best(block, self.keep)
        largest = run.captions.index.shape[1], run.clips.index.shape[1]
        lengths = block.rows, block.cols
        return published_measures(block.scores + shift, lengths, largest, self.protocol, self.config.compat)

    def shift_curve(
        self, run: Paragraphs, spread: Spread, counts: Mapping[str, RankCounts]
    ) -> dict[str, dict[str, float]]:
        """Measure -> constant added to all scores, in their standard deviations -> R@1.

        Of evenly spread paragraphs, at most as many as keep it cheap, against all videos. The shift-free
        measures stand beside the published ones for comparison: their line is level by construction.

        Args:
            run: scores and groups.
            spread: of the scores.
            counts: of the shift-free measures, of all paragraphs.
        """
        n_queries, n_videos = len(run.captions.lengths), len(run.clips.lengths)
        n_asked = min(n_queries, max(1, _CURVE_PAIRS // n_videos))
        asked = torch.linspace(0, n_queries - 1, n_asked, dtype=torch.float64).round().long()

        def measure(block: Block) -> dict[str, Tensor]:
            shifted = {c: self.published(block, run, c * spread.sd) for c in SHIFTS}
            return {f"{name} {c}": scores for c in SHIFTS for name, scores in shifted[c].items()}

        moving = {
            name: float((self.ranks(count) <= 1).mean())
            for name, count in rank_paragraphs(run, measure, asked).items()
        }
        level = {
            name or "Cap. Avg.": float((self.ranks(count)[asked.numpy()] <= 1).mean())
            for name, count in counts.items()
        }
        names = [*level, *dict.fromkeys(name.split(" ")[0] for name in moving)]
        return {
            name: {
                f"c = {c:+} sd": moving[f"{name} {c}"] if f"{name} {c}" in moving else level[name]
                for c in SHIFTS
            }
            for name in names
        }

    def plot(self, folder: Path, result: Result, **arrays) -> list[Path]:
        """Adds the captions x clips scores, the alignments of the video with the longest paragraph, and the
        shift curve."""
        run = self.read(**arrays)
        matrix, captions, clips, names = run
        video = int(captions.lengths.argmax())
        cost, dtw, otam, plan = (
            part.numpy() for part in align_pair(matrix, captions, clips, video, video, self.keep)
        )
        curve = {
            name.removeprefix(CURVE): values
            for name, values in result.facts.items()
            if name.startswith(CURVE)
        }
        return [
            *super().plot(folder, result),
            plot_score_matrix(folder / "scores.png", matrix.thinned(), matrix.shape),
            plot_paths(folder / "alignment.png", cost, {"DTW": dtw, "OTAM": otam}, plan, names[video]),
            plot_shift_curve(folder / "shift.png", SHIFTS, curve),
        ]


@METRICS.register()
class FullVideoRetrievalMetric(_ParagraphMetric):
    """Background removed: a video is the list of its annotated clips, and its paragraph their captions."""

    background = "removed"
    published_settings = CLIP_SETTINGS | COMPAT_SETTINGS
    published_list = "test videos"

    def read(self, video_ids, scores=None, pooled_text=None, pooled_video=None, **_) -> Paragraphs:
        """Scores and groups of a run.

        Args:
            video_ids: (clips) the video of each clip and caption, in any order.
            scores: (captions, clips); or None with the next two.
            pooled_text: (captions, D).
            pooled_video: (clips, D).
        """
        matrix = ScoreMatrix(scores, queries=pooled_text, gallery=pooled_video)
        if not matrix.shape[0] == matrix.shape[1] == len(video_ids):
            raise ValueError(
                f"{len(video_ids)} video ids for {matrix.shape[0]} captions and {matrix.shape[1]} clips; "
                "they must agree."
            )
        rows = rows_by_video(video_ids)
        groups = Groups.from_lists(list(rows.values()))
        return Paragraphs(matrix, groups, groups, list(rows))

    def spans(self, run: Paragraphs) -> tuple[dict[str, float], dict[str, str]]:
        """Spans of clips of a video that hold the clip of a caption: clip k belongs to caption k."""
        aligned = []
        for name, index, length in zip(run.names, *run.clips, strict=True):
            rows = index[:length]
            truth = np.arange(int(length), dtype=np.float64)[:, None] + [0, 1]
            similarity = run.matrix.between(rows, rows).cpu().double().numpy()
            aligned.append(aligned_by_best(name, similarity, truth))
        return calibrated_rows(aligned, "clips")


@METRICS.register()
class FullVideoBGRetrievalMetric(_ParagraphMetric):
    """Background kept: a video is all its windows, annotated or not."""

    background = "kept"
    published_settings = {**WINDOW_SETTINGS, **COMPAT_SETTINGS, "dataset.sliding_window_size": (16,)}

    def read(
        self,
        text_lengths,
        video_lengths,
        scores=None,
        pooled_text=None,
        pooled_video=None,
        video_ids=None,
        **_,
    ) -> Paragraphs:
        """Scores and groups of a run.

        Args:
            text_lengths: (videos) captions of each video.
            video_lengths: (videos) windows of each video.
            scores: (captions, windows), video after video; or None with the next two.
            pooled_text: (captions, D).
            pooled_video: (windows, D).
            video_ids: (videos).
        """
        matrix = ScoreMatrix(scores, queries=pooled_text, gallery=pooled_video)
        for name, lengths, rows in (
            ("text_lengths", text_lengths, matrix.shape[0]),
            ("video_lengths", video_lengths, matrix.shape[1]),
        ):
            if len(lengths) != len(text_lengths) or min(lengths) < 1 or sum(lengths) != rows:
                raise ValueError(
                    f"{name}: {len(lengths)} videos with {sum(lengths)} rows in all, expected "
                    f"{len(text_lengths)} with {rows}, each >= 1."
                )
        names = list(map(str, range(len(text_lengths)) if video_ids is None else video_ids))
        return Paragraphs(
            matrix, Groups.from_lengths(text_lengths), Groups.from_lengths(video_lengths), names
        )


def rows_by_video(video_ids: Sequence) -> dict[str, list[int]]:
    """Video -> its rows, videos by first appearance."""
    rows: dict[str, list[int]] = {}
    for row, video in enumerate(video_ids):
        rows.setdefault(str(video), []).append(row)
    return rows
