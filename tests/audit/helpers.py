"""A small test set, written so that each number can be checked by hand-sized loops."""

import numpy as np
import torch

from mmpt.audit import Evidence


def make_evidence(n_items=80, captions=1, width=16, noise=1.2, seed=0, **more) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(n_items, width, generator=generator)
    owner = np.repeat(np.arange(n_items), captions)
    queries = (
        items[torch.from_numpy(owner)] + noise * torch.randn(len(owner), width, generator=generator) + 0.3
    )
    norms = torch.exp(0.4 * torch.randn(n_items, 1, generator=generator))
    return Evidence(
        **{
            "query_item": owner,
            "column_item": np.arange(n_items),
            "items": [f"video{i}" for i in range(n_items)],
            "queries": queries,
            "gallery": items * norms,
            **more,
        }
    )


def recall(scores, right, k=1) -> float:
    """Recall in percent by sorting; `right` is (N, M) bool; no ties."""
    order = np.argsort(-np.asarray(scores), axis=1)
    return 100 * float(np.mean(np.take_along_axis(np.asarray(right), order, axis=1)[:, :k].any(1)))


def unit(x) -> np.ndarray:
    x = np.asarray(x)
    return x / np.linalg.norm(x, axis=1, keepdims=True)
