"""Retrieval between captions and items of several modalities; an item may have several captions.

Letters: B items in a batch, C captions of an item (in a batch) or rows of a block (of scores), N captions,
M items, K modalities, D width, T text columns, k re-ranked candidates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.evaluators.alignment_report import alignment
from mmpt.evaluators.gram_scores import JOINT, GramKeys, Scorer, compare, scorer_of, subsets
from mmpt.evaluators.metric import Metric
from mmpt.evaluators.predictor import Arrays, Predictor
from mmpt.evaluators.ranking import RankCounts, count_tile, statistic
from mmpt.evaluators.result import Result
from mmpt.historic.ranking import candidates_alone
from mmpt.registry import METRICS, PREDICTORS

MATCH_BATCH = 256  # pairs that pass the matching head at once


@PREDICTORS.register()
class GramPredictor(Predictor):
    """Embeddings of captions and of every modality of every item, each encoded once whatever subsets are
    compared.

    With `eval.rerank` it also runs the matching head on the best items of every caption and the best captions
    of every item, by the first of `eval.scores` in the last of `eval.modalities`.

    Returns `pooled_text` (N, D) and `targets` (N) item of each caption (without `model.captions` neither),
    `pooled_<modality>` (M, D), for the score `joint` also `joint_<letters>` (M, D), `present` (M, K),
    `modalities` (K names), `item_ids`, `texts`, and re-ranked `match_items`, `match_items_prob` (N, k),
    `match_texts`, `match_texts_prob` (M, k).
    """

    Config = GramKeys

    def begin(self, dataset: Any, model: nn.Module, device: torch.device) -> None:
        if self.config.eval.rerank and getattr(model, "matcher", None) is None:
            raise ValueError(
                f"{self.config.source}: eval.rerank needs model.matching_head: true. Set eval.rerank: 0 "
                "to go without."
            )

    def finish(self, arrays: Arrays, dataset: Any, model: nn.Module) -> Arrays:
        arrays["modalities"] = list(model.names)
        if "n_captions" in arrays:
            counts = arrays.pop("n_captions")
            arrays["targets"] = np.arange(len(counts)).repeat(counts)
        if not self.config.eval.rerank:
            return arrays
        with torch.inference_mode():
            return self._rerank(arrays, model)

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        """A batch with captions (B, C, T), their `caption_valid` (B, C), and the items."""
        own = {name: value for name, value in batch.items() if name not in ("caps", "cmasks")}
        items = model.encode_items(batch["caps"][:, 0], batch["cmasks"][:, 0], **own)
        output = {
            "present": torch.stack([items["present"][name] for name in model.names], dim=1),
            "item_ids": list(batch["video_id"]),
            **{f"pooled_{name}": items[f"pooled_{name}"] for name in model.names},
        }
        if JOINT in self.config.eval.scores:
            output |= {name: value for name, value in items.items() if name.startswith("joint_")}
        if not self.config.model.captions:
            return output
        valid = batch["caption_valid"]
        caps, cmasks = batch["caps"][valid], batch["cmasks"][valid]  # (n, T)
        output |= {
            "pooled_text": model.encode_text(caps, cmasks),
            "n_captions": valid.sum(1),
            "texts": self.texts(caps),
        }
        if self.config.eval.rerank:
            output |= {
                "caps": caps,
                "cmasks": cmasks,
                "condition": items["condition"],
                "condition_mask": items["condition_mask"],
            }
        return output

    def _rerank(self, arrays: Arrays, model: nn.Module) -> Arrays:
        config = self.config.eval
        inputs = {
            name: torch.from_numpy(arrays.pop(name))
            for name in ("caps", "cmasks", "condition", "condition_mask")
        }
        last = subsets(config.modalities, model.names, with_text=True)[-1]
        if last[0] != "t":
            raise ValueError(
                f"eval.rerank compares texts with items, but eval.modalities ends with {last!r}. End with "
                "t and others."
            )
        scorer = scorer_of(compare(arrays, model.names, last), config.scores[0], arrays)
        for name, transposed in ("items", False), ("texts", True):
            best = top_candidates(scorer, config.rerank, transposed)  # (Q, k)
            query = torch.arange(len(best))[:, None].expand_as(best)
            text, item = (best, query) if transposed else (query, best)
            prob = match_pairs(model, inputs, text.flatten(), item.flatten()).view_as(best)
            arrays |= {f"match_{name}": best.numpy(), f"match_{name}_prob": prob.numpy()}
        return arrays


def top_candidates(scorer: Scorer, k: int, transposed: bool) -> Tensor:
    """The k best columns of every row, (Q, min(k, columns)), best first."""
    n_rows, n_columns = scorer.shape[::-1] if transposed else scorer.shape
    best = torch.empty(n_rows, min(k, n_columns), dtype=torch.long)
    for rows in scorer.blocks(transposed):
        best[rows] = scorer.rows(rows, transposed).topk(best.shape[1], dim=1).indices
    return best


def match_pairs(model: nn.Module, inputs: Mapping[str, Tensor], text: Tensor, item: Tensor) -> Tensor:
    """Probability (n,) that text i belongs to item i, by batches on the model's device.

    Args:
        inputs: caps, cmasks (N, T), condition (M, L, H), condition_mask (M, L), on the CPU.
        text, item: (n,) row numbers.
    """
    device = next(model.parameters()).device
    parts = []
    for texts, items in zip(text.split(MATCH_BATCH), item.split(MATCH_BATCH), strict=True):
        rows = {"caps": texts, "cmasks": texts, "condition": items, "condition_mask": items}
        parts.append(
            model.match(**{name: inputs[name][index].to(device) for name, index in rows.items()})
            .float()
            .cpu()
        )
    return torch.cat(parts)


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

    Config = GramKeys

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
        ranks: dict[str, np.ndarray] = {}
        facts: dict[str, Any] = {}
        for subset in subsets(self.config.modalities, names, pooled_text is not None):
            compared = compare(arrays, names, subset)
            queries, targets, items, chosen = compared
            facts[f"alignment {subset}"] = {
                "queries": len(queries),
                **alignment(queries, items, targets, chosen),
            }
            for score in self.config.scores:
                ranks |= both_directions(
                    f"{subset}-{score}", scorer_of(compared, score, arrays), targets, self.ranks
                )
        best = f"{subset}-{self.config.scores[0]}"
        if self.config.rerank and "match_items" in arrays:
            scorer, best = scorer_of(compared, self.config.scores[0], arrays), f"{best}-rerank"
            ranks |= both_directions(
                best,
                scorer,
                targets,
                self.ranks,
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
        if self.config.compat and self.config.rerank_mode == "replace":
            return lambda scores, rows: candidates_alone(
                scores, candidates[rows], prob[rows].to(scores.dtype)
            )
        mode = self.config.rerank_mode
        return lambda scores, rows: reranked(scores, candidates[rows], prob[rows], mode)


def both_directions(
    measure: str,
    scorer: Scorer,
    targets: Tensor,
    ranks: Callable[[RankCounts], np.ndarray],
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

    return {measure: ranks(found), f"{measure}-D2T": ranks(count_rows(scorer, True, count_items, rerank_d2t))}


def count_rows(
    scorer: Scorer, transposed: bool, count: Callable[[Tensor, slice], RankCounts], rerank: Rerank | None
) -> RankCounts:
    """Counts over blocks of rows of the score matrix, at most one for each row."""
    counts, done = (
        np.empty((len(RankCounts._fields), scorer.shape[int(transposed)]), dtype=np.int64),
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
            added to the candidates' scores; tiebreak = scores in hundredths, then probability.
    """
    prob = prob.to(scores.dtype)
    if mode == "add":
        return scores.scatter_add(1, candidates, prob)
    if mode == "tiebreak":
        return (scores / TIE).floor().scatter_add(1, candidates, prob.clamp_max(0.999))
    return (scores - scores.amax(1, keepdim=True) - 1).scatter(1, candidates, prob)
