"""Captions of the tools people use, read into one form: video id -> {"start", "end", "text"}, seconds.

| file | of |
|---|---|
| `<id>.srt`, `<id>.vtt`, `<id>.en.vtt` | subtitles; rolling captions of YouTube are merged |
| `<id>.json3`, `<id>.srv1`, `<id>.xml` | YouTube's own forms, as yt-dlp fetches them |
| `<id>.json` with `segments` | Whisper, WhisperX; words with their times are kept as `words` |
| `.json`, `.json.gz`, pickle: {id: {"start": [..], "end": [..], "text": [..]}} | HowTo100M |
| `.jsonl`: {"video_id", "start", "end", "text"} a line | |
| `.csv`: columns video_id, start, end, text | |
"""

from __future__ import annotations

import html
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmpt.utils.optional import optional_import
from mmpt.utils.safe_pickle import load_plain_pickle
from mmpt.utils.text import (
    SHOWN,
    TextError,
    check_id,
    check_kind,
    check_record,
    number,
    parse_json,
    quoted,
    read_json,
    read_json_lines,
    read_table,
    read_text,
    shown,
)

Clips = dict[str, list]  # start, end in seconds, text; perhaps words
SUFFIXES = {
    ".srt",
    ".vtt",
    ".json3",
    ".srv1",
    ".srv3",
    ".ttml",
    ".xml",
    ".json",
    ".jsonl",
    ".csv",
    ".pkl",
    ".gz",
}
TAGS = re.compile(r"</?[A-Za-z][^<>]*>|\{\\[^}]*\}")  # a < b is none
TIME = r"(-?)(?:(\d+):)?(\d+):(\d+)(?:[.,](\d+))?"  # WebVTT may leave out the hours
TIMES = re.compile(rf"{TIME}\s*-{{1,2}}>\s*{TIME}(?![\w:.,])")
ALMOST = re.compile(r"\w:\w")  # beside an arrow: meant as times
LANGUAGE = re.compile(r"\.[a-z]{2,3}(-[A-Za-z0-9]+)*$")  # of <id>.en.vtt, <id>.zh-Hans.vtt
ROLLING = 0.3  # share of cues that begin with the last line of the one before, in rolling captions
MILLISECONDS = 100  # captions that end so many times later than their video are in milliseconds


