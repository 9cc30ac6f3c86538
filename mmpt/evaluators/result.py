"""What every metric returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Result:
    """Numbers of one evaluation and what is needed to judge them.

    Attributes:
        values: name -> number; a name is `<statistic>` or `<measure>-<statistic>` (`R1`, `DTW-R5`,
            `cosine-DTW-MR`).
        best_metric: the name that ranks checkpoints, higher = better.
        intervals: name -> 95 % bootstrap interval over queries.
        baselines: trivial model -> {name: number}.
        facts: counts and settings that decide whether two numbers may be compared.
        per_query: name -> array with one entry per query: `ranks`, `ranks_<measure>`, or a value under the
            name of its mean; `ids` of the queries; `weight` and `group` where the mean is a `PooledMean`.
        warnings: sentences about what looks wrong.
    """

    values: dict[str, float]
    best_metric: str
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    per_query: dict[str, np.ndarray] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def best(self) -> float:
        return self.values[self.best_metric]
