"""One video with its captions: where each caption is, by three methods, as numbers that can be kept.

Letters: N captions, W windows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.calibration import Spans
from mmpt.inference.mmpt_model import MMPTModel, Video
from mmpt.inference.moments import CaptionAlignment
from mmpt.ops.alignment import dtw_path, otam_path
from mmpt.processors.captions.readers import Clips, check_captions, read_captions
from mmpt.utils import atomic_write
from mmpt.utils.shardedtensor import load_npz
from mmpt.utils.text import read_json

METHODS = {  # name -> what its spans are
    "dtw": "DTW: the cheapest path in the order of the sentences; every sentence and every second is on it.",
    "otam": "OTAM: the same, but the first and last sentences may be left out, as when a video shows a part.",
    "calibrated": "Calibrated: holds the whole true span as often as was promised, and few of the sentences "
    "called visible are not; both for videos like those of the calibration.",
    "plan": "Transport plan: where most of the mass of a sentence lies, in any order, down to half its peak.",
}
Span = tuple[float, float]


@dataclass(frozen=True)
class VideoAlignment:
    """Where the captions of one video are.

    Attributes:
        video_id: its id.
        captions: N texts.
        said: (N) start and end that the captions came with, seconds.
        windows: (W, 2) start and end of each window, seconds.
        similarity: (N, W) cosines.
        plan: (N, W) transport plan; sums to 1.
        spans: method -> (N) start and end in seconds, None where the method leaves a caption out.
        mass: method -> (N) share of the caption's mass in the plan that lies on its span, None without one.
        truth: (N) where each caption really is, None for nowhere; None: not known.
        about: where it comes from; whatever JSON holds.
    """

    video_id: str
    captions: Sequence[str]
    said: Sequence[Span]
    windows: np.ndarray
    similarity: np.ndarray
    plan: np.ndarray
    spans: dict[str, list[Span | None]]
    mass: dict[str, list[float | None]]
    truth: Sequence[Span | None] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def length_s(self) -> float:
        """Seconds of the video."""
        return float(self.windows[:, 1].max())

    def rows(self, method: str = "dtw") -> list[dict[str, Any]]:
        """A row for each caption that the method places: start, end, mass, text.

        Raises:
            ValueError: there are no spans of this method.
        """
        if method not in self.spans:
            raise ValueError(
                f"{self.video_id}: no spans by {method}; there are those by {', '.join(self.spans)}."
                + " Calibrate the model for this window: mmpt calibrate" * (method == "calibrated")
            )
        placed = zip(self.captions, self.spans[method], self.mass[method], strict=True)
        return [
            {"start": span[0], "end": span[1], "mass": mass, "text": text}
            for text, span, mass in placed
            if span is not None
        ]

    def save(self, path: Path) -> None:
        """Writes `<path>.npz` with the matrices and then `<path>.json`, which makes it whole."""
        with atomic_write(path.with_name(f"{path.name}.npz")) as file:
            np.savez_compressed(
                file,
                windows=self.windows.astype(np.float32),
                similarity=self.similarity.astype(np.float16),
                plan=self.plan.astype(np.float32),
            )
        rows = []
        for index, text in enumerate(self.captions):
            row: dict[str, Any] = {"text": text, "said": self.said[index]}
            if self.truth is not None:
                row["truth"] = self.truth[index]
            for method in self.spans:
                row[method] = {"span": self.spans[method][index], "mass": self.mass[method][index]}
            rows.append(row)
        with atomic_write(path.with_name(f"{path.name}.json"), "w") as file:
            json.dump({"video_id": self.video_id, "captions": rows, "about": self.about}, file, indent=1)

    @classmethod
    def load(cls, path: Path) -> VideoAlignment:
        """Reads what `save` wrote.

        Raises:
            ValueError: it is damaged, or something else.
        """
        stored = path.with_name(f"{path.name}.json")
        try:
            tree = read_json(stored, dict, nan=True)
            arrays = load_npz(path.with_name(f"{path.name}.npz"))
            windows, similarity, plan = (arrays[name] for name in ("windows", "similarity", "plan"))
            rows, shape = tree["captions"], (len(tree["captions"]), len(windows))
            if windows.shape != (len(windows), 2) or similarity.shape != shape or plan.shape != shape:
                raise ValueError(f"its arrays are not those of {shape[0]} captions")
            methods = [name for name in METHODS if rows and name in rows[0]]
            return cls(
                tree["video_id"],
                [row["text"] for row in rows],
                [_seconds(row["said"]) for row in rows],
                windows,
                similarity,
                plan,
                {name: [_span(row[name]["span"]) for row in rows] for name in methods},
                {name: [row[name]["mass"] for row in rows] for name in methods},
                [_span(row["truth"]) for row in rows] if rows and "truth" in rows[0] else None,
                tree["about"],
            )
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{stored}: no alignment, or a damaged one ({error}). Delete it.") from error


def align_video(
    model: MMPTModel,
    video_id: str,
    video: Video,
    clips: Clips,
    window_s: int = 4,
    truth: Sequence[Span | None] | None = None,
    about: dict[str, Any] | None = None,
) -> VideoAlignment:
    """Aligns the captions of one video.

    Args:
        model: a trained model.
        video_id: name of the result.
        video: as in `MMPTModel.align`.
        clips: start, end and text of the captions, in order.
        window_s: seconds per window.
        truth: as in `VideoAlignment`.
        about: as in `VideoAlignment`.
    """
    found, about = model.align(video, clips["text"], window_s), dict(about or {})
    if found.calibrated is not None:
        kept = model.calibration
        assert kept is not None  # it said so
        about["calibration"] = f"coverage {kept.coverage:g}, false discoveries {kept.false_discovery:g}"
    said = [(float(start), float(end)) for start, end in zip(clips["start"], clips["end"], strict=True)]
    return describe(video_id, found, said, truth, about)


def describe(
    video_id: str,
    found: CaptionAlignment,
    said: Sequence[Span],
    truth: Sequence[Span | None] | None = None,
    about: dict[str, Any] | None = None,
) -> VideoAlignment:
    """Spans of an alignment by every method; arguments as in `VideoAlignment`."""
    windows, plan = found.windows.cpu().float().numpy(), found.plan.cpu().float().numpy()
    cost = 1 - found.similarity
    cells = {
        "dtw": dtw_path(cost).cpu().numpy(),
        "otam": otam_path(cost).cpu().numpy(),
        "plan": np.stack([_peak(row) for row in plan]),
    }
    if found.calibrated is not None:
        cells["calibrated"] = _calibrated(found.calibrated, windows)
    share = plan / plan.sum(axis=1, keepdims=True)
    spans: dict[str, list[Span | None]] = {}
    mass: dict[str, list[float | None]] = {}
    for method, chosen in cells.items():
        spans[method] = [
            (float(windows[row, 0].min()), float(windows[row, 1].max())) if row.any() else None
            for row in chosen
        ]
        mass[method] = [
            float(part[row].sum()) if row.any() else None for row, part in zip(chosen, share, strict=True)
        ]
    if found.calibrated is not None:  # to the second, not to the window
        ends = zip(found.calibrated.low.tolist(), found.calibrated.high.tolist(), strict=True)
        shown = zip(spans["calibrated"], ends, strict=True)
        spans["calibrated"] = [None if span is None else exact for span, exact in shown]
    similarity = found.similarity.cpu().float().numpy()
    return VideoAlignment(
        video_id, list(found.captions), said, windows, similarity, plan, spans, mass, truth, about or {}
    )


def aligned_captions(model: MMPTModel, video: Path, captions: Path, window_s: int = 4) -> VideoAlignment:
    """One video with one file of captions.

    Args:
        model: a trained model.
        video: its file, or features `<id>.npy`.
        captions: a file that `read_captions` reads, of this video alone or of several with its id.
        window_s: seconds per window.

    Raises:
        ValueError: no captions of this video, or a caption has impossible times.
    """
    said = read_captions(captions)
    if len(said) > 1 and video.stem not in said:
        known = ", ".join(list(said)[:5])
        raise ValueError(f"{captions}: no captions of {video.stem}; it has those of {known}.")
    checked, _ = check_captions(said)
    clips = checked[video.stem if len(said) > 1 else next(iter(said))]
    if not clips["text"]:
        raise ValueError(f"{captions}: holds no caption of {video.stem}.")
    return align_video(model, video.stem, video, clips, window_s)


def _calibrated(spans: Spans, windows: np.ndarray) -> np.ndarray:
    """(N, W) windows that the calibrated spans touch; none of what is called not visible."""
    overlaps = (windows[:, 1] > spans.low[:, None]) & (windows[:, 0] < spans.high[:, None])
    return overlaps if spans.visible is None else overlaps & spans.visible[:, None]


def _peak(mass: np.ndarray) -> np.ndarray:
    """(W,) windows round the one with most mass that hold at least half as much."""
    top, chosen = int(mass.argmax()), np.zeros(len(mass), dtype=bool)
    high = mass >= mass[top] / 2
    start, end = top, top
    while start > 0 and high[start - 1]:
        start -= 1
    while end + 1 < len(mass) and high[end + 1]:
        end += 1
    chosen[start : end + 1] = True
    return chosen


def _span(value: Any) -> Span | None:
    return None if value is None else _seconds(value)


def _seconds(value: Any) -> Span:
    return float(value[0]), float(value[1])