def read_captions(path: str | Path) -> dict[str, Clips]:
    """Captions of a file, or of all caption files in a folder.

    Raises:
        ValueError: not a form above, a record of the wrong shape (named), or no captions.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.is_dir():
        return _of_file(path)
    found: dict[str, Clips] = {}
    for file in sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES):
        for video, clips in _of_file(file).items():
            if video in found:
                raise ValueError(
                    f"{file}: captions of {video} are in another file of {path} too; remove one."
                )
            found[video] = clips
    if not found:
        raise ValueError(f"{path}: no caption files; expected {', '.join(sorted(SUFFIXES))}.")
    return found


def _of_file(path: Path) -> dict[str, Clips]:
    kind = path.suffix.lower()
    if kind in (".srt", ".vtt", ".ttml"):
        return {video_id_of(path): _subtitles(path)}
    if kind in (".srv1", ".srv3", ".xml"):
        return {video_id_of(path): _timed_text(path)}
    if kind == ".json3":
        return {video_id_of(path): _json3(path, read_json(path, dict))}
    if kind == ".csv":
        return _of_rows(path, read_table(path, ("video_id", "start", "end", "text")))
    if kind == ".jsonl":
        return _of_rows(path, read_json_lines(path))
    if kind == ".pkl":
        return _of_videos(path, load_plain_pickle(path))
    tree = read_json(path, dict, nan=True)  # HowTo100M has them where nothing is said
    if isinstance(tree.get("segments"), list):
        return {video_id_of(path): _whisper(path, tree["segments"])}
    if isinstance(tree.get("events"), list):
        return {video_id_of(path): _json3(path, tree)}
    return _of_videos(path, tree)


def check_captions(
    captions: Mapping[str, Clips],
    lengths: Mapping[str, float] | None = None,
    on_bad: str = "error",
    behind: str = "wrong",
) -> tuple[dict[str, Clips], dict[str, list[str]]]:
    """Captions in order of their start, with times that can be.

    Args:
        captions: video -> captions.
        lengths: seconds of the videos, where they are known: captions that begin behind the end are found,
            and times in milliseconds.
        on_bad: "error" refuses impossible times, "drop" leaves those captions out.
        behind: "wrong": a caption that begins behind the end of its video is impossible; "keep": it may be,
            as where features were extracted of a part.

    Returns:
        The captions, and video -> what was wrong.

    Raises:
        ValueError: with on_bad="error"; some videos and what is wrong are named.
    """
    checked: dict[str, Clips] = {}
    found: dict[str, list[str]] = {}
    for video, clips in captions.items():
        length = (lengths or {}).get(video, math.inf)
        checked[video], wrong = _checked(clips, length, behind == "keep")
        if wrong:
            found[video] = wrong
    if found and on_bad == "error":
        named = "; ".join(f"{video}: {wrong[0]}" for video, wrong in list(found.items())[:5])
        raise ValueError(
            f"captions of {len(found)} videos have impossible times: {named}. Correct them, or leave such "
            "captions out (--on-bad drop)."
        )
    return checked, found


def out_of_order(captions: Mapping[str, Clips]) -> list[str]:
    """Videos whose captions are not in order of their start."""
    return [
        video
        for video, clips in captions.items()
        if any(later < earlier for earlier, later in itertools.pairwise(clips["start"]))
    ]


def begins_behind(captions: Mapping[str, Clips], lengths: Mapping[str, float]) -> dict[str, int]:
    """Video -> how many of its captions begin behind its end, where there are some."""
    counts = {
        video: sum(start >= lengths[video] for start in clips["start"])
        for video, clips in captions.items()
        if video in lengths
    }
    return {video: count for video, count in counts.items() if count}


def _checked(clips: Clips, length: float, keeps_behind: bool) -> tuple[Clips, list[str]]:
    counts = {key: len(clips[key]) for key in ("start", "end", "text")}
    if len(set(counts.values())) > 1:
        return {"start": [], "end": [], "text": []}, [f"{counts} do not belong together"]
    ends = [end for end in clips["end"] if isinstance(end, (int, float)) and math.isfinite(end)]
    if ends and math.isfinite(length) and length > 0 and max(ends) > MILLISECONDS * length:
        return {"start": [], "end": [], "text": []}, [
            f"captions end at {max(ends):g} s, the video at {length:g} s (milliseconds?)"
        ]
    wrong, kept = [], []
    for index, (start, end) in enumerate(zip(clips["start"], clips["end"], strict=True)):
        if not (math.isfinite(start) and math.isfinite(end)):
            wrong.append(f"caption {index} runs from {start} to {end}")
        elif start < 0 or end < start:
            wrong.append(f"caption {index} runs from {start:g} to {end:g} s")
        elif start >= length and not keeps_behind:
            wrong.append(f"caption {index} begins at {start:g} s, behind the end at {length:g} s")
        else:
            kept.append(index)
    order = sorted(kept, key=lambda index: clips["start"][index])
    return {key: [values[index] for index in order] for key, values in clips.items()}, wrong


def video_id_of(path: Path) -> str:
    """Of <id>.vtt, <id>.en.vtt, and yt-dlp's <title> [<id>].en.vtt."""
    stem = LANGUAGE.sub("", path.stem)
    bracketed = re.search(r"\[([\w-]{11})\]$", stem)
    return check_id(bracketed[1] if bracketed else stem, str(path))


