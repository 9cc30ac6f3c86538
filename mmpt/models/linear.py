"""The trivial rows of a results table: chance, and a ridge regression from the words of a caption to the mean
feature around it.

The regression is told nothing of word order and learns in seconds. A model worth its training must beat it,
or the table must admit it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpt.utils import ShardedTensor, load_index

BEFORE_S, AFTER_S = 2.0, 4.0  # speech is about what is seen from a little before it to a little after it


@dataclass(frozen=True)
class Ridge:
    """Word-piece counts -> feature.

    Attributes:
        weights: (vocabulary, D) float64.
    """

    weights: np.ndarray

    def embed_text(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Unit vectors, (texts, D) float32: the feature that each text foretells."""
        return _unit(_counts(token_ids, len(self.weights)) @ self.weights)

    def embed_video(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors, (clips, D) float32: the mean feature of each clip, given as (seconds, D)."""
        return _unit(np.stack([np.asarray(clip, dtype=np.float64).mean(axis=0) for clip in features]))

    def scores(self, token_ids: Sequence[Sequence[int]], features: Sequence[np.ndarray]) -> np.ndarray:
        """Cosines, (texts, clips) float32: what evaluators take in place of a model's."""
        return self.embed_text(token_ids) @ self.embed_video(features).T


def fit_ridge(
    samples: Iterable[tuple[Sequence[Sequence[int]], np.ndarray]], vocab_size: int, penalty: float = 100.0
) -> Ridge:
    """Least squares with a squared penalty, W = (X'X + penalty I)^-1 X'Y, in one pass over the data.

    Args:
        samples: per video the token ids of its captions and the feature around each, (captions, D).
        vocab_size: number of token ids.
        penalty: lambda.

    Raises:
        ValueError: no captions at all.
    """
    gram, cross = np.zeros((vocab_size, vocab_size)), 0.0
    for token_ids, targets in samples:
        counts = _counts(token_ids, vocab_size)
        gram += counts.T @ counts
        cross = cross + counts.T @ np.asarray(targets, dtype=np.float64)
    if np.isscalar(cross):
        raise ValueError(
            "ridge regression: no captions to learn from; check that the shards of the training split "
            "hold videos."
        )
    return Ridge(np.linalg.solve(gram + penalty * np.eye(vocab_size), cross))


def fit_ridge_to_shards(
    vfeat_dir: str | Path, tfeat_dir: str, vocab_size: int, split: str = "train", penalty: float = 100.0
) -> Ridge:
    """Ridge regression on sharded HowTo-like data.

    Args:
        vfeat_dir: folder of video shards and `<split>_meta.pkl`.
        tfeat_dir: path prefix of the token shards, as in the YAML.
    """
    return fit_ridge(_shard_samples(Path(vfeat_dir), tfeat_dir, split), vocab_size, penalty)


def chance(n_items: int) -> dict[str, float]:
    """Expected retrieval numbers of guessing among `n_items`, one of which is right: fractions and the median
    rank."""
    return {**{f"R{k}": min(k / n_items, 1.0) for k in (1, 5, 10)}, "MR": (n_items + 1) / 2}


def _shard_samples(
    vfeat_dir: Path, tfeat_dir: str, split: str
) -> Iterator[tuple[list[list[int]], np.ndarray]]:
    for shard, ids in load_index(vfeat_dir / f"{split}_meta.pkl").items():
        videos = ShardedTensor.load(vfeat_dir / f"{split}_{shard}", mmap_mode="r")
        times = ShardedTensor.load(f"{tfeat_dir}{split}_{shard}.startends")
        tokens = ShardedTensor.load(f"{tfeat_dir}{split}_{shard}.caps_ids")
        for row in range(len(ids)):
            if len(times[row]):
                yield (
                    [caption[caption >= 0].tolist() for caption in tokens[row]],
                    _around(videos[row], times[row]),
                )


def _around(features: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean feature from BEFORE_S before to AFTER_S after each (start, end), (captions, D) float64."""
    n = len(features)
    total = np.concatenate([np.zeros((1, features.shape[1])), np.cumsum(features, axis=0, dtype=np.float64)])
    first = np.clip(np.floor(times[:, 0] - BEFORE_S), 0, n - 1).astype(int)
    last = np.clip(np.ceil(times[:, 1] + AFTER_S), first + 1, n).astype(int)
    return (total[last] - total[first]) / (last - first)[:, None]


def _counts(token_ids: Sequence[Sequence[int]], vocab_size: int) -> np.ndarray:
    """(texts, vocabulary) float64."""
    counts = np.zeros((len(token_ids), vocab_size))
    for row, ids in enumerate(token_ids):
        np.add.at(counts[row], np.asarray(ids, dtype=np.int64), 1.0)
    return counts


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows at length 1; a text without any known piece stays zero."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)
