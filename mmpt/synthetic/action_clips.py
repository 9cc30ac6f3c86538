"""Small labelled videos with sound, in the layout of UCF101.

A bar or a column falls or rises while a tone sweeps with it; shape and direction are the class.

    videos/BarFalls/v_BarFalls_g01_c01.mkv
    splits/classInd.txt, splits/trainlist01.txt, splits/testlist01.txt, ... 03
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from mmpt.synthetic.clips import FPS, RATE, encode, ground
from mmpt.synthetic.write import write_lines

SIDE, LONG, SHORT = 48, 40, 10
GROUND = 60  # gray
N_SPLITS = 3
SHAPES, WAYS = ("Bar", "Column"), ("Falls", "Rises")
CLASSES = tuple(f"{shape}{way}" for shape, way in itertools.product(SHAPES, WAYS))
LOWEST_HZ, OCTAVES = 300, 1.5


def write_action_clips(out: Path, videos: int = 12, seconds: int = 2, seed: int = 0) -> int:
    """Folders `videos` and `splits`; every third video of a class is a test video of a split.

    Args:
        out: folder.
        videos: of each class, at least 3.
        seconds: of each.
        seed: of the draws.

    Returns:
        How many videos there are.
    """
    splits = out / "splits"
    splits.mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[str]] = {}
    for number, name in enumerate(CLASSES):
        folder = out / "videos" / name
        folder.mkdir(parents=True, exist_ok=True)
        for group in range(videos):
            file = f"v_{name}_g{group + 1:02}_c01.mkv"
            _write(folder / file, name, np.random.default_rng((seed, number, group)), seconds)
            for split in range(N_SPLITS):
                kind = "test" if group % N_SPLITS == split else "train"
                line = f"{name}/{file}" + (f" {number + 1}" if kind == "train" else "")
                lists.setdefault(f"{kind}list{split + 1:02}.txt", []).append(line)
    lists["classInd.txt"] = [f"{number} {name}" for number, name in enumerate(CLASSES, 1)]
    for file, lines in lists.items():
        write_lines(splits / file, lines)
    return videos * len(CLASSES)


def _write(path: Path, name: str, rng: np.random.Generator, seconds: int) -> None:
    hue, place, phase = rng.uniform(size=3)
    n_frames, n_samples = seconds * FPS, seconds * RATE
    height, width = (SHORT, LONG) if name.startswith("Bar") else (LONG // 2, SHORT)
    way = np.linspace(0, 1, n_frames) * rng.uniform(0.8, 1.0)
    tops = ((way if name.endswith("Falls") else 1 - way) * (SIDE - height)).round().astype(int)
    left = round(place * (SIDE - width))
    pictures = []
    for top in tops:
        picture = np.full((SIDE, SIDE, 3), GROUND, np.uint8)
        picture[top : top + height, left : left + width] = ground(hue, height, width) // 2 + 127
        pictures.append(picture)
    pitch = np.interp(np.linspace(0, n_frames - 1, n_samples), np.arange(n_frames), 1 - tops / SIDE)
    hertz = LOWEST_HZ * 2 ** (OCTAVES * pitch)
    sound = 8000 * np.sin(2 * np.pi * (phase + np.cumsum(hertz) / RATE))
    encode(path, pictures, sound.astype(np.int16))