def _subtitles(path: Path) -> Clips:
    pysubs2, text = optional_import("pysubs2", extra="video"), _read_marked(path)
    form = "vtt" if text.startswith("WEBVTT") else path.suffix.lower().removeprefix(".").replace("vtt", "srt")
    text, times = (text, None) if form == "ttml" else _numbered(path, text)
    try:
        # neither times within a line nor a line of blanks, which rolling captions have, begin a cue
        text = re.sub(r"<[\d:.]+>", "", text)
        kept = {} if form == "ttml" else {"keep_html_tags": True, "keep_unknown_html_tags": True}
        cues = pysubs2.SSAFile.from_string(re.sub(r"(?m)^[ \t]+\n", "", text), form, **kept)
    except Exception as error:  # each form of subtitles has a parser with errors of its own
        raise ValueError(
            f"{path}: not a subtitle file ({type(error).__name__}: {shown(str(error))})."
        ) from error
    if times is None:
        spans = [(cue.start / 1000, cue.end / 1000) for cue in cues]
    elif len(cues) == len(times) and (times or form == "vtt"):  # of which a header alone is a file
        spans = [times[cue.start] for cue in cues]
    else:
        raise ValueError(f"{path}: not a subtitle file ({len(times)} lines of times, {len(cues)} captions).")
    texts = [[_plain(line) for line in cue.text.split(r"\N") if _plain(line)] for cue in cues]
    lines = [(*span, said) for span, said in zip(spans, texts, strict=True) if said]
    follows = [second[2][0] == first[2][-1] for first, second in itertools.pairwise(lines)]
    if follows and sum(follows) >= ROLLING * len(follows):
        return _unrolled(lines)
    return _clips((start, end, " ".join(text)) for start, end, text in lines)


def _numbered(path: Path, text: str) -> tuple[str, list[tuple[float, float]]]:
    """The text of a .srt or .vtt file with the number of a cue, in milliseconds, in place of its times; and
    these: parsers overlook signs and third digits of hours, and take a time with a slip of the pen as words.

    Raises:
        TextError: a line looks like times and is none.
    """
    times: list[tuple[float, float]] = []
    lines, point = text.split("\n"), "." if text.startswith("WEBVTT") else ","
    for index, line in enumerate(lines):
        before, arrow, behind = line.strip()[:SHOWN].partition("->")
        found = TIMES.match(before + arrow + behind) if arrow else None
        if found:
            seconds, rest = divmod(len(times), 1000)
            stamp = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"
            times.append((_seconds(found.groups()[:5]), _seconds(found.groups()[5:])))
            lines[index] = f"{stamp} --> {stamp}"
        elif arrow and (any if before.endswith("-") else all)(map(ALMOST.search, (before, behind))):
            raise TextError(
                f"{path}, line {index + 1}: expected times such as 00:00:01,000 --> 00:00:02,000, got "
                f"{quoted(line)}."
            )
    return "\n".join(lines), times


def _seconds(parts: Sequence[str | None]) -> float:
    sign, hours, minutes, seconds, fraction = parts
    whole = 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0)
    return (-1 if sign else 1) * float(f"{whole}.{fraction or 0}")


def _unrolled(cues: list[tuple[float, float, list[str]]]) -> Clips:
    """Rolling captions show each line twice, at the bottom and then above the next one: each line once, from
    when it appears until the next does."""
    kept: list[tuple[float, float, str]] = []
    before: list[str] = []
    for start, end, lines in cues:
        new = [line for line in lines if line not in before]
        if new:
            kept.append((start, end, " ".join(new)))
        elif kept:
            kept[-1] = (kept[-1][0], max(kept[-1][1], end), kept[-1][2])
        before = lines
    return _clips(_until_the_next(kept))


def _until_the_next(captions: list[tuple[float, float, str]]) -> Iterable[tuple[float, float, str]]:
    for (start, end, text), following in zip(captions, [*captions[1:], None], strict=True):
        yield start, min(end, following[0]) if following else end, text


def _timed(captions: list[tuple[float, float, str]]) -> Clips:
    """Captions of YouTube's own forms: automatic ones stay while the next line is said, each until that one
    begins."""
    captions = [caption for caption in captions if caption[2]]
    overlap = [second[0] < first[1] for first, second in itertools.pairwise(captions)]
    rolls = bool(overlap) and sum(overlap) >= ROLLING * len(overlap)
    return _clips(_until_the_next(captions) if rolls else captions)


def _plain(text: str) -> str:
    """Words without tags and line breaks; entities are what they stand for."""
    return " ".join(html.unescape(TAGS.sub("", text)).split())


def _clips(captions: Iterable[tuple[float, float, str]]) -> Clips:
    kept = [(float(start), float(end), text) for start, end, text in captions if text]
    return {
        "start": [start for start, _, _ in kept],
        "end": [end for _, end, _ in kept],
        "text": [text for _, _, text in kept],
    }


