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
from mmpt.evaluators.postprocess import csls, dual_softmax, inverted_softmax, sinkhorn_potentials
from mmpt.evaluators.ranking import (
    RankCounts,
    ScoreMatrix,
    chance,
    count_ranks,
    hubness,
    judged_counts,
    rank_metrics,
    statistic,
)
from mmpt.evaluators.result import Result
from mmpt.processors.verify import repeated_items
from mmpt.registry import METRICS
from mmpt.utils.text import read_table

if TYPE_CHECKING:
    from mmpt.config import EvalConfig

BOOTSTRAP_SEED = 0
CLIP_SETTINGS = {"dataset.max_video_len": (32,), "dataset.max_len": (96,)}
WINDOW_SETTINGS = {**CLIP_SETTINGS, "dataset.sliding_window": (16,), "dataset.sliding_window_size": (32,)}
COMPAT_SETTINGS = {"eval.compat": (True,)}  # ties by numpy's sort; DTW and OTAM as released

POST_PROCESSING = {  # name in YAML -> (scores, its number) -> scores
    "dual_softmax": dual_softmax,
    "inverted_softmax": inverted_softmax,
    "csls": lambda scores, nearest: csls(scores, int(nearest)),
    "sinkhorn": lambda scores, scale: scale * scores + sinkhorn_potentials(scores, scale)[10],
}


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
    def evaluate(self, *args: Any, **arrays: Any) -> Result:
        """Score the arrays that the predictor returned; sub-classes name those that they read and ignore
        others."""

    def plot(self, folder: Path, result: Result, *args: Any, **arrays: Any) -> list[Path]:
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

    def intervals(
        self, found: Mapping[str, tuple[np.ndarray, Callable]], clusters: Sequence | None = None
    ) -> dict[str, tuple[float, float]]:
        """95 % interval of each statistic `name -> (values, of)`; none with `eval.bootstrap: 0`.

        The fixed seed gives all of them the same resampled queries.
        """
        n = self.config.bootstrap
        return {
            name: interval(values, of, n, np.random.default_rng(BOOTSTRAP_SEED), clusters)
            for name, (values, of) in found.items()
            if n
        }

    def rank_result(
        self,
        ranks: Mapping[str, np.ndarray],
        n_items: int,
        facts: dict[str, Any],
        ids: Sequence[str] | None = None,
        warnings: Sequence[str] = (),
        clusters: Sequence | None = None,
    ) -> Result:
        """Result of retrieval: R1, R5, R10 and MR of each measure ("" has no prefix), beside chance; `ids`
        name the queries, `clusters` what each is drawn together with for its interval."""
        values, judged, per_query = {}, {}, {}
        level = chance(n_items)
        for measure, of_measure in ranks.items():
            prefix = f"{measure}-" if measure else ""
            for name, value in rank_metrics(of_measure).items():
                values[prefix + name] = value
                judged[prefix + name] = of_measure, statistic(name)
            per_query[f"ranks_{measure}" if measure else "ranks"] = of_measure
        baselines = {"chance": {name: level[name.rsplit("-", 1)[-1]] for name in values}}
        intervals, per_query = self.intervals(judged, clusters), per_query | named(ids)
        return Result(values, self.best_metric, intervals, baselines, facts, per_query, list(warnings))

    def mean_result(
        self, hits: np.ndarray, baselines: dict[str, float], ids: Sequence[str] | None = None
    ) -> Result:
        """Result of a metric that is the mean of one number per query; `ids` name the queries."""
        hits = np.asarray(hits, dtype=np.float64)
        if not len(hits):
            raise ValueError(f"{type(self).__name__}: no queries to score; the test set is empty.")
        if ids is not None and len(ids) != len(hits):
            raise ValueError(f"{type(self).__name__}: {len(hits)} numbers for {len(ids)} queries.")
        name = self.best_metric
        intervals = self.intervals({name: (hits, statistic("mean"))})
        trivial = {model: {name: value} for model, value in baselines.items()}
        per_query = {name: hits, **named(ids)}
        return Result({name: float(hits.mean())}, name, intervals, trivial, {"queries": len(hits)}, per_query)


def named(ids: Sequence[str] | None) -> dict[str, np.ndarray]:
    """The `ids` entry of `Result.per_query`, if there are names."""
    return {} if ids is None else {"ids": np.asarray(ids, dtype=str)}


