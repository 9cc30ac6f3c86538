"""What every metric is, and text-video retrieval.

Letters: N queries, M gallery items, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mmpt.evaluators import sanity
from mmpt.evaluators.bootstrap import interval
from mmpt.evaluators.plots import plot_rank_histogram, plot_score_matrix
from mmpt.evaluators.ranking import RankCounts, ScoreMatrix, chance, count_ranks, rank_metrics, statistic
from mmpt.evaluators.result import Result
from mmpt.processors.verify import repeated_items
from mmpt.registry import METRICS

if TYPE_CHECKING:
    from mmpt.config import EvalConfig

BOOTSTRAP_SEED = 0
CLIP_SETTINGS = {"dataset.max_video_len": (32,), "dataset.max_len": (96,)}
WINDOW_SETTINGS = {**CLIP_SETTINGS, "dataset.sliding_window": (16,), "dataset.sliding_window_size": (32,)}
COMPAT_SETTINGS = {"eval.compat": (True,)}  # ties by numpy's sort; DTW and OTAM as released


class Metric(ABC):
    """Turns a predictor's arrays into an `Result`; calling it gives the numbers alone.

    Args:
        config: the `eval` section.

    Attributes:
        best_metric: the name that ranks checkpoints.
        published_settings: dotted key -> its values in the released project files.
        published_list: which of the data set's published lists has as many items as this metric has queries.
    """

    best_metric: str
    published_settings: ClassVar[Mapping[str, tuple]] = {}
    published_list: ClassVar[str] = "test"

    def __init__(self, config: EvalConfig):
        self.config = config

    @abstractmethod
    def evaluate(self, **arrays) -> Result:
        """Score the arrays that the predictor returned; arrays a metric does not read are ignored."""

    def plot(self, folder: Path, result: Result, **arrays) -> list[Path]:
        """Pictures of the run that `evaluate` scored, written into `folder`; sub-classes add to the histogram
        of ranks."""
        if "ranks" not in result.per_query or "gallery" not in result.facts:
            return []
        return [
            plot_rank_histogram(
                folder / "ranks.png", result.per_query["ranks"], result.facts["gallery"], "text to video"
            )
        ]

    def files(self, **arrays) -> dict[str, Any]:
        """Name of a JSON file beside the report -> what it holds of the predictor's arrays; there is none."""
        return {}

    def __call__(self, **arrays) -> dict[str, float]:
        return self.evaluate(**arrays).values

    @property
    def tie_rule(self) -> str:
        """`eval.tie_rule`, or the historic one in compat mode."""
        return "released" if self.config.compat else self.config.tie_rule

    def ranks(self, counts: RankCounts) -> np.ndarray:
        """Ranks from 1 by `tie_rule`."""
        return counts.ranks(self.tie_rule)

    def interval(self, values: np.ndarray, of: Callable) -> tuple[float, float]:
        """95 % interval; the fixed seed gives every metric of a run the same resampled queries."""
        return interval(values, of, self.config.bootstrap, np.random.default_rng(BOOTSTRAP_SEED))

    def rank_result(
        self,
        ranks: Mapping[str, np.ndarray],
        n_items: int,
        facts: dict[str, Any],
        ids: Sequence[str] | None = None,
        warnings: Sequence[str] = (),
    ) -> Result:
        """Result of retrieval: R1, R5, R10 and MR of each measure ("" has no prefix), beside chance; `ids`
        name the queries."""
        values, intervals, per_query = {}, {}, {}
        level = chance(n_items)
        for measure, of_measure in ranks.items():
            prefix = f"{measure}-" if measure else ""
            for name, value in rank_metrics(of_measure).items():
                values[prefix + name] = value
                if self.config.bootstrap:
                    intervals[prefix + name] = self.interval(of_measure, statistic(name))
            per_query[f"ranks_{measure}" if measure else "ranks"] = of_measure
        baselines = {"chance": {name: level[name.rsplit("-", 1)[-1]] for name in values}}
        return Result(
            values, self.best_metric, intervals, baselines, facts, {**per_query, **named(ids)}, list(warnings)
        )

    def mean_result(
        self, hits: np.ndarray, baselines: dict[str, float], ids: Sequence[str] | None = None
    ) -> Result:
        """Result of a metric that is the mean of one number per query; `ids` name the queries."""
        hits = np.asarray(hits, dtype=np.float64)
        if not len(hits):
            raise ValueError(f"{type(self).__name__}: no queries to score; the test set is empty.")
        name = self.best_metric
        intervals = {name: self.interval(hits, statistic("mean"))} if self.config.bootstrap else {}
        trivial = {model: {name: value} for model, value in baselines.items()}
        per_query = {name: hits, **named(ids)}
        return Result({name: float(hits.mean())}, name, intervals, trivial, {"queries": len(hits)}, per_query)


