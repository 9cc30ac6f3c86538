"""A folder of videos and their captions to features, alignments and an index, each step skipping what is
there.

features/<id>.npy, passport.json, failures.json    one vector per second
alignments/<id>.json, <id>.npz                     where each caption is
index/                                             moments to search
own_videos.json                                    what this is, and what was left out and why
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.backbones.backbone import audio_backbone, video_backbone
from mmpt.extraction.run import RunOptions, list_jobs, run_extraction
from mmpt.inference.align import VideoAlignment, align_video
from mmpt.inference.loading import weights_sha256
from mmpt.inference.mmpt_model import MMPTModel
from mmpt.inference.own_captions import OwnCaptions
from mmpt.inference.search import differs, updated, whole
from mmpt.media.video import VIDEO_SUFFIXES, VideoError, probe
from mmpt.registry import BACKBONES
from mmpt.utils import atomic_write
from mmpt.utils.text import check_id, check_record, read_json
from mmpt.zoo import remedy

lines = logging.getLogger("mmpt.lines")
RECORD = "own_videos.json"
KEPT = {"aligned": list, "files": dict, "left_out": dict, "warnings": dict, "about": dict}  # in it
PROBED = 64  # files whose heads are read to say how much footage there is
KNOWN_WORDS = 0.5  # share of words that a model should know of its own language
MOMENT_S = 8  # seconds of a moment that is searched
PIECES = 2  # word pieces that a known word has at most
SPARE_BYTES = 50 << 20
Track = Callable[[Iterable], Iterable]


@dataclass(frozen=True, kw_only=True)
class OwnVideos:
    """What to do.

    Attributes:
        videos: folder of videos, csv of them as in `list_jobs`, or folder of features `<id>.npy`.
        out: folder to write.
        model, checkpoint: as in `MMPTModel.from_pretrained`.
        captions: as in `OwnCaptions`; None: beside the videos.
        language: as in `OwnCaptions`.
        files: folder of the videos, where `videos` holds features.
        backbone, weights: what reads videos; must be what the model was trained on, and is with "auto".
        window_s: seconds per window of the alignment.
        device: where the networks run.
    """

    videos: Path
    out: Path
    model: str
    checkpoint: str | None = None
    captions: str | None = None
    language: str | None = None
    files: Path | None = None
    backbone: str = "auto"
    weights: Path | None = None
    window_s: int = 4
    device: str = "cpu"


@dataclass
class Made:
    """What is there now.

    Attributes:
        out: the folder.
        aligned: ids with an alignment.
        files: id -> video file.
        left_out: id -> why it has no features, or no alignment.
        warnings: id -> what looks wrong.
        about: model, weights, dates, as `own_videos.json` holds them.
    """

    out: Path
    aligned: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def index(self) -> Path:
        """The index of moments."""
        return self.out / "index"

    def alignments(self) -> Iterator[VideoAlignment]:
        """One after the other."""
        for video_id in self.aligned:
            yield VideoAlignment.load(self.out / "alignments" / video_id)

    def save(self) -> None:
        """Writes the record."""
        with atomic_write(self.out / RECORD, "w") as file:
            json.dump({name: getattr(self, name) for name in KEPT}, file, indent=1)

    @classmethod
    def load(cls, out: Path) -> Made:
        """Reads the record of a folder.

        Raises:
            FileNotFoundError: nothing was made there.
            TextError: the record is damaged, or something else.
        """
        path = Path(out) / RECORD
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: nothing was made here yet. Make it: mmpt align FOLDER --model M --out {out}"
            )
        tree = check_record(read_json(path, dict), str(path), **KEPT)
        for video_id in tree["aligned"]:
            check_id(video_id, f"{path}: aligned")
        return cls(Path(out), **{name: tree[name] for name in KEPT})


def make(job: OwnVideos, track: Track = iter) -> Made:
    """Do what is not done yet.

    Args:
        job: what to do.
        track: wrapped round what is counted.

    Raises:
        ValueError, FileNotFoundError: videos, captions, model or backbone cannot be used as they are.
        OSError: the disk is full; what was done stays, and the same command goes on.
    """
    with _alone(job.out), _full_disk_named(job.out):
        return _make(job, track)


def _make(job: OwnVideos, track: Track) -> Made:
    given = sorted(job.videos.glob("*.npy"))
    has_features = bool(given)
    features = job.videos if has_features else job.out / "features"
    if has_features:
        sources = {path.stem: path for path in given}
        beside = job.files
    else:
        sources = {found.video_id: found.path for found in list_jobs(job.videos)}
        beside = job.videos
    files = {found.video_id: found.path for found in list_jobs(beside)} if beside else {}
    place = beside or job.videos
    captions = OwnCaptions(job.captions or (place if place.is_dir() else place.parent), sources, job.language)
    with_captions = sum(any(key in captions.files or key in captions.tables for key in keys)
                        for keys in captions.ids.values())  # fmt: skip
    lines.info(f"{len(sources)} videos, {with_captions} of them with captions in {captions.source}")
    for path, reason in list(captions.ignored.items())[:PIECES]:
        lines.info(f"  ignored: {path}: {reason}")

    made = Made(job.out, files={name: str(path.resolve()) for name, path in files.items()})
    # small and quick to say what is wrong with them: before hours go into features
    network = MMPTModel.from_pretrained(job.model, job.checkpoint, video_encoder=None)[0].to(job.device)
    weights = weights_sha256(network.fusion)
    if has_features:
        lines.info(f"1/4 features: those of {features}")
    else:
        backbone = network.backbone_name if job.backbone == "auto" else job.backbone
        made.left_out |= _extract(job, backbone, features, sources)
    there = {name: features / f"{name}.npy" for name in sources if (features / f"{name}.npy").is_file()}
    if not there:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(made.left_out.items())[:PIECES])
        raise ValueError(f"{job.videos}: none of its {len(sources)} videos can be read. {why}")

    made.about = {
        "model": whole(job.model),
        "checkpoint": job.checkpoint and whole(job.checkpoint),
        "weights": weights,
        "features": str(features.resolve()),
        "window_s": job.window_s,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    _align(job, network, weights, there, captions, made, track)
    _index(network, there, made, track)
    made.save()
    return made


def _extract(job: OwnVideos, name: str | None, features: Path, sources: Mapping[str, Path]) -> dict[str, str]:
    """Features of the videos that have none; id -> why it failed."""
    todo = [path for name, path in sources.items() if not (features / f"{name}.npy").is_file()]
    lines.info(f"1/4 features: {len(sources) - len(todo)} are there, {len(todo)} to extract{_footage(todo)}")
    if not todo:
        return _failures(features, sources)
    _check_room(job.out, len(todo) * 4096)
    if name is None:
        raise ValueError(f"{job.model}: it is not known whose features this model reads; give --backbone.")
    make_backbone = audio_backbone if name.startswith("audio:") else video_backbone
    backbone = make_backbone(name, _weights_of(name, job.weights), device=job.device)
    result = run_extraction(job.videos, features, backbone, RunOptions(backbone.batch_size), VIDEO_SUFFIXES)
    lines.info(f"    {len(result.done)} extracted, {len(result.failed)} failed")
    for name, reason in result.failed.items():
        lines.info(f"    left out: {name}: {reason}")
    return dict(result.failed)


def _failures(features: Path, sources: Mapping[str, Path]) -> dict[str, str]:
    path = features / "failures.json"
    known = read_json(path, dict, empty=True) if path.is_file() else {}
    return {name: reason for name, reason in known.items() if name in sources}


def _weights_of(backbone: str, weights: str | Path | None) -> str | Path | None:
    kind = backbone.partition(":")[0]
    if weights is None and kind in BACKBONES.names():
        weights = BACKBONES.get(kind).usual_weights
    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(
            f"no weights of {backbone} at {weights}. {remedy(weights)} Or name the file by --weights, or "
            "another --backbone; features that were extracted elsewhere can be given in place of the videos."
        )
    return weights


def _footage(paths: list[Path]) -> str:
    """How much there is to read, by the heads of some files."""
    if not paths:
        return ""
    lengths = []
    for path in paths[:: max(1, len(paths) // PROBED)]:
        try:
            lengths.append(probe(path).duration_s)
        except VideoError:
            lengths.append(0.0)  # extraction will name it
    hours = sum(lengths) / len(lengths) * len(paths) / 3600
    return (
        f", about {hours:.1f} hours of footage" if hours >= 1 else f", about {60 * hours:.1f} min of footage"
    )


def _check_room(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if free < needed + SPARE_BYTES:
        raise OSError(
            errno.ENOSPC, f"{out}: {free >> 20} MB free, {(needed + SPARE_BYTES) >> 20} MB needed at least"
        )


def _align(
    job: OwnVideos,
    network: MMPTModel,
    weights: str,
    there: Mapping[str, Path],
    captions: OwnCaptions,
    made: Made,
    track: Track,
) -> None:
    folder = job.out / "alignments"
    lines.info(f"2/4 alignment: {len(there)} videos, windows of {job.window_s} s")
    made_for = network.calibration and network.calibration.settings.get("window_s")
    if made_for not in (None, job.window_s):
        lines.info(
            f"    not calibrated: the calibration of this model is for windows of {made_for} s (--window)"
        )
    done = 0
    for name in track(list(there)):
        # the head is enough to know the length; damaged features are named when they are read
        try:
            length = float(len(np.load(there[name], mmap_mode="r", allow_pickle=False)))
            path, clips, wrong = captions.of(name, length)
            warnings = [f"{len(wrong)} captions left out: {wrong[0]}"] if wrong else []
            known = known_share(network.tokenizer, clips["text"])
            if known < KNOWN_WORDS:
                warnings.append(
                    f"only {known:.0%} of the words of {path.name} are in the vocabulary of the model: "
                    "another language? Its spans mean little."
                )
            said = json.dumps([clips[key] for key in ("start", "end", "text")]).encode()
            made_from = {
                "weights": weights,
                "window_s": job.window_s,
                "calibration": hashlib.sha256(repr(network.calibration).encode()).hexdigest(),
                "features": _version(there[name]),
                "captions": hashlib.sha256(said).hexdigest(),
            }
            if _made_from(folder / f"{name}.json") != made_from:
                about = {"made_from": made_from, "model": made.about["model"], "captions": str(path)}
                align_video(network, name, there[name], clips, job.window_s, about=about).save(folder / name)
                done += 1
        except ValueError as error:  # this video's matter, whichever part of reading it stumbled
            made.left_out[name] = str(error)
            continue
        made.aligned.append(name)
        if warnings:
            made.warnings[name] = warnings
    lines.info(f"    {done} aligned, {len(made.aligned) - done} were there, {len(made.left_out)} left out")
    for name, reason in list(made.left_out.items())[:20]:
        lines.info(f"    left out: {name}: {reason}")
    for name, texts in list(made.warnings.items())[:20]:
        lines.info(f"    look at {name}: {'; '.join(texts)}")


def _index(network: MMPTModel, there: Mapping[str, Path], made: Made, track: Track) -> None:
    """Brought up to date; made anew where it is of other weights, or damaged."""
    origin = {key: made.about[key] for key in ("model", "checkpoint", "weights")}
    origin |= {"window": min(MOMENT_S, network.max_video_len), "stride": None, "files": made.files}
    try:
        other = differs(made.index, origin)
        why = other and f"of another {other}"
    except ValueError as error:
        why = str(error)
    if why:
        lines.info(f"    index made anew: {why}")
        shutil.rmtree(made.index)
    lines.info(f"3/4 index: moments of {origin['window']} s")
    failed: dict[str, str] = {}
    store, came, went = updated(
        made.index,
        network,
        there,
        origin,
        track,
        on_failure=lambda name, error: failed.update({name: str(error)}),
    )
    lines.info(f"    {len(store)} moments of {len(store.videos)} videos; {came} came, {went} went")
    made.left_out |= failed


def known_share(tokenizer: Any, texts: Iterable[str], most: int = 2000) -> float:
    """Share of the different words of some texts that a tokenizer knows, whole or in two pieces."""
    words = sorted({word for text in texts for word in re.findall(r"\w+", text)})[:most]
    if not words:
        return 1.0
    pieces = tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
    unknown = tokenizer.unk_token_id
    return sum(len(ids) <= PIECES and unknown not in ids for ids in pieces) / len(words)


def _version(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _made_from(path: Path) -> dict[str, Any] | None:
    """What an alignment on disk was made from; None where there is none, or a damaged one."""
    if not (path.is_file() and path.with_suffix(".npz").is_file()):
        return None
    try:
        return read_json(path, dict, nan=True)["about"]["made_from"]
    except (ValueError, KeyError, TypeError):
        return None


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Refuses a second run in the same folder."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{out}: another run works in this folder; wait for it, or choose another."
            ) from error
        yield


@contextmanager
def _full_disk_named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"the disk of {out} is full ({error.strerror}). What is done is kept: free some space and run "
            "the same command again.",
        ) from error
