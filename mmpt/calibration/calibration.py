"""Calibration of an aligner on videos whose truth is known, and what it then says of others.

Half of the videos teach a linear guess of both ends of a sentence, its likely error, and how visible
sentences differ from others; the other half only says how far that is to be trusted, by conformal
prediction. So the guess may be poor, and the spans grow; what is promised holds all the same, for videos
like those of the calibration.

- A span [low, high] holds the whole true span of a visible sentence with probability `coverage` at least.
- Of the sentences of a video that are called visible, `false_discovery` at most are not, on average over
videos.

Both are means over videos; see `conformal`.

Letters: N sentences, W windows, Q quantities.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpt.calibration.conformal import adjusted, group_p_values, group_quantile, risk_controlled_rate
from mmpt.calibration.evidence import Evidence, evidence
from mmpt.config.fields import read_section
from mmpt.utils.files import atomic_write
from mmpt.utils.text import read_json

RIDGE = 1.0  # of guesses from standardised quantities
TRUSTS = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0)
STEPS = 12  # of Newton's method
LEAST_VIDEOS = 4
FORMAT = 1


@dataclass(frozen=True)
class AlignedVideo:
    """The output of an aligner for one video, and the truth.

    Attributes:
        video_id: its name.
        similarity: (N, W).
        weights: (N, W), see `evidence`.
        windows: (W, 2) seconds.
        truth: (N, 2) start and end of each sentence in seconds; NaN where it is not visible.
    """

    video_id: str
    similarity: np.ndarray
    weights: np.ndarray
    windows: np.ndarray
    truth: np.ndarray

    @functools.cached_property
    def known(self) -> Evidence:
        """What the alignment tells, computed once for all splits."""
        return evidence(self.similarity, self.weights, self.windows)

    @property
    def length_s(self) -> float:
        """End of the last window."""
        return float(np.max(self.windows))


class Spans(NamedTuple):
    """Of the N sentences of a video.

    Attributes:
        low, high: (N,) seconds; the whole video where nothing narrower can be promised.
        visible: (N,) bool; None: the calibration had no sentence that is not visible.
        p_values: (N,) how likely such a sentence looks as visible as this one; None likewise.
    """

    low: np.ndarray
    high: np.ndarray
    visible: np.ndarray | None
    p_values: np.ndarray | None


@dataclass(frozen=True)
class Linear:
    """A linear guess from standardised quantities."""

    mean: list[float]
    scale: list[float]
    weights: list[float]

    def __post_init__(self):
        if not len(self.mean) == len(self.scale) == len(self.weights) - 1:
            raise ValueError(f"{len(self.weights)} weights for {len(self.mean)} quantities and a constant")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(N, Q) -> (N,)."""
        standard = np.clip((x - np.array(self.mean)) / np.array(self.scale), -6, 6)
        return standard @ np.array(self.weights[:-1]) + self.weights[-1]


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` learned.

    Attributes:
        coverage, false_discovery: what is promised.
        ends: guess of start and end, from the centre, in seconds.
        errors: guesses of the logarithm of the error of start and end, in seconds.
        error_range: logarithms beyond which it is not believed.
        trust: power of the error by which spans grow; below 1, hopeless sentences do not get hopeless spans.
        factor: of the error by which spans are widened; None: too few videos for the coverage.
        visibility: guess of how visible; None where all sentences were.
        nulls, null_videos: values of sentences that were not visible, and whose they are.
        rate: of Benjamini-Hochberg at which false discoveries keep to the promise.
        settings: of the aligner.
        about: on what: model, data, numbers.
    """

    coverage: float
    false_discovery: float
    ends: tuple[Linear, Linear]
    errors: tuple[Linear, Linear]
    error_range: tuple[float, float]
    trust: float
    factor: float | None
    visibility: Linear | None
    nulls: list[float]
    null_videos: list[int]
    rate: float = 0.0
    settings: Mapping[str, Any | None] = field(default_factory=dict)
    about: Mapping[str, Any | None] = field(default_factory=dict)

    def __call__(
        self, known: Evidence, length_s: float | np.ndarray, video: np.ndarray | None = None
    ) -> Spans:
        """Spans and decisions for the sentences of one video, or of several.

        Args:
            known: of the N sentences.
            length_s: of the video, seconds; of several: (N,).
            video: (N,) whose each sentence is; None: of one.
        """
        start, end, before, after = self._guess(known)
        if self.factor is None:
            low, high = np.zeros_like(start), np.zeros_like(start) + length_s
        else:
            low, high = start - self.factor * before, end + self.factor * after
            low, high = (np.clip(x, 0, length_s) for x in (low, high))
            low, high = np.minimum(low, high), np.maximum(low, high)
        if self.visibility is None:
            return Spans(low, high, None, None)
        values = self.visibility(known.signs)
        p_values = group_p_values(np.array(self.nulls), np.array(self.null_videos), values)
        together = np.zeros(len(values), dtype=int) if video is None else video
        return Spans(low, high, adjusted(p_values, together) <= self.rate, p_values)

    def _guess(self, known: Evidence) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Start and end of each sentence, and the likely error of both, in seconds."""
        start, end = (known.centre + guess(_for_ends(known)) for guess in self.ends)
        errors = [
            np.exp(self.trust * np.clip(error(_for_error(known)), *self.error_range)) for error in self.errors
        ]
        return start, end, errors[0], errors[1]

    def save(self, path: str | Path) -> None:
        """Writes a JSON file, whole or not at all."""
        with atomic_write(path, "w") as file:
            json.dump({"format": FORMAT, **asdict(self)}, file, indent=1)
            file.write("\n")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Reads what `save` wrote.

        Raises:
            ValueError: it is something else, or of another version.
        """
        try:
            values = read_json(path, dict, nan=True)
            if values.pop("format", None) != FORMAT:
                raise ValueError("another version")
            return read_section(cls, values, "")
        except (ValueError, TypeError) as error:  # a key that is missing is a TypeError
            raise ValueError(f"{path}: not a calibration ({error}). Write it anew: mmpt calibrate") from error


def calibrate(
    videos: Sequence[AlignedVideo],
    coverage: float = 0.9,
    false_discovery: float = 0.1,
    settings: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Calibration:
    """Learn from videos that the model was not trained on.

    Args:
        videos: with their truth.
        coverage, false_discovery: what to promise.
        settings, about: kept with the result.
        seed: of the draw of halves.

    Raises:
        ValueError: fewer than four videos, no visible sentence in one of the halves, or a truth of other
            length.
    """
    for name, value in (("coverage", coverage), ("false_discovery", false_discovery)):
        if not 0 < value < 1:
            raise ValueError(f"{name}={value}: expected a share between 0 and 1.")
    if len(videos) < LEAST_VIDEOS:
        raise ValueError(f"{len(videos)} videos: a calibration takes at least {LEAST_VIDEOS}, and better 50.")
    order = np.random.default_rng(seed).permutation(len(videos))
    half = len(videos) // 2
    taught, held = (Sentences.of([videos[i] for i in part]) for part in (order[:half], order[half:]))
    for name, part in (("teach", taught), ("are held out", held)):
        if not part.seen.any():
            raise ValueError(
                f"no sentence is visible in the videos that {name}; give more, with visible ones."
            )
    ends = tuple(
        _ridge(
            _for_ends(taught.known)[taught.seen], (taught.truth[:, side] - taught.known.centre)[taught.seen]
        )
        for side in (0, 1)
    )
    step = float(np.median(np.diff(videos[0].windows, axis=1)))
    guessed = [taught.known.centre + guess(_for_ends(taught.known)) for guess in ends]
    logs = np.log(np.abs(taught.truth.T - np.stack(guessed))[:, taught.seen] + step / 2)
    errors = tuple(_ridge(_for_error(taught.known)[taught.seen], of_end) for of_end in logs)
    made = Calibration(
        coverage,
        false_discovery,
        (ends[0], ends[1]),
        (errors[0], errors[1]),
        (float(logs.min()), float(logs.max())),
        trust=1.0,
        factor=None,
        visibility=None,
        nulls=[],
        null_videos=[],
        settings=dict(settings or {}),
    )
    tried = [dataclasses.replace(made, trust=trust) for trust in TRUSTS]
    made = min(tried, key=lambda one: _mean_width(one, taught))
    factor = _factor(made, held)
    made = dataclasses.replace(made, factor=factor if np.isfinite(factor) else None)
    if not taught.seen.all() and not held.seen.all():
        visibility = _logistic(taught.known.signs, taught.seen)
        values = visibility(held.known.signs)
        nulls, null_videos = values[~held.seen], held.video[~held.seen]
        rates = adjusted(group_p_values(nulls, null_videos, values, held.video), held.video)
        made = dataclasses.replace(
            made,
            visibility=visibility,
            nulls=nulls.tolist(),
            null_videos=null_videos.tolist(),
            rate=risk_controlled_rate(rates, ~held.seen, held.video, false_discovery),
        )
    facts = {"videos": len(videos), "sentences": int(len(taught.seen) + len(held.seen))}
    facts |= {"visible": int(taught.seen.sum() + held.seen.sum())}
    return dataclasses.replace(made, about={**(about or {}), **facts})


class Sentences(NamedTuple):
    """Of several videos, one after the other."""

    known: Evidence
    truth: np.ndarray  # (n, 2)
    seen: np.ndarray  # (n,) bool
    video: np.ndarray  # (n,)
    length_s: np.ndarray  # (n,) of its video

    @classmethod
    def of(cls, videos: Sequence[AlignedVideo]) -> Sentences:
        for video in videos:
            if len(video.truth) != len(video.similarity):
                raise ValueError(
                    f"{video.video_id}: {len(video.similarity)} sentences with {len(video.truth)} true spans."
                )
        known = [video.known for video in videos]
        truth = np.concatenate([np.asarray(video.truth, dtype=np.float64) for video in videos])
        number: np.ndarray = np.repeat(np.arange(len(videos)), [len(video.truth) for video in videos])
        return cls(
            Evidence(*(np.concatenate(parts) for parts in zip(*known, strict=True))),
            truth,
            np.isfinite(truth).all(1),
            number,
            np.array([video.length_s for video in videos])[number],
        )


def _factor(made: Calibration, held: Sentences) -> float:
    """By how many likely errors spans have to grow."""
    start, end, before, after = made._guess(held.known)
    beyond = np.maximum((start - held.truth[:, 0]) / before, (held.truth[:, 1] - end) / after)
    return group_quantile(beyond[held.seen], held.video[held.seen], made.coverage)


def _mean_width(made: Calibration, part: Sentences) -> float:
    """Of the spans of visible sentences, were they widened as these ask for."""
    start, end, before, after = made._guess(part.known)
    return float(np.mean((end - start + _factor(made, part) * (before + after))[part.seen]))


def _for_ends(known: Evidence) -> np.ndarray:
    return known.seconds


def _for_error(known: Evidence) -> np.ndarray:
    sizes = np.log1p(np.abs(known.seconds))
    return np.concatenate([known.signs, known.signs**2, sizes], axis=1)


def _standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean, scale = x.mean(0), x.std(0) + 1e-9
    columns = np.clip((x - mean) / scale, -6, 6)
    return mean, scale, np.concatenate([columns, np.ones((len(x), 1))], axis=1)


def _ridge(x: np.ndarray, y: np.ndarray) -> Linear:
    mean, scale, columns = _standard(x)
    penalty = RIDGE * np.eye(columns.shape[1])
    penalty[-1, -1] = 0.0
    weights = np.linalg.solve(columns.T @ columns + penalty, columns.T @ y)
    return Linear(mean.tolist(), scale.tolist(), weights.tolist())


def _logistic(x: np.ndarray, positive: np.ndarray) -> Linear:
    """Penalised logistic regression by Newton's method."""
    mean, scale, columns = _standard(x)
    penalty = RIDGE * np.eye(columns.shape[1])
    weights = np.zeros(columns.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(columns @ weights, -30, 30)))
        slope = columns.T @ (positive - chance) - penalty @ weights
        curve = (columns * (chance * (1 - chance))[:, None]).T @ columns + penalty
        weights = weights + np.linalg.solve(curve, slope)
    return Linear(mean.tolist(), scale.tolist(), weights.tolist())
