"""Full-video retrieval: all captions of a video, in order, look for the video.

Per paragraph and video one score, by four measures: Cap. Avg. (no prefix; each caption's best clip,
averaged), `DTW` and `OTAM` (alignment in order), `OT` (transport). `historic-DTW` and `historic-OTAM` repeat
the released evaluations with their defects (see `compat`); `cosine-` measures use cosines of mean-centred
embeddings instead of raw dot products, because alignment costs change with a shift or scale of the scores
that no loss term controls.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from mmpt.evaluators.metric import Metric, count_duplicates
from mmpt.evaluators.paragraphs import PROTOCOLS, Groups, Protocol, align_pair, paragraph_scores
from mmpt.evaluators.plots import plot_paths, plot_score_matrix
from mmpt.evaluators.ranking import RankCounts, ScoreMatrix, count_tile
from mmpt.evaluators.result import Result
from mmpt.registry import METRICS


class Paragraphs(NamedTuple):
    """Captions x clips, the rows and columns of each video, and the names of the videos."""

    matrix: ScoreMatrix
    captions: Groups
    clips: Groups
    names: list[str]


class _ParagraphMetric(Metric):
    best_metric = "R1"
    background: str

    @abstractmethod
    def read(self, **arrays) -> Paragraphs:
        """Scores and groups of a run."""

    def evaluate(self, texts=None, **arrays) -> Result:
        """Score a run: the arguments of `read`, and `texts` (captions) to count duplicates.

        `eval.compat` gives the plain names `DTW` and `OTAM` to the historic values.
        """
        matrix, captions, clips, names = self.read(**arrays)
        protocol = self.protocol
        counts = rank_paragraphs(matrix, captions, clips, protocol, historic=True)
        cosine = matrix.centred_cosine()
        if cosine is not None:
            of_cosine = rank_paragraphs(cosine, captions, clips, protocol, historic=False)
            counts |= {f"cosine-{measure}".rstrip("-"): count for measure, count in of_cosine.items()}
        if self.config.compat:
            for measure in ("DTW", "OTAM"):
                counts[f"exact-{measure}"], counts[measure] = (
                    counts[measure],
                    counts.pop(f"historic-{measure}"),
                )
        facts = {
            "queries": len(captions.lengths),
            "gallery": len(clips.lengths),
            "captions": matrix.shape[0],
            "clips": matrix.shape[1],
            "protocol": f"{self.config.protocol}, background {self.background}: {protocol}",
            "tie rule": self.tie_rule,
            "tied queries": int((counts[""].tied > 0).sum()),
        }
        if texts is not None:
            facts["duplicate captions"] = count_duplicates(texts)
        ranks = {
            measure: count.ranks("position" if "historic" in measure else self.tie_rule)
            for measure, count in counts.items()
        }
        return self.rank_result(ranks, len(clips.lengths), facts, ids=names)

    @property
    def protocol(self) -> Protocol:
        """Constants of the evaluation that `eval.protocol` names."""
        return PROTOCOLS[self.config.protocol, self.background]

    def plot(self, folder: Path, result: Result, **arrays) -> list[Path]:
        """Adds the captions x clips scores, and the alignments of the video with the longest paragraph."""
        matrix, captions, clips, names = self.read(**arrays)
        video = int(captions.lengths.argmax())
        cost, dtw, otam, plan = (
            part.numpy() for part in align_pair(matrix, captions, clips, video, video, self.protocol)
        )
        return [
            *super().plot(folder, result),
            plot_score_matrix(folder / "scores.png", matrix.thinned(), "captions and clips"),
            plot_paths(folder / "alignment.png", cost, {"DTW": dtw, "OTAM": otam}, plan, names[video]),
        ]


@METRICS.register()
class FullVideoRetrievalMetric(_ParagraphMetric):
    """Background removed: a video is the list of its annotated clips, and its paragraph their captions."""

    background = "removed"

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


@METRICS.register()
class FullVideoBGRetrievalMetric(_ParagraphMetric):
    """Background kept: a video is all its windows, annotated or not."""

    background = "kept"

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


def rank_paragraphs(
    matrix: ScoreMatrix, captions: Groups, clips: Groups, protocol: Protocol, historic: bool
) -> dict[str, RankCounts]:
    """Counts per measure; paragraph i belongs to video i."""
    counts: dict[str, list[RankCounts]] = {}
    seen = []
    for queries, found in paragraph_scores(matrix, captions, clips, protocol, historic):
        seen.append(queries)
        for measure, tile in found.items():
            counts.setdefault(measure, []).append(count_tile(tile, queries))
    original_order = torch.cat(seen).argsort().numpy()
    return {
        measure: RankCounts(*(count[original_order] for count in RankCounts.join(parts)))
        for measure, parts in counts.items()
    }
