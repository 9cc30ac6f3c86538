"""Compare two evaluations of the same test set: is the difference more than the draw of queries?

A and B are folders written by predict.py. Both are read at the same resampled queries, so what makes a query
hard for both cancels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpt.evaluators.bootstrap import PooledMean, Statistic, paired_difference
from mmpt.evaluators.ranking import statistic
from mmpt.utils.shardedtensor import load_npz

RANK_STATISTICS = ("R1", "R5", "R10", "MR")
ABOUT_QUERIES = ("ids", "weight", "group")


def load_queries(folder: str) -> dict[str, np.ndarray]:
    """Per-query arrays of a run.

    Raises:
        FileNotFoundError: the folder holds no per_query.npz.
        ValueError: it is damaged.
    """
    path = Path(folder) / "per_query.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; give a folder OUTPUT/<checkpoint> that predict.py wrote."
        )
    try:
        return load_npz(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. Evaluate again.") from error


def same_queries(
    a: dict[str, np.ndarray], b: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Both runs in the order of A's queries.

    Raises:
        ValueError: they were not asked the same queries.
    """
    if ("ids" in a) != ("ids" in b):
        raise ValueError(
            "one run names its queries and the other does not; evaluate both with the same project file."
        )
    if "ids" not in a:
        return a, b
    only_a, only_b = set(a["ids"]) - set(b["ids"]), set(b["ids"]) - set(a["ids"])
    if only_a or only_b or len(a["ids"]) != len(b["ids"]):
        example = next(iter(only_a or only_b), "a repeated id")
        raise ValueError(
            f"the runs have different queries: {len(a['ids'])} and {len(b['ids'])}, {len(only_a)} only in "
            f"A, {len(only_b)} only in B "
            f"(e.g. {example}). Numbers of different test sets cannot be compared."
        )
    order_a, order_b = (np.argsort(run["ids"], kind="stable") for run in (a, b))
    order = np.empty_like(order_b)
    order[order_a] = order_b
    return a, {name: values[order] for name, values in b.items()}


def measures(run: dict[str, np.ndarray]) -> dict[str, Statistic]:
    """Name -> statistic of query indices, as the report of the run names and computes it."""
    found: dict[str, Statistic] = {}
    for name in (name for name in run if name not in ABOUT_QUERIES):
        if name.startswith("ranks"):
            prefix = f"{name.removeprefix('ranks').removeprefix('_')}-".removeprefix("-")
            for of in RANK_STATISTICS:
                found[prefix + of] = _of_queries(statistic(of), run[name])
        else:
            found[name] = PooledMean(run[name], run.get("weight"), run.get("group"))
    return found


def _of_queries(of: Statistic, values: np.ndarray) -> Statistic:
    return lambda index: of(values[index])


def compare(a: dict[str, np.ndarray], b: dict[str, np.ndarray], samples: int, seed: int) -> list[list[str]]:
    """Rows of the printed table: every measure that both runs hold."""
    rows = [["measure", "A", "B", "B - A", "95 % interval", "p"]]
    n_queries = len(next(iter(a.values())))
    if len(next(iter(b.values()))) != n_queries:
        raise ValueError(
            f"the runs have {n_queries} and {len(next(iter(b.values())))} queries; evaluate both with the "
            "same project file."
        )
    of_b = measures(b)
    for name, of in ((name, of) for name, of in measures(a).items() if name in of_b):
        result = paired_difference(of, of_b[name], n_queries, samples, seed)
        own = [f"{float(run(np.arange(n_queries))):.4f}" for run in (of, of_b[name])]
        rows.append(
            [
                name,
                *own,
                f"{result.difference:+.4f}",
                f"[{result.low:+.4f}, {result.high:+.4f}]",
                f"{result.p:.4f}",
            ]
        )
    if len(rows) == 1:
        raise ValueError(
            f"the runs share no measure: A has {', '.join(measures(a))}, B has {', '.join(of_b)}."
        )
    return rows


def most_changed(a: dict[str, np.ndarray], b: dict[str, np.ndarray], count: int) -> list[list[str]]:
    """Queries that moved most: by the ratio of ranks (1 -> 4 weighs as much as 100 -> 400), or by the
    difference of the first measure."""
    name = (
        "ranks"
        if "ranks" in a
        else next((name for name in a if name in b and name not in ABOUT_QUERIES), None)
    )
    if name is None or "ids" not in a:
        return []
    change = np.log(b[name] / a[name]) if name == "ranks" else b[name] - a[name]
    picked = [i for i in np.argsort(-np.abs(change), kind="stable")[:count] if change[i]]
    label = name.replace("ranks", "rank")
    return [
        ["query", f"{label} in A", f"{label} in B"],
        *([a["ids"][i], f"{a[name][i]:.4g}", f"{b[name][i]:.4g}"] for i in picked),
    ]