def _json3(path: Path, tree: Mapping[str, Any]) -> Clips:
    found = []
    for index, event in enumerate(tree.get("events") or ()):
        where = f"{path}: event {index}"
        parts = check_kind(check_record(event, where).get("segs") or [], list, f"{where}: segs")
        said = [check_record(part, f"{where}: segs").get("utf8", "") for part in parts]
        text = _plain("".join(check_kind(part, str, f"{where}: segs: utf8") for part in said))
        start = number(event.get("tStartMs", 0), f"{where}: tStartMs") / 1000
        found.append(
            (start, start + number(event.get("dDurationMs", 0), f"{where}: dDurationMs") / 1000, text)
        )
    return _timed(found)


def _read_marked(path: Path) -> str:
    """The text of a file that may be XML, whose entities can unfold without end."""
    text = read_text(path)
    if "<!ENTITY" in text:
        raise ValueError(f"{path}: declares entities, which captions need none of.")
    return text


def _timed_text(path: Path) -> Clips:
    try:
        root = ElementTree.fromstring(_read_marked(path))
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not a timed-text file ({error}).") from error
    found = []
    for index, entry in enumerate(root.iter()):
        where = f"{path}: element {index}"
        if entry.tag == "text":  # srv1: seconds
            start = number(entry.get("start"), f"{where}: start")
            end = start + number(entry.get("dur", 0), f"{where}: dur")
        elif entry.tag == "p":  # srv3: milliseconds
            start = number(entry.get("t"), f"{where}: t") / 1000
            end = start + number(entry.get("d", 0), f"{where}: d") / 1000
        else:
            continue
        found.append((start, end, _plain("".join(entry.itertext()))))
    return _timed(found)


def _whisper(path: Path, segments: list[Any]) -> Clips:
    found, words = [], []
    for index, segment in enumerate(segments):
        where = f"{path}: segment {index}"
        text = _plain(check_kind(check_record(segment, where).get("text", ""), str, f"{where}: text"))
        if text:
            start, end = (number(segment.get(key), f"{where}: {key}") for key in ("start", "end"))
            found.append((start, end, text))
            words.append(segment.get("words") or [])
    clips = _clips(found)
    return clips | {"words": words} if any(words) else clips


def _of_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> dict[str, Clips]:
    found: dict[str, list[tuple[float, float, str]]] = {}
    for index, row in enumerate(rows, 1):
        where = f"{path}: row {index}"
        absent = [key for key in ("video_id", "start", "end", "text") if row.get(key) is None]
        if absent:
            raise ValueError(f"{where}: no {', '.join(absent)}.")
        video = check_id(row["video_id"], where)
        start, end = (number(row[key], f"{where}: {key}") for key in ("start", "end"))
        text = _plain(check_kind(row["text"], str, f"{where}: text"))
        found.setdefault(video, []).append((start, end, text))
    return {video: _clips(captions) for video, captions in found.items()}


def _of_videos(path: Path, tree: Any) -> dict[str, Clips]:
    if not isinstance(tree, Mapping) or not tree:
        raise ValueError(f"{path}: expected {{video id: {{start, end, text}}}} with at least one video.")
    found = {}
    for video, clips in tree.items():
        where = f"{path}: video {shown(str(video))}"
        check_id(video, str(path))
        found[video] = captions_of(clips, where)
    return found


def captions_of(clips: Any, where: str) -> Clips:
    """Captions of one video as HowTo100M stores them, {"start": [..], "end": [..], "text": [..]} or its JSON.

    Raises:
        TextError: they are something else.
    """
    if isinstance(clips, str):
        clips = parse_json(clips, where, nan=True)
    check_record(clips, where, start=list, end=list, text=list)
    times = {key: _times(clips[key], f"{where}: {key}") for key in ("start", "end")}
    for index, text in enumerate(clips["text"]):
        if text is not None and text == text:  # HowTo100M has NaN where nothing is said
            check_kind(text, str, f"{where}: text {index}")
    return times | {"text": list(clips["text"])}


def _times(values: list[Any], where: str) -> list[float]:
    """Numbers, quoted or not; NaN is left to `check_captions`."""
    if all(type(value) in (float, int) for value in values):
        return list(values)
    return [number(value, f"{where} {index}", finite=False) for index, value in enumerate(values)]
