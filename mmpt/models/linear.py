"""The trivial rows of a results table: chance, and a ridge regression from the words of a caption to the mean
feature around it.

The regression is told nothing of word order and learns in seconds. A model worth its training must beat it,
or the table must admit it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.config import required
from mmpt.config.schema import Config
from mmpt.models.bert import read_bert_config
from mmpt.models.mmfusion import Encoded
from mmpt.models.small import word_positions
from mmpt.modules.layers import masked_mean
from mmpt.ops.normalize import unit_rows
from mmpt.registry import MODELS
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


@MODELS.register()
class RidgeBaseline(nn.Module):
    """Ridge regression from the word pieces of a caption to the mean feature of its clip, as a model.

    `observe` and `settle` fit it, in closed form, to the pairs that a model is trained on: what that model
    has to beat. `eval.baselines: [ridge]` prints it beside any model. Of `PENALTIES` the one counts with
    which nine tenths of the pairs foretell the features of the last tenth best.

    Shape letters: B clips, T caption columns, F seconds, D feature width.

    Args:
        config: `dataset.bert_name` is read.
        weights: (C, D) of word pieces, where they are known.
    """

    returns = frozenset({"pooled_text", "pooled_video"})
    PENALTIES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # times the number of pairs
    MOST_PIECES = 4096  # the most frequent ones: normal equations grow with their square

    def __init__(self, config: Config, weights: np.ndarray | None = None):
        super().__init__()
        if weights is None:
            weights = np.zeros((read_bert_config(required(config, "dataset.bert_name")).vocab_size, 0))
        self.weights = nn.Parameter(torch.as_tensor(weights, dtype=torch.float32), requires_grad=False)
        self._texts: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []

    def observe(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch: Any) -> None:
        """Take pairs: caps, cmasks (B, T), vfeats (B, F, D), vmasks (B, F)."""
        rows, columns = word_positions(cmasks)
        counts = torch.bincount(rows, minlength=len(caps))
        self._texts += [ids.numpy() for ids in caps[rows, columns].split(counts.tolist())]
        self._targets.append(masked_mean(vfeats.float(), vmasks).numpy())

    def settle(self) -> None:
        """Solve for the weights; what was observed is forgotten.

        Raises:
            ValueError: nothing was observed.
        """
        if not self._texts:
            raise ValueError("RidgeBaseline: no pairs to learn from; look at dataset.train_path.")
        targets = np.concatenate(self._targets).astype(np.float64)
        frequency = np.bincount(np.concatenate(self._texts), minlength=len(self.weights))
        kept = np.flatnonzero(frequency)[np.argsort(-frequency[frequency > 0], kind="stable")]
        kept = kept[: self.MOST_PIECES]
        place = np.full(len(frequency), -1)
        place[kept] = np.arange(len(kept))
        texts = [places[places >= 0] for places in (place[ids] for ids in self._texts)]
        head = max(1, len(texts) * 9 // 10)
        first = normal_equations(texts[:head], targets[:head], len(kept))
        last = normal_equations(texts[head:], targets[head:], len(kept))

        def error(penalty: float) -> float:
            weights = solve(*first, penalty * head)
            # |XW - Y|^2 without |Y|^2
            return float(np.sum(weights * (last[0] @ weights)) - 2 * np.sum(weights * last[1]))

        best = min(self.PENALTIES, key=error)
        weights = np.zeros((len(frequency), targets.shape[1]))
        weights[kept] = solve(first[0] + last[0], first[1] + last[1], best * len(texts))
        self.weights = nn.Parameter(torch.as_tensor(weights, dtype=torch.float32), requires_grad=False)
        self._texts, self._targets = [], []

    def forward_text(self, caps: Tensor, cmasks: Tensor) -> Encoded:
        """(B, T) -> the features that captions foretell, of unit length."""
        rows, columns = word_positions(cmasks)
        vectors = self.weights[caps[rows, columns]]
        mask = torch.zeros_like(cmasks[:, 1:])
        mask[rows, columns - 1] = True
        outputs = vectors.new_zeros(*mask.shape, vectors.shape[1])
        outputs[rows, columns - 1] = vectors
        return Encoded(unit_rows(outputs.sum(1)), outputs, mask)

    def forward_video(self, vfeats: Tensor, vmasks: Tensor, caps: Tensor, cmasks: Tensor) -> Encoded:
        """(B, F, D) -> mean features of unit length."""
        outputs = nn.functional.pad(vfeats, (0, 0, 1, 1))
        return Encoded(unit_rows(masked_mean(vfeats, vmasks)), outputs, nn.functional.pad(vmasks, (1, 1)))

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch: Any
    ) -> dict[str, Tensor]:
        """Pooled vectors of B captions and clips."""
        video = self.forward_video(vfeats, vmasks, caps, cmasks)
        return {"pooled_text": self.forward_text(caps, cmasks).pooled, "pooled_video": video.pooled}


def normal_equations(
    texts: Sequence[np.ndarray], targets: np.ndarray, n_pieces: int, block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """X'X (n_pieces, n_pieces) and X'Y (n_pieces, D) of the counts X of word pieces in each text."""
    gram, cross = np.zeros((n_pieces, n_pieces)), np.zeros((n_pieces, targets.shape[1]))
    for start in range(0, len(texts), block):
        counts = _counts(texts[start : start + block], n_pieces)
        gram += counts.T @ counts
        cross += counts.T @ targets[start : start + block]
    return gram, cross


def solve(gram: np.ndarray, cross: np.ndarray, penalty: float) -> np.ndarray:
    """(X'X + penalty I)^-1 X'Y."""
    return np.linalg.solve(gram + penalty * np.eye(len(gram)), cross)


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
    return Ridge(solve(gram, cross, penalty))


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
