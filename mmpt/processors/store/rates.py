"""Features of other rates than one a second, brought to one: all times of annotations are seconds.

0.5 to 4 rows a second are what later backbones give. N-modal data (`dataset.modalities`) keep their own rate.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpt.config.schema import DatasetConfig
from mmpt.processors.store.passport import passports_of, rates_of

LOWEST = 1e-12


def feature_rate(config: DatasetConfig) -> float:
    """Rows per second of the features in `dataset.vfeat_dir`: `dataset.vfeat_rate`, else what their passport
    says, else 1.

    Raises:
        ValueError: the passports of shards say different things.
    """
    if config.vfeat_rate is not None:
        return config.vfeat_rate
    if config.vfeat_dir is None or not Path(config.vfeat_dir).is_dir():  # an address
        return 1.0
    rates = rates_of(config.vfeat_dir, passports_of(config.vfeat_dir))
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g}" for rate in rates)
        raise ValueError(
            f"{config.vfeat_dir}: shards of {listed} rows per second by their passports; use one kind."
        )
    return rates[0]


def per_second(rows: np.ndarray, rate: float) -> np.ndarray:
    """One row for each second.

    A second's row is the mean of those in it, of their mean length, so that unit rows stay unit rows; slower
    features are repeated.

    Args:
        rows: (time, D).
        rate: rows per second.

    Returns:
        (seconds, D); `rows` itself at one a second.
    """
    if rate == 1.0 or not len(rows):
        return rows
    seconds = np.arange(max(1, round(len(rows) / rate)))
    first = np.minimum((seconds * rate).astype(int), len(rows) - 1)
    last = np.maximum(np.ceil((seconds + 1) * rate - 1e-9).astype(int), first + 1)
    if rate <= 1.0:
        return rows[first]
    made = np.empty((len(seconds), rows.shape[1]), np.float32)
    for second, (start, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        part = rows[start:end].astype(np.float32)
        mean = part.mean(0)
        made[second] = mean * (np.linalg.norm(part, axis=1).mean() / max(np.linalg.norm(mean), LOWEST))
    return made
