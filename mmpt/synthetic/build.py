"""Writes a whole synthetic world into a folder: complete and as asked for, or not at all."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from mmpt.synthetic.narration import Sentence
from mmpt.synthetic.settings import WORLD_VERSION, Settings
from mmpt.synthetic.truth import TRUTH, truth_entry
from mmpt.synthetic.vocabulary import WordPiece, build_vocabulary, write_model_folder
from mmpt.synthetic.world import World
from mmpt.synthetic.write import Track, write_how2, write_json
from mmpt.synthetic.write_actions import write_actions
from mmpt.synthetic.write_downstream import write_downstream
from mmpt.synthetic.write_modalities import write_modalities
from mmpt.synthetic.write_test_sets import write_msrvtt, write_videos, write_youcook

logger = logging.getLogger(__name__)

STAMP = "stamp.json"


def build_world(out: str | Path, settings: Settings, track: Track = lambda items, label: items) -> bool:
    """Make sure that `out` holds the world of these settings.

    Files are written to a neighbouring folder that takes the name `out` at the very end. A second process
    that asks for the same folder waits, then finds it done.

    Args:
        out: folder; its parent is created.
        settings: which world.
        track: wraps the long loops, to show progress.

    Returns:
        False if it was there already, complete and of the same settings.

    Raises:
        FileExistsError: `out` holds something else than a synthetic world; nothing is touched.
    """
    out = Path(os.path.realpath(out))  # of a link, the folder that it leads to is made anew
    out.parent.mkdir(parents=True, exist_ok=True)
    with _lock(out.with_name(f".{out.name}.lock")):
        if is_complete(out, settings):
            return False
        if out.exists() and not (out / STAMP).is_file() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(
                f"{out}: exists and is no synthetic world (it has no {STAMP}). Choose another folder, or "
                "remove this one."
            )
        partial = out.with_name(f".{out.name}.partial")
        _remove(partial)  # of a process that was killed: whoever is alive holds the lock
        try:
            partial.mkdir()
            write_world(partial, settings, track)
            write_json(
                partial / STAMP,
                {**_identity(settings), "settings": asdict(settings), "files": _sizes(partial)},
            )
            _remove(out)
            os.replace(partial, out)
        finally:
            _remove(partial)
    return True


def is_complete(out: str | Path, settings: Settings) -> bool:
    """True where `out` was finished with these settings and no file of it has gone or changed its size
    since."""
    out = Path(out)
    try:
        stamp = json.loads((out / STAMP).read_text(encoding="utf-8"))
        if any(stamp[key] != value for key, value in _identity(settings).items()):
            return False
        wrong = [name for name, size in stamp["files"].items() if (out / name).stat().st_size != size]
    except (OSError, ValueError, KeyError) as error:
        logger.debug("%s is not a complete synthetic world: %r", out, error)
        return False
    return not wrong


def write_world(root: Path, settings: Settings, track: Track) -> None:
    """Write every data set and the model folder below an empty folder."""
    world = World(settings)
    narration = {
        video.id: world.narration(video) for split in ("train", "val") for video in world.videos(split)
    }
    training = (sentence.text for video in world.videos("train") for sentence in narration[video.id])
    vocabulary = build_vocabulary(training)
    write_model_folder(root / "model", vocabulary, settings.dropout)
    write_how2(world, root, narration, WordPiece(vocabulary), track)
    write_videos(world, root, track)
    write_msrvtt(world, root, track)
    write_youcook(world, root)
    write_downstream(world, root)
    write_actions(world, root)
    write_modalities(world, root, track)
    write_json(root / TRUTH, dict(_truth(world, narration)))


def _truth(world: World, narration: dict[str, list[Sentence]]) -> Iterable[tuple[str, dict]]:
    for split in ("train", "val", "labelled", "test"):
        for video in world.videos(split):
            if split == "test":
                pairs = zip(video.segments, world.captions(video), strict=True)
                sentences = [
                    Sentence(text, float(shown.start_s), float(shown.end_s), i)
                    for i, (shown, text) in enumerate(pairs)
                ]
            else:
                sentences = narration.get(video.id) or world.narration(video)
            yield video.id, truth_entry(video, sentences)


def _identity(settings: Settings) -> dict:
    return {"version": WORLD_VERSION, "fingerprint": settings.fingerprint()}


def _sizes(root: Path) -> dict[str, int]:
    return {
        path.relative_to(root).as_posix(): path.stat().st_size
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system frees it when the process ends, however it ends."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
