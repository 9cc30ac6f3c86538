"""Runs an N-modal model over a test set whose items may have several captions.

Letters: B items in a batch, C captions of an item, N captions, M items, K modalities, D width, T text
    columns, k re-ranked candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.evaluators.gram_scores import Scorer, compare, subsets
from mmpt.evaluators.predictor import Arrays, Predictor
from mmpt.registry import PREDICTORS

MATCH_BATCH = 256  # pairs that pass the matching head at once


@PREDICTORS.register()
class GramPredictor(Predictor):
    """Embeddings of captions and of every modality of every item, each encoded once whatever subsets are
    compared.

    With `eval.rerank` it also runs the matching head on the best items of every caption and the best captions
    of every item, by the first of `eval.scores` in the last of `eval.modalities`.

    Returns `pooled_text` (N, D) and `targets` (N) item of each caption (without `model.captions` neither),
    `pooled_<modality>` (M, D), `present` (M, K), `modalities` (K names), `item_ids`, `texts`, and re-ranked
    `match_items`, `match_items_prob` (N, k), `match_texts`, `match_texts_prob` (M, k).
    """

    def __call__(
        self,
        loader: Iterable[Mapping[str, Any]],
        model: nn.Module,
        device: torch.device | str | None = None,
        progress: Callable[[Iterable], Iterable] = iter,
    ) -> Arrays:
        if self.config.eval.rerank and getattr(model, "matcher", None) is None:
            raise ValueError(
                f"{self.config.source}: eval.rerank needs model.matching_head: true. Set eval.rerank: 0 "
                "to go without."
            )
        arrays = super().__call__(loader, model, device, progress)
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
        compared = compare(arrays, model.names, last)
        scorer = Scorer(compared.queries, compared.items, config.scores[0])
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
