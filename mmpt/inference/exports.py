"""Aligned captions in the formats of other tools.

| name | file | read by |
|---|---|---|
| `srt`, `vtt` | `<id>.srt`, `<id>.vtt` | players, editors |
| `csv` | `captions.csv`: video_id, start, end, mass, text | tables; `mmpt captions` |
| `eaf` | `<id>.eaf` | ELAN |
| `label-studio` | `label_studio.json` | Label Studio: predictions, `<TimelineLabels>` over `<Video>` |
| `fiftyone` | `labels.json` | FiftyOne: FiftyOneTemporalDetectionDataset |
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from xml.etree import ElementTree

from mmpt.inference.align import VideoAlignment
from mmpt.utils import atomic_write, optional_import

LABEL_STUDIO_FPS = 25  # its time line counts frames; videos of another rate are shown with this one


def export(
    kinds: Sequence[str],
    videos: Sequence[VideoAlignment],
    files: Mapping[str, str],
    folder: Path,
    method: str = "dtw",
) -> list[Path]:
    """Writes `<folder>/<kind>/...`.

    Args:
        kinds: names of the table above.
        videos: what to write.
        files: video id -> video file, where there is one.
        folder: where to.
        method: whose spans.

    Returns:
        What was written.

    Raises:
        ValueError: an unknown kind.
    """
    written: list[Path] = []
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"unknown export {kind!r}; known: {', '.join(KINDS)}.")
        written += KINDS[kind](videos, files, folder / kind, method)
    return written


def _subtitles(
    videos: Sequence[VideoAlignment], files: Mapping[str, str], folder: Path, method: str
) -> list[Path]:
    pysubs2 = optional_import("pysubs2", extra="video")
    written = []
    for video in videos:
        cues = pysubs2.SSAFile()
        for row in sorted(video.rows(method), key=lambda row: row["start"]):
            times = (pysubs2.make_time(s=row[key]) for key in ("start", "end"))
            cues.append(pysubs2.SSAEvent(*times, text=_one_line(row["text"])))
        path = folder / f"{video.video_id}.{folder.name}"
        written.append(_write(path, cues.to_string(folder.name)))
    return written


def _csv(videos: Sequence[VideoAlignment], files: Mapping[str, str], folder: Path, method: str) -> list[Path]:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["video_id", "start", "end", "mass", "text"])
    for video in videos:
        for row in video.rows(method):
            mass = "" if row["mass"] is None else f"{row['mass']:.4f}"
            times = (f"{row[key]:g}" for key in ("start", "end"))
            table.writerow([video.video_id, *times, mass, _one_line(row["text"])])
    return [_write(folder / "captions.csv", text.getvalue())]


def _eaf(videos: Sequence[VideoAlignment], files: Mapping[str, str], folder: Path, method: str) -> list[Path]:
    return [_write(folder / f"{v.video_id}.eaf", _eaf_text(v, files.get(v.video_id), method)) for v in videos]


def _eaf_text(video: VideoAlignment, file: str | None, method: str) -> str:
    """ELAN's annotation format 3.0: time slots in milliseconds, a tier `aligned` and a tier `said`."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    about = {"AUTHOR": "mmpt", "DATE": now, "FORMAT": "3.0", "VERSION": "3.0"}
    about["xmlns:xsi"] = "http://www.w3.org/2001/XMLSchema-instance"
    about["xsi:noNamespaceSchemaLocation"] = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
    root = ElementTree.Element("ANNOTATION_DOCUMENT", about)
    header = ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if file is not None:
        kind = {".mp4": "video/mp4", ".webm": "video/webm"}.get(Path(file).suffix.lower(), "video/*")
        ElementTree.SubElement(
            header, "MEDIA_DESCRIPTOR", MEDIA_URL=Path(file).resolve().as_uri(), MIME_TYPE=kind
        )
    spoken = zip(video.captions, video.said, strict=True)
    tiers = {
        "aligned": [(row["start"], row["end"], row["text"]) for row in video.rows(method)],
        "said": [(start, end, text) for text, (start, end) in spoken],
    }
    numbered = list(enumerate((name, row) for name, rows in tiers.items() for row in rows))
    # an annotation owns its slots: shared ones would move together
    ends = sorted((round(1000 * row[side]), number, side) for number, (_, row) in numbered for side in (0, 1))
    order, slots = ElementTree.SubElement(root, "TIME_ORDER"), {}
    for count, (time, number, side) in enumerate(ends, start=1):
        slots[number, side] = f"ts{count}"
        ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=f"ts{count}", TIME_VALUE=str(time))
    tier = {
        name: ElementTree.SubElement(root, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=name)
        for name in tiers
    }
    for number, (name, (_, _, text)) in numbered:
        entry = ElementTree.SubElement(
            ElementTree.SubElement(tier[name], "ANNOTATION"),
            "ALIGNABLE_ANNOTATION",
            ANNOTATION_ID=f"a{number + 1}",
            TIME_SLOT_REF1=slots[number, 0],
            TIME_SLOT_REF2=slots[number, 1],
        )
        ElementTree.SubElement(entry, "ANNOTATION_VALUE").text = _one_line(text)
    ElementTree.SubElement(
        root, "LINGUISTIC_TYPE", LINGUISTIC_TYPE_ID="default-lt", TIME_ALIGNABLE="true",
        GRAPHIC_REFERENCES="false",
    )  # fmt: skip
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _label_studio(
    videos: Sequence[VideoAlignment], files: Mapping[str, str], folder: Path, method: str
) -> list[Path]:
    tasks = []
    for video in videos:
        found = [
            {
                "id": f"s{number}",
                "from_name": "sentence",
                "to_name": "video",
                "type": "timelinelabels",
                "meta": {"text": [_one_line(row["text"])]},
                "score": row["mass"],
                "value": {
                    "ranges": [
                        {
                            "start": 1 + round(row["start"] * LABEL_STUDIO_FPS),
                            "end": max(1, round(row["end"] * LABEL_STUDIO_FPS)),
                        }
                    ],
                    "timelinelabels": [_one_line(row["text"])],
                },
            }
            for number, row in enumerate(video.rows(method))
        ]
        version = str(video.about.get("model", "mmpt"))
        data = {"video": files.get(video.video_id, ""), "video_id": video.video_id}
        tasks.append({"data": data, "predictions": [{"model_version": version, "result": found}]})
    return [_write(folder / "label_studio.json", json.dumps(tasks, indent=1, ensure_ascii=False))]


def _fiftyone(
    videos: Sequence[VideoAlignment], files: Mapping[str, str], folder: Path, method: str
) -> list[Path]:
    labels = {
        video.video_id: [
            {
                "label": _one_line(row["text"]),
                "timestamps": [row["start"], row["end"]],
                "confidence": row["mass"],
                "attributes": {"method": method},
            }
            for row in video.rows(method)
        ]
        for video in videos
    }
    return [_write(folder / "labels.json", json.dumps({"labels": labels}, indent=1, ensure_ascii=False))]


KINDS: dict[str, Callable[[Sequence[VideoAlignment], Mapping[str, str], Path, str], list[Path]]] = {
    "srt": _subtitles,
    "vtt": _subtitles,
    "csv": _csv,
    "eaf": _eaf,
    "label-studio": _label_studio,
    "fiftyone": _fiftyone,
}


def _one_line(text: str) -> str:
    """Without what would end a cue, a row or an XML text early."""
    kept = "".join(letter for letter in text if letter >= " " or letter in "\t\n")
    return " ".join(kept.split()).replace("-->", "->")


def _write(path: Path, text: str) -> Path:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "replace"))
    return path
