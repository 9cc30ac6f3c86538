"""Retrieval between captions and items of several modalities.

Letters: N captions, M items, K modalities, D width, C rows of a block, k re-ranked candidates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.evaluators.alignment_report import alignment
from mmpt.evaluators.gram_scores import Scorer, compare, subsets
from mmpt.evaluators.metric import Metric
from mmpt.evaluators.ranking import RankCounts, count_tile, statistic
from mmpt.evaluators.result import Result
from mmpt.registry import METRICS

TIE = 0.01  # scores that fall into the same hundredth tie, where the matching head breaks ties

Rerank = Callable[[Tensor, slice], Tensor]


@METRICS.register()
class GramRetrievalMetric(Metric):
    """Captions (or another anchor) to items, and items to captions (`D2T`), for each of `eval.modalities` by
    each of `eval.scores`.

    Measures are named `<subset>-<score>`, e.g. `tva-volume`; `-rerank` where the matching head re-ranked
    (last subset, first score). An item counts as found by its best-ranked caption; its other captions do not
    compete. Beside R1, R5, R10 and MR there are Ravg, the mean of the first three, R50 and the mean rank. The
    facts hold an alignment report of every subset (`mmpt.evaluators.alignment_report`).
    """

    best_metric = "R1"  # of the last subset by the first score, re-ranked if anything is

    def evaluate(self, pooled_text=None, targets=None, modalities=(), present=None, **arrays) -> Result:
        """Score what `GramPredictor` returns.

        Args:
            pooled_text: (N, D); None: a model without captions.
            targets: (N) item of each caption; None: caption i belongs to item i.
            modalities: names of K arrays `pooled_<name>` (M, D).
            present: (M, K) bool; None: all there.
            arrays: these, and `match_*` of the matching head.
        """
        names = [str(name) for name in modalities]
        arrays |= {"pooled_text": pooled_text, "targets": targets, "present": present}
        ranks, facts = {}, {}
        for subset in subsets(self.config.modalities, names, pooled_text is not None):
            queries, targets, items, chosen = compare(arrays, names, subset)
            facts[f"alignment {subset}"] = {
                "queries": len(queries),
                **alignment(queries, items, targets, chosen),
            }
            for score in self.config.scores:
                ranks |= both_directions(
                    f"{subset}-{score}", Scorer(queries, items, score), targets, self.tie_rule
                )
        best = f"{subset}-{self.config.scores[0]}"
        if self.config.rerank and "match_items" in arrays:
            scorer, best = Scorer(queries, items, self.config.scores[0]), f"{best}-rerank"
            ranks |= both_directions(
                best,
                scorer,
                targets,
                self.tie_rule,
                *(self._rerank(arrays, name) for name in ("items", "texts")),
            )
        n_items = len(items.mask)
        facts = {"queries": len(queries), "gallery": n_items, "tie rule": self.tie_rule, **facts}
        result = self.rank_result(ranks, n_items, facts)
        for measure, of_measure in ranks.items():
            result.values[f"{measure}-Ravg"] = float(
                np.mean([result.values[f"{measure}-R{k}"] for k in (1, 5, 10)])
            )
            for name, of in (("R50", "R50"), ("meanR", "mean")):
                result.values[f"{measure}-{name}"] = float(statistic(of)(of_measure))
        if len(queries) != n_items:  # chance of finding any of several captions is another
            result.baselines["chance"] = {
                name: level for name, level in result.baselines["chance"].items() if "-D2T-" not in name
            }
        return dataclasses.replace(result, best_metric=f"{best}-R1")

    def _rerank(self, arrays: Mapping[str, Any], name: str) -> Rerank:
        candidates, prob = (
            torch.as_tensor(arrays[f"match_{name}"]),
            torch.as_tensor(arrays[f"match_{name}_prob"]),
        )
        mode = (
            "reference"
            if self.config.compat and self.config.rerank_mode == "replace"
            else self.config.rerank_mode
        )
        return lambda scores, rows: reranked(scores, candidates[rows], prob[rows], mode)


def both_directions(
    measure: str,
    scorer: Scorer,
    targets: Tensor,
    tie_rule: str,
    rerank: Rerank | None = None,
    rerank_d2t: Rerank | None = None,
) -> dict[str, np.ndarray]:
    """Ranks of captions' items, and of items' captions (items that have one), from two sweeps over the score
    matrix.

    Args:
        measure: name; the second direction gets `-D2T`.
        targets: (N) item of each caption.
        rerank, rerank_d2t: (scores (C, columns), slice of rows) -> scores.
    """
    found = count_rows(scorer, False, lambda tile, rows: count_tile(tile, targets[rows]), rerank)

    def count_items(tile: Tensor, rows: slice) -> RankCounts:
        captions = ((targets >= rows.start) & (targets < rows.stop)).nonzero()[:, 0]
        return count_best_caption(tile, captions, targets[captions] - rows.start)

    return {
        measure: found.ranks(tie_rule),
        f"{measure}-D2T": count_rows(scorer, True, count_items, rerank_d2t).ranks(tie_rule),
    }


def count_rows(
    scorer: Scorer, transposed: bool, count: Callable[[Tensor, slice], RankCounts], rerank: Rerank | None
) -> RankCounts:
    """Counts over blocks of rows of the score matrix, at most one for each row."""
    counts, done = (
        np.empty((3, scorer.shape[int(transposed)]), dtype=np.int64),
        0,
    )  # filled in place: see `count_ranks`
    for rows in scorer.blocks(transposed):
        tile = scorer.rows(rows, transposed)
        found = np.stack(count(tile if rerank is None else rerank(tile, rows), rows))
        counts[:, done : done + found.shape[1]] = found
        done += found.shape[1]
    return RankCounts(*counts[:, :done])


def count_best_caption(tile: Tensor, captions: Tensor, items: Tensor) -> RankCounts:
    """Counts for items (C, N) whose own captions are the columns `captions`, of the row `items`; only the
    best of them stays."""
    tile = tile.clone()
    own = tile[items, captions]
    best = tile.new_full((len(tile),), -torch.inf).scatter_reduce(0, items, own, "amax")
    column = torch.full((len(tile),), -1).scatter_reduce(
        0, items, captions.where(own == best[items], -1), "amax"
    )
    tile[items, captions] = -torch.inf
    with_caption = column >= 0
    tile[with_caption, column[with_caption]] = best[with_caption]
    return count_tile(tile[with_caption], column[with_caption])


def reranked(scores: Tensor, candidates: Tensor, prob: Tensor, mode: str) -> Tensor:
    """Scores after the matching head has seen the best candidates.

    Args:
        scores: (C, columns), high = close.
        candidates: (C, k) columns.
        prob: (C, k) their matching probabilities.
        mode: replace = candidates first, by probability, the others below in their order; add = probability
            added to the candidates' scores; tiebreak = scores in hundredths, then probability; reference =
            replace with all others equal, as released code does.
    """
    prob = prob.to(scores.dtype)
    if mode == "reference":
        return torch.zeros_like(scores).scatter(1, candidates, prob)
    if mode == "add":
        return scores.scatter_add(1, candidates, prob)
    if mode == "tiebreak":
        return (scores / TIE).floor().scatter_add(1, candidates, prob.clamp_max(0.999))
    return (scores - scores.amax(1, keepdim=True) - 1).scatter(1, candidates, prob)