def named(ids: Sequence[str] | None) -> dict[str, np.ndarray]:
    """The `ids` entry of `Result.per_query`, if there are names."""
    return {} if ids is None else {"ids": np.asarray(ids, dtype=str)}


def typical(hits: np.ndarray) -> int:
    """The video with the middle result, to be drawn as an example."""
    return int(np.argsort(hits, kind="stable")[len(hits) // 2])


def count_duplicates(items: Sequence) -> int:
    """Items that repeat an earlier one."""
    return len(items) - len(set(items))


@METRICS.register()
class RetrievalMetric(Metric):
    """Text-to-video retrieval, and video-to-text (`V2T-`) where captions and videos pair one to one.

    Ranks come from counting the gallery items that score higher, so memory grows with the gallery, not with
    its square. `eval.tie_rule` places queries whose right item shares its score with others; the number of
    such queries is reported.
    `eval.compat: true` ranks as Norton's reversed argsort does: equal scores come in the order of numpy's
    sort.
    """

    best_metric = "R1"
    published_settings = CLIP_SETTINGS | COMPAT_SETTINGS

    def evaluate(
        self, scores=None, pooled_text=None, pooled_video=None, item_ids=None, texts=None, targets=None, **_
    ) -> Result:
        """Score a retrieval run.

        Args:
            scores: (N, M) rows = captions; or None with the next two.
            pooled_text: (N, D).
            pooled_video: (M, D).
            item_ids: (M) names of the gallery items.
            texts: (N) captions, to count duplicates.
            targets: (N) gallery item of each caption; None: caption i belongs to item i.
        """
        matrix = ScoreMatrix(scores, queries=pooled_text, gallery=pooled_video)
        directions = {"": matrix} if targets is not None else {"": matrix, "V2T": matrix.transposed}
        counts = {measure: count_ranks(direction, targets) for measure, direction in directions.items()}
        ranks = {measure: self.ranks(count) for measure, count in counts.items()}
        facts = {
            "queries": matrix.shape[0],
            "gallery": matrix.shape[1],
            "tie rule": self.tie_rule,
            "tied queries": int((counts[""].tied > 0).sum()),
        }
        warnings = []
        if texts is not None:
            facts["duplicate captions"] = count_duplicates(texts)
        if item_ids is not None:
            facts["different items"] = len(set(item_ids))
            warnings += repeated_items(matrix.shape[1], facts["different items"])
        warnings += sanity.unequal_sides(*matrix.shape)
        ids = item_ids if targets is None else None
        return self.rank_result(ranks, matrix.shape[1], facts, ids, warnings)

    def plot(
        self, folder: Path, result: Result, scores=None, pooled_text=None, pooled_video=None, **arrays
    ) -> list[Path]:
        matrix = ScoreMatrix(scores, queries=pooled_text, gallery=pooled_video)
        return [
            *super().plot(folder, result),
            plot_score_matrix(folder / "scores.png", matrix.thinned(), "scores"),
        ]
