"""Small videos with sound: frames and sound tell of each other, and of the direction of time.

A bar rises or falls over a coloured ground while a tone plays: the colour sets its pitch, the bar bends it.
`projects/toy/raw_av.yaml` trains on them.

Beside the videos lie annotations with captions and what is heard (<split>.json) and with questions
(<split>_questions.json), and a folder `model` with sizes and vocabulary of a small BERT that reads them:
`projects/toy/gram/raw.yaml` trains GRAM on these. In `howto` the captions lie as those of HowTo100M do,
with a small table of word vectors: `projects/toy/raw_text.yaml` trains GDT on frames and words.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.synthetic.vocabulary import build_vocabulary, write_model_folder
from mmpt.synthetic.write import write_json, write_lines
from mmpt.utils import optional_import

FPS, WIDTH, HEIGHT, BAR = 8, 64, 48, 10
RATE = 8000
WORD_WIDTH = 32
LOWEST_HZ, COLOUR_OCTAVES, BAR_OCTAVES = 200, 3, 0.5
COLOURS = ("red", "yellow", "green", "cyan", "blue", "purple")
PITCHES = ("deepest", "deep", "middle", "raised", "high", "highest")  # of the colours
TEXTS = ("caption", "vision_cap", "audio_cap", "subtitle")
COLOUR_QUESTION, BAR_QUESTION = "which colour is it", "what does the bar do"


def write_clips(out: Path, videos: int = 64, seconds: int = 6, seed: int = 0) -> dict[Path, int]:
    """Folders `train` and, a quarter as large, `val`, with what is said of them; how many each holds."""
    written = {}
    for number, (split, count) in enumerate({"train": videos, "val": max(1, videos // 4)}.items()):
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            write_clip(folder / f"{split}{n:03}.mkv", np.random.default_rng((seed, number, n)), seconds)
            for n in range(count)
        ]
        keys = {f"{split}.json": TEXTS, f"{split}_questions.json": ("question", "answer")}
        for name, kept in keys.items():
            write_json(out / name, [{key: row[key] for key in ("video_id", *kept)} for row in rows])
        written[folder] = count
        _write_howto(out / "howto", split, rows, seconds)
    _write_words(out / "howto", seed)
    if not (out / "model").exists():
        write_model_folder(out / "model", build_vocabulary(_all_texts()), dropout=0.0)
    return written


def write_clip(path: Path, rng: np.random.Generator, n_seconds: int) -> dict[str, str | list[str]]:
    """One video with its sound, drawn from `rng`; returns what is to be said about it."""
    hue, phase, speed = rng.uniform(size=2).tolist() + [rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)]
    places = (
        phase + speed * np.arange(n_seconds * RATE) / RATE
    ) % 1  # of the bar, 0 above and 1 below, for every sample of the sound
    encode(path, [_picture(place, hue) for place in places[:: RATE // FPS]], _tone(places, hue))
    return {"video_id": f"{path.parent.name}/{path.stem}", **_texts(round(hue * len(COLOURS)), speed > 0)}


def encode(path: Path, pictures: Sequence[np.ndarray], sound: np.ndarray) -> None:
    """A video file of pictures (H, W, 3) uint8, FPS a second, and of sound (samples,) int16."""
    av = optional_import("av", extra="video")
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for number, picture in enumerate(pictures):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            first = number * RATE // FPS
            piece = av.AudioFrame.from_ndarray(
                sound[None, first : first + RATE // FPS], format="s16", layout="mono"
            )
            piece.sample_rate, piece.pts = RATE, first
            container.mux(audio.encode(piece))
        container.mux([*video.encode(), *audio.encode()])


def _texts(colour: int, falls: bool) -> dict[str, str | list[str]]:
    """Captions, what is heard, questions and answers."""
    name, pitch, bar = (
        COLOURS[colour % len(COLOURS)],
        PITCHES[colour % len(PITCHES)],
        "falls" if falls else "rises",
    )
    return {
        "caption": [f"the bar {bar} on {name}", f"{name} with a bar that {bar}"],
        "vision_cap": [f"a bar on {name}"],
        "audio_cap": [f"a {pitch} tone"],
        "subtitle": f"a tone of the {pitch} kind",
        "question": [COLOUR_QUESTION, BAR_QUESTION],
        "answer": [name, f"it {bar}"],
    }


def _write_howto(out: Path, split: str, rows: Sequence[Mapping[str, Any]], seconds: int) -> None:
    """<split>.csv of ids, and captions/<id>.csv: every two seconds one of the captions."""
    (out / "captions" / split).mkdir(parents=True, exist_ok=True)
    write_lines(out / f"{split}.csv", ["video_id", *(row["video_id"] for row in rows)])
    for row in rows:
        said = [
            f"{start},{min(start + 2, seconds)},{row['caption'][start // 2 % len(row['caption'])]}"
            for start in range(0, seconds, 2)
        ]
        write_lines(out / "captions" / f"{row['video_id']}.csv", ["start,end,text", *said])


def _write_words(out: Path, seed: int) -> None:
    """dict.npy, the words of all captions, and word2vec.pth, a vector for each behind a row of zeros."""
    import torch

    words = sorted({word for text in _all_texts() for word in text.split()})
    table = np.random.default_rng((seed, len(words))).standard_normal(
        (len(words) + 1, WORD_WIDTH), np.float32
    )
    table[0] = 0
    np.save(out / "dict.npy", np.array(words))
    torch.save(torch.from_numpy(table), out / "word2vec.pth")


def _all_texts() -> list[str]:
    found = [_texts(colour, falls) for colour in range(len(COLOURS)) for falls in (False, True)]
    values = [value for texts in found for value in texts.values()]
    return [text for value in values for text in ([value] if isinstance(value, str) else value)]


def _tone(places: np.ndarray, hue: float) -> np.ndarray:
    """(samples,) int16."""
    pitch = LOWEST_HZ * 2 ** (COLOUR_OCTAVES * hue - BAR_OCTAVES * places)
    return (8000 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)).astype(np.int16)


def _picture(place: float, hue: float) -> np.ndarray:
    """(H, W, 3) uint8."""
    picture = ground(hue, HEIGHT, WIDTH)
    top = round(place * (HEIGHT - BAR))
    picture[top : top + BAR] = 255
    return picture


def ground(hue: float, height: int, width: int) -> np.ndarray:
    """One colour everywhere, (height, width, 3) uint8."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = 200 * np.array(colorsys.hsv_to_rgb(hue, 1, 1))
    return picture
