"""What several training runs of one thing say against those of another, on the same queries: differences
paired over queries and seeds, with what the draw of test videos and of seeds could change about them.

Letters: G groups (levels of noise, say) of S runs each, N queries of V videos, K rows that are compared with
one reference.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from mmpt.evaluators.bootstrap import bounds, p_value, times_drawn

SAMPLES, SEED = 2000, 0


class Difference(NamedTuple):
    """A mean difference, its 95 % interval, the two-sided probability of one this far from zero, and the
    standard deviation of its draws."""

    value: float
    low: float
    high: float
    p: float
    sd: float


def packed(hits: np.ndarray) -> str:
    """Yes and no of each query (N,) as hexadecimal text."""
    return np.packbits(np.asarray(hits, dtype=bool)).tobytes().hex()


def unpacked(text: str, n_queries: int) -> np.ndarray:
    """The (N,) bool of `packed`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=n_queries).astype(bool)


def kept(hits: np.ndarray) -> dict[str, Any]:
    """`packed` with the number of queries, as a record keeps the queries of one run."""
    return {"queries": len(hits), "hits": packed(hits)}


def crossed(differences: np.ndarray, videos: Sequence[int]) -> Difference:
    """The mean of differences that runs and queries both make vary.

    Runs are drawn anew within each group, and videos, with all their queries, for all runs alike (the
    pigeonhole bootstrap of Owen 2007, which errs on the wide side). Draws of few runs vary too little, by
    (S - 1) / S; they are spread out by as much.

    Args:
        differences: (G, S, N), one run minus its partner at each query.
        videos: (N) of each query.
    """
    groups, runs, _ = differences.shape
    names, video = np.unique(np.asarray(videos), return_inverse=True)
    member = np.eye(len(names))[video]  # (N, V)
    per_video, queries = differences.reshape(groups * runs, -1) @ member, member.sum(0)
    times, weights = _draws(len(names), groups, runs)
    draws = (weights * ((per_video @ times.T) / (times @ queries))).mean(0)
    return Difference(float(differences.mean()), *bounds(draws), p_value(draws), float(draws.std()))


@functools.lru_cache(maxsize=8)
def _draws(n_videos: int, groups: int, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each video is drawn (samples, V), how much each run counts (G S, samples), 1 on average."""
    rng = np.random.default_rng(SEED)
    times = times_drawn(rng.integers(n_videos, size=(SAMPLES, n_videos)), n_videos)
    drawn = times_drawn(rng.integers(runs, size=(SAMPLES, groups, runs)), runs)
    return times, (1 + (drawn - 1) * np.sqrt(runs / max(runs - 1, 1))).reshape(SAMPLES, -1).T


def holm(p: Sequence[float]) -> list[float]:
    """p values of a family, adjusted so that the chance of any false find is theirs (Holm 1979)."""
    adjusted, worst = [0.0] * len(p), 0.0
    for place, index in enumerate(np.argsort(p, kind="stable")):
        worst = max(worst, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = worst
    return adjusted


def detectable(sd: float, family: int, level: float = 0.05, power: float = 0.8) -> float:
    """The difference that is found with this power where it is the first of a family that Holm looks at."""
    normal = NormalDist()
    return sd * (normal.inv_cdf(1 - level / (2 * family)) + normal.inv_cdf(power))


# In records -------------------------------------------------------------------------------------------------
#
# Numbers per query: row -> test -> measure -> a `packed` text for each run; `VIDEOS` -> measure -> the video
# of each query. A cell names a row, the tests that are taken together as groups, and a measure. A cell of
# `spread` names a row, one test and one or more measures; its runs are a list of what
# `kept` gives of each split, or a number each.

VIDEOS = "video of each query"
STATISTICS = ("share", "difference", "detectable", "spread")


def share(row: str, tests: Sequence[str], measure: str) -> dict[str, Any]:
    """A cell: in percent, how many queries of all runs have their item first."""
    return {"row": row, "test": list(tests), "measure": measure, "statistic": "share"}


def difference(row: str, reference: str, family: Sequence[str], tests: Sequence[str], measure: str) -> dict:
    """A cell: points by which `row` is above `reference`, with its interval, and bold where Holm's test over
    the rows `family` tells it from zero."""
    cell = {**share(row, tests, measure), "statistic": "difference"}
    return cell | {"reference": reference, "family": list(family)}


def spread(row: str, test: str, measures: Sequence[str]) -> dict[str, Any]:
    """A cell: of each measure, mean ± standard deviation over the runs, shares in percent."""
    return {"row": row, "test": test, "measure": list(measures), "statistic": "spread"}


def derive(spec: Mapping[str, Any], per_query: Mapping[str, Any]) -> str:
    """The text of a cell; "detectable": the largest of a family, in points, of what `detectable` gives."""
    if spec["statistic"] == "share":
        texts = [per_query[spec["row"]][test][spec["measure"]] for test in spec["test"]]
        return f"{100 * _hits(texts, len(per_query[VIDEOS][spec['measure']])).mean():.1f}"
    if spec["statistic"] == "spread":
        runs = per_query[spec["row"]][spec["test"]]
        return " / ".join(mean_and_sd([shown(run) for run in runs[measure]]) for measure in spec["measure"])
    found = differences(spec, per_query)
    if spec["statistic"] == "detectable":
        return f"{100 * max(detectable(each.sd, len(found)) for each in found.values()):.1f}"
    own = found[spec["row"]]
    text = f"{100 * own.value:+.1f} [{100 * own.low:+.1f}, {100 * own.high:+.1f}]"
    adjusted = dict(zip(found, holm([each.p for each in found.values()]), strict=True))
    return f"**{text}**" if adjusted[spec["row"]] < 0.05 else text


def shown(run: Sequence[Mapping[str, Any]] | float) -> float:
    """A number as it is; of splits that `kept` gave, the mean of their shares in percent."""
    if isinstance(run, int | float):
        return run
    return statistics.mean(100 * float(unpacked(of["hits"], of["queries"]).mean()) for of in run)


def mean_and_sd(values: Sequence[float]) -> str:
    """Mean ± standard deviation of the sample; the value alone where there is one."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def differences(spec: Mapping[str, Any], per_query: Mapping[str, Any]) -> dict[str, Difference]:
    """Of each row of the family of a cell to its reference."""
    tests, measure = spec["test"], spec["measure"]
    videos = tuple(per_query[VIDEOS][measure])

    def texts(row: str) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(per_query[row][test][measure]) for test in tests)

    return {row: _difference(texts(row), texts(spec["reference"]), videos) for row in spec["family"]}


@functools.lru_cache(maxsize=1024)  # all cells of a column ask for its whole family
def _difference(
    row: tuple[tuple[str, ...], ...], reference: tuple[tuple[str, ...], ...], videos: tuple[int, ...]
) -> Difference:
    own, base = _hits(row, len(videos)), _hits(reference, len(videos))
    return crossed(own - base[:, : own.shape[1]], videos)  # a row of fewer runs has the first ones


def _hits(texts: Sequence[Sequence[str]], n_queries: int) -> np.ndarray:
    """(G, S, N) of 0 and 1."""
    return np.array([[unpacked(text, n_queries) for text in runs] for runs in texts], dtype=np.float64)
