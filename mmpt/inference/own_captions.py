"""Which captions belong to which video of a folder, where people have them lie about as they please.

Captions are a folder, a file with those of many videos, or a pattern: `subs/*.en.vtt`, `subs/{id}/en.srt`.
A folder may hold files of one video each, by the names that `mmpt captions` knows, and tables of many.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmpt.processors.captions.readers import (
    LANGUAGE,
    SUFFIXES,
    Clips,
    check_captions,
    read_captions,
    video_id_of,
)

log = logging.getLogger(__name__)
TABLES = {".json", ".jsonl", ".csv", ".pkl", ".gz"}  # may hold the captions of many videos
NAMED = 3


class NoCaptions(ValueError):
    """A video has no captions that can be used; the message says why."""


class OwnCaptions:
    """Captions of the videos of a folder.

    Args:
        source: folder, file or pattern; see above.
        videos: id -> file of the videos.
        language: take files `<id>.<language>.vtt` only, such as "en"; files without a language count as any.

    Raises:
        FileNotFoundError: there is nothing at `source`.
        ValueError: no file there is of any of the videos.
    """

    def __init__(self, source: str | Path, videos: Mapping[str, Path], language: str | None = None):
        self.source, self.language = str(source), language
        # yt-dlp puts the id in brackets behind the title
        self.ids = {name: {name, video_id_of(file)} for name, file in videos.items()}
        self.files: dict[str, list[Path]] = {}
        self.tables: dict[str, tuple[Path, Clips]] = {}
        self.ignored: dict[Path, str] = {}
        wanted = {key for keys in self.ids.values() for key in keys}
        if "{id}" in self.source:
            for key in wanted:
                path = Path(self.source.replace("{id}", key))
                if path.is_file():
                    self.files[key] = [path]
        else:
            self._take(self._listed(), wanted)
        if not self.files.keys() | self.tables.keys():
            there = [path.name for path in self._listed()][:NAMED] if "{id}" not in self.source else []
            seen = f" It holds {', '.join(there)}." if there else ""
            why = "".join(f" {path.name}: {reason}" for path, reason in list(self.ignored.items())[:NAMED])
            raise ValueError(
                f"{self.source}: no captions of these videos ({', '.join(list(videos)[:NAMED])}, ...).{seen}"
                f"{why} Expected <id>.vtt, <id>.en.srt and the like, a table with a column video_id, or a "
                "pattern with {id}."
            )

    def _listed(self) -> list[Path]:
        path = Path(self.source)
        if path.is_file():
            return [path]
        if path.is_dir():
            found = [file for pattern in ("*", "*/*") for file in path.glob(pattern)]
        else:
            found = [Path(name) for name in glob.glob(self.source, recursive=True)]
            if not found:
                raise FileNotFoundError(f"{self.source}: neither a file, a folder nor a pattern of files.")
        return sorted(file for file in found if file.suffix.lower() in SUFFIXES and file.is_file())

    def _take(self, paths: Iterable[Path], wanted: set[str]) -> None:
        for path in paths:
            try:
                name = video_id_of(path)
            except ValueError as error:
                self.ignored[path] = str(error)
                continue
            if name in wanted:
                self.files.setdefault(name, []).append(path)
            elif path.suffix.lower() in TABLES:
                try:
                    found = read_captions(path)
                except ValueError as error:
                    self.ignored[path] = str(error)
                    continue
                self.tables |= {key: (path, clips) for key, clips in found.items() if key in wanted}

    def of(self, video_id: str, length_s: float) -> tuple[Path, Clips, list[str]]:
        """File, captions and what was wrong with single ones, which are left out.

        Args:
            video_id: id.
            length_s: seconds of the video.

        Raises:
            NoCaptions: there are none, none of the language, several files, or none that can be.
        """
        keys = self.ids[video_id]
        paths = [path for key in keys for path in self.files.get(key, [])]
        if self.language is not None:
            kept = [path for path in paths if language_of(path) in (None, self.language)]
            if paths and not kept:
                there = ", ".join(sorted({str(language_of(path)) for path in paths}))
                raise NoCaptions(f"has captions in {there} only, and --language {self.language} is asked for")
            paths = [path for path in kept if language_of(path)] or kept
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths[:NAMED])
            raise NoCaptions(
                f"has {len(paths)} files of captions ({names}); choose by --language or a pattern"
            )
        if paths:
            path = paths[0]
            try:
                found = read_captions(path)
            except ValueError as error:
                raise NoCaptions(str(error)) from error
            clips = found.get(video_id) or next(iter(found.values()))
        elif table := next((self.tables[key] for key in keys if key in self.tables), None):
            path, clips = table
        else:
            raise NoCaptions(f"no captions in {self.source}")
        checked, wrong = check_captions({video_id: clips}, {video_id: length_s}, on_bad="drop")
        if not checked[video_id]["text"]:
            why = "; ".join(next(iter(wrong.values()), ["it is empty, as of a video without speech"])[:NAMED])
            raise NoCaptions(f"{path.name} holds no caption that can be used: {why}")
        return path, checked[video_id], wrong.get(video_id, [])


def language_of(path: Path) -> str | None:
    """`en` of <id>.en.vtt; None where the name says none."""
    found = LANGUAGE.search(path.stem)
    return found[0][1:].split("-")[0] if found else None
