"""Calibration of a model's alignments on videos whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.calibration import AlignedVideo, Calibration, calibrate
from mmpt.calibration.rehearsal import Rehearsal, rehearse
from mmpt.checkpoints.model_folder import CARD
from mmpt.extraction.run import videos_of
from mmpt.inference.loading import located, weights_sha256
from mmpt.inference.mmpt_model import MMPTModel
from mmpt.inference.moments import CaptionAlignment
from mmpt.inference.spans import note_in_card, with_truth
from mmpt.processors.annotations import read_database
from mmpt.processors.captions.readers import read_captions
from mmpt.processors.sets.htm_align import read_sentences
from mmpt.utils.text import read_json

Truth = tuple[list[str], np.ndarray]  # sentences, (N, 2) seconds, NaN where not visible


def read_truth(path: str | Path) -> dict[str, Truth]:
    """Video -> its sentences in order, and where each is shown.

    | file | of |
    |---|---|
    | {video: [[alignable 0/1, start, end, sentence], ...]} | HTM-Align; 0: not visible |
    | {"database": {video: {"annotations": [{"segment", "sentence"}]}}} | YouCook2 |
    | {video: {"timestamps", "sentences"}} | ActivityNet Captions |
    | {video: {"captions": [{"text", "step"}], "steps": [...]}} | the synthetic world; step -1: not visible |
    | captions with times, as `mmpt captions` reads | one's own |

    Raises:
        ValueError: it is none of these.
    """
    path = Path(path)
    if path.suffix == ".json":
        tree = read_json(path, dict)
        first = next(iter(tree.values()), None)
        if "database" in tree:
            entries = {
                video: entry["annotations"] for video, entry in read_database(path, "annotations").items()
            }
            return {
                video: _timed([clip["sentence"] for clip in clips], [clip["segment"] for clip in clips])
                for video, clips in entries.items()
                if clips
            }
        if isinstance(first, list):
            return {
                video: (
                    [s[3] for s in told],
                    np.array([s[1:3] if s[0] else (np.nan, np.nan) for s in told], float),
                )
                for video, told in read_sentences(str(path)).items()
            }
        if isinstance(first, Mapping) and {"captions", "steps"} <= first.keys():
            return {video: _of_world(entry) for video, entry in tree.items() if entry["captions"]}
        if isinstance(first, Mapping) and {"timestamps", "sentences"} <= first.keys():
            return {
                video: _timed(entry["sentences"], entry["timestamps"])
                for video, entry in tree.items()
                if entry["sentences"]
            }
    return {
        video: _timed(clips["text"], list(zip(clips["start"], clips["end"], strict=True)))
        for video, clips in read_captions(path).items()
    }


def align_all(
    align: Callable[[Any, Sequence[str]], CaptionAlignment],
    videos: Mapping[str, Any],
    truths: Mapping[str, Truth],
    aligner: str,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[AlignedVideo]:
    """Every video that has a truth, aligned.

    Args:
        align: a video and its sentences -> their alignment.
        videos: id -> video.
        truths: id -> sentences and where they are.
        aligner: see `weights_of`.
        progress: wraps the loop.

    Raises:
        ValueError: no video has a truth.
    """
    both = [video for video in videos if video in truths]
    if not both:
        raise ValueError(
            f"none of the {len(videos)} videos is in the truth: that has {', '.join(list(truths)[:3])}, "
            f"..., the videos are {', '.join(list(videos)[:3])}, ..."
        )
    return [with_truth(v, align(videos[v], truths[v][0]), truths[v][1], aligner) for v in progress(both)]


def calibrate_model(
    videos: Path,
    truth: Path,
    model: str,
    checkpoint: str | None = None,
    aligner: str = "plan",
    window_s: int = 4,
    coverage: float = 0.9,
    false_discovery: float = 0.1,
    splits: int = 50,
    out: Path | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[Path, Calibration, list[Rehearsal]]:
    """Calibrate a model, and keep the result with it.

    Args:
        videos: folder of videos or features.
        truth: see `read_truth`.
        model, checkpoint: as `MMPTModel.from_pretrained` takes them.
        aligner: see `weights_of`.
        window_s: seconds per window.
        coverage, false_discovery: what to promise.
        splits: random halves of the videos, on which calibrations are tested.
        out: file to write; None: beside the weights, where `from_pretrained` reads it.
        progress: wraps the loop over videos.

    Returns:
        The file, the calibration on all videos, and what calibrations on halves did on the other halves.
    """
    found, truths = videos_of(videos), read_truth(truth)
    is_features = next(iter(found.values())).suffix == ".npy"
    network = MMPTModel.from_pretrained(model, checkpoint, None if is_features else "auto", calibrated=False)[
        0
    ]
    window_s = min(window_s, network.max_video_len)
    way: dict[str, Any] = {
        "window_s": window_s,
        "stride_s": None,
        "relaxed": aligner == "otam",
        "epsilon": 0.1,
    }
    aligned = align_all(
        lambda v, sentences: network.align(v, sentences, **way), found, truths, aligner, progress
    )
    tested = rehearse(aligned, coverage, false_discovery, splits)
    about = {"data": truth.name, "model": str(model), "weights": weights_sha256(network.fusion)}
    calibration = calibrate(aligned, coverage, false_discovery, {**way, "aligner": aligner}, about)
    place = located(model, checkpoint)
    path = out or place.calibration
    calibration.save(path)
    if out is None and (path.parent / CARD).is_file():
        note_in_card(path.parent / CARD, calibration)
    return path, calibration, tested


def summary(calibration: Calibration, tested: Sequence[Rehearsal]) -> dict[str, Any]:
    """Words and numbers on a calibration, for people and programs."""
    mean = dict(zip(Rehearsal._fields, np.nanmean(np.array(tested), axis=0).round(4).tolist(), strict=True))
    facts = {key: calibration.about[key] for key in ("videos", "sentences", "visible")}
    promised = {"promised coverage": calibration.coverage}
    if calibration.visibility is not None:
        promised["promised false discovery"] = calibration.false_discovery
    names = {
        "coverage": "coverage",
        "width_s": "mean width, seconds",
        "fixed_coverage": "coverage of a fixed window",
        "fixed_width_s": "its width, seconds",
        "false_discovery": "false discovery",
        "power": "visible sentences found",
    }
    return facts | promised | {names[key]: value for key, value in mean.items() if np.isfinite(value)}


def _timed(texts: Sequence[str], spans: Sequence[Sequence[float]]) -> Truth:
    times = np.array([list(span) for span in spans], dtype=np.float64)
    order = np.argsort(times[:, 0], kind="stable")
    return [texts[i] for i in order], times[order]


def _of_world(entry: Mapping[str, Any]) -> Truth:
    shown = [(step["start_s"], step["end_s"]) for step in entry["steps"]]
    spans = [shown[c["step"]] if c["step"] >= 0 else (np.nan, np.nan) for c in entry["captions"]]
    return [c["text"] for c in entry["captions"]], np.array(spans, dtype=np.float64)