def typical(hits: np.ndarray) -> int:
    """The video with the middle result, to be drawn as an example."""
    return int(np.argsort(hits, kind="stable")[len(hits) // 2])


def right_items(
    path: str | Path, shape: tuple[int, int], item_ids: Sequence[str] | None, targets: Sequence[int] | None
) -> list[list[int]]:
    """Columns that are right for each query: its own, and those that a file judges right.

    Args:
        path: csv with the head `query_id,gallery_id`; a query has the id of its own item.
        shape: queries and items.
        item_ids: of the items.
        targets: own item of each query; None: query i belongs to item i.

    Raises:
        ValueError: there are no ids, an id is not in the gallery, or the file is no such table.
    """
    if item_ids is None:
        raise ValueError(f"eval.false_negatives={path} needs item_ids among the predictions.")
    place = {str(item): column for column, item in enumerate(item_ids)}
    own = list(range(shape[0])) if targets is None else [int(target) for target in targets]
    further: dict[int, list[int]] = {}
    names = ("query_id", "gallery_id")
    for number, row in enumerate(read_table(path, names), start=2):
        unknown = [row[name] for name in names if row[name] not in place]
        if unknown:
            raise ValueError(
                f"{path}:{number}: {unknown[0]!r} is no item of this test, as {item_ids[0]!r} is."
            )
        further.setdefault(place[row["query_id"]], []).append(place[row["gallery_id"]])
    return [sorted({item, *further.get(item, ())}) for item in own]


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

    Of embeddings the report has three scores: dot products, `plain-cosine-`, and `cosine-` after each side's
    mean is taken off, as for paragraphs. `eval.post_processing` adds rows that use the whole test set, and
    `eval.false_negatives` a `judged-` row. Where several clips come from one video, intervals draw videos.
    """

    best_metric = "R1"
    published_settings = CLIP_SETTINGS | COMPAT_SETTINGS

    def evaluate(
        self,
        scores=None,
        pooled_text=None,
        pooled_video=None,
        item_ids=None,
        video_ids=None,
        texts=None,
        targets=None,
        **_,
    ) -> Result:
        """Score a retrieval run.

        Args:
            scores: (N, M) rows = captions; or None with the next two.
            pooled_text: (N, D).
            pooled_video: (M, D).
            item_ids: (M) names of the gallery items.
            video_ids: (M) the video that each is cut from.
            texts: (N) captions, to count duplicates.
            targets: (N) gallery item of each caption; None: caption i belongs to item i.
        """
        matrix = ScoreMatrix(scores, queries=pooled_text, gallery=pooled_video)
        kinds = {"": matrix, "plain-cosine": matrix.cosine(), "cosine": matrix.centred_cosine()}
        directions = {name: kind for name, kind in kinds.items() if kind is not None}
        if targets is None:
            directions |= {f"V2T-{name}".rstrip("-"): kind.transposed for name, kind in directions.items()}
        directions |= self._post_processed(matrix)
        counts = {measure: count_ranks(direction, targets) for measure, direction in directions.items()}
        if self.config.false_negatives:
            right = right_items(self.config.false_negatives, matrix.shape, item_ids, targets)
            counts["judged"] = judged_counts(matrix, right)
        ranks = {measure: self.ranks(count) for measure, count in counts.items()}
        facts = {
            "queries": matrix.shape[0],
            "gallery": matrix.shape[1],
            "tie rule": self.tie_rule,
            "tied queries": int((counts[""].tied > 0).sum()),
            "hubness": round(hubness(matrix), 2),
        }
        warnings = []
        if texts is not None:
            facts["duplicate captions"] = count_duplicates(texts)
        if item_ids is not None:
            facts["different items"] = len(set(item_ids))
            warnings += repeated_items(matrix.shape[1], facts["different items"])
        warnings += sanity.unequal_sides(*matrix.shape)
        ids = item_ids if targets is None else None
        videos = targets if targets is not None else video_ids
        clusters = None if videos is None or len(set(np.asarray(videos).tolist())) == len(videos) else videos
        if clusters is not None:
            facts["intervals draw videos"] = len(set(np.asarray(clusters).tolist()))
        return self.rank_result(ranks, matrix.shape[1], facts, ids, warnings, clusters)

    def _post_processed(self, matrix: ScoreMatrix) -> dict[str, ScoreMatrix]:
        """Name -> scores that the whole test set has changed, by `eval.post_processing`."""
        return {
            f"{name}({value:g})": ScoreMatrix(POST_PROCESSING[name](matrix[:], value))
            for name, value in self.config.post_processing.items()
        }

    def plot(
        self, folder: Path, result: Result, scores=None, pooled_text=None, pooled_video=None, **arrays
    ) -> list[Path]:
        matrix = ScoreMatrix(scores, queries=pooled_text, gallery=pooled_video)
        return [
            *super().plot(folder, result),
            plot_score_matrix(folder / "scores.png", matrix.thinned(), matrix.shape),
        ]
