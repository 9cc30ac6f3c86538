"""HTM_zoo: features of HowTo100M by later backbones, one file per video, beside WhisperX subtitles.

<part>/<video>.pth.tar    a tensor (seconds, D) written by torch.save; no tar in spite of its name
<video>.npz, <video>.npy  the same as an array

InternVideo-MM-L14 and CLIP ViT-L/14 have one vector of 768 numbers a second, in half precision, not of unit
length. The subtitles are WhisperX's JSON, which `mmpt captions` reads. Source: the Temporal Alignment Network
project (Han et al., CVPR 2022).
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mmpt.processors.convert import listed, write_json
from mmpt.processors.store.passport import PASSPORT
from mmpt.utils.files import atomic_write
from mmpt.utils.shardedtensor import load_npz, open_npy

logger = logging.getLogger(__name__)
SUFFIXES = (".pth.tar", ".pth", ".pt", ".npz", ".npy")
NAMES = {"internvideo": "InternVideo-MM-L14", "clip": "CLIP ViT-L/14"}


def convert(
    source: Path,
    out: Path,
    *,
    kind: Literal["internvideo", "clip", "other"] = "internvideo",
    rate: float = 1.0,
) -> str:
    """A folder of HTM_zoo's files, and of the folders in it, -> <out>/<video>.npy of unit rows with
    passport.json.

    Args:
        kind: which network made them
        rate: vectors per second
    """
    files = {name: path for path in sorted(source.rglob("*")) if (name := video_of(path)) is not None}
    if not files:
        raise ValueError(f"{source}: no file ends with {', '.join(SUFFIXES)}.")
    out.mkdir(parents=True, exist_ok=True)
    left_out: Counter[str] = Counter()
    widths: Counter[int] = Counter()
    for video, path in files.items():
        if (out / f"{video}.npy").exists():
            left_out["there already"] += 1
            continue
        try:
            rows = read_rows(path)
        except ValueError as error:
            logger.warning("%s; left out", error)
            left_out["not readable"] += 1
            continue
        widths[rows.shape[1]] += 1
        with atomic_write(out / f"{video}.npy") as file:
            np.save(file, unit_rows(rows).astype(np.float16))
    if len(widths) > 1:
        raise ValueError(
            f"{source}: features of several widths {dict(widths)}; convert one kind into one folder."
        )
    passport = {
        "backbone": NAMES.get(kind, kind),
        "source": "HTM_zoo",
        "seconds_per_feature": 1 / rate,
        "normalised": True,
        "stored_as": "float16",
    }
    write_json(out / PASSPORT, passport)
    width = next(iter(widths), "?")
    return f"{out}: {sum(widths.values())} videos, {width} numbers a vector; left out: {listed(left_out)}"


def video_of(path: Path) -> str | None:
    """The id of a feature file; None of another file."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    if suffix is None or path.name.endswith(".tar") != (suffix == ".pth.tar"):
        return None
    # some extractors keep the suffix of the video
    return path.name.removesuffix(suffix).removesuffix(".mp4").removesuffix(".webm")


def read_rows(path: Path) -> np.ndarray:
    """(time, D) float32.

    Raises:
        ValueError: the file holds something else, values that are no numbers, or is damaged.
    """
    try:
        if path.suffix == ".npy":
            rows = open_npy(path, any_order=True)
        elif path.suffix == ".npz":
            arrays = load_npz(path)
            if len(arrays) != 1:
                raise ValueError(f"holds the arrays {', '.join(arrays)}, expected one")
            (rows,) = arrays.values()
        else:
            rows = torch.load(path, map_location="cpu", weights_only=True)
            rows = rows.float().numpy() if isinstance(rows, torch.Tensor) else rows
    except Exception as error:  # torch has errors of many kinds for a damaged file
        said = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{path}: not readable ({said})") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or not rows.size or rows.dtype.kind != "f":
        found = getattr(rows, "shape", type(rows).__name__)
        raise ValueError(f"{path}: expected vectors (time, D), got {found}")
    if not np.isfinite(rows.astype(np.float32)).all():
        raise ValueError(f"{path}: holds NaN or infinite values")
    return rows.astype(np.float32)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
