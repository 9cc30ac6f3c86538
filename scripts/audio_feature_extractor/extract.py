"""Audio tracks -> one feature vector per second, `<id>.npy`.

    python scripts/audio_feature_extractor/extract.py videos/ data/feat/feat_mine_audio --weights pretrained_models/gdt.pth

reads a folder of videos or audio files (or a csv with a column `path`) and writes (seconds, 512) float16 arrays and `passport.json`. Run it
again after a kill and it goes on; `failed_<rank>.tsv` lists files without a usable audio track.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mmpt.models.backbones import AUDIO_RATE, audio_backbone
from mmpt.models.extraction import AUDIO_SUFFIXES, check_passport, extract, list_jobs, share
from mmpt.utils import atomic_write
from mmpt.utils.audio import read_audio


def read_waveforms(path: Path) -> Iterator[np.ndarray]:
    """(seconds, AUDIO_RATE) int16, the last second filled up with silence."""
    wave = read_audio(path, AUDIO_RATE)
    yield np.pad(wave, (0, -len(wave) % AUDIO_RATE)).reshape(-1, AUDIO_RATE)


def parser() -> argparse.ArgumentParser:
    """Command line."""
    p = argparse.ArgumentParser(description="Audio tracks -> one feature vector per second.")
    p.add_argument("files", type=Path, help="folder of videos or audio files, or csv with a column path and optionally video_id")
    p.add_argument("features", type=Path, help="folder for <id>.npy")
    p.add_argument("--weights", type=Path, required=True, help="GDT or STiCA checkpoint, or the audio network alone")
    p.add_argument("--filters", type=int, default=40, choices=(40, 257), help="mel filters the network was trained on")
    p.add_argument("--batch-size", type=int, default=64, help="seconds per pass through the network")
    p.add_argument("--threads", type=int, default=2, help="files read at the same time")
    p.add_argument("--dtype", default="float16", choices=("float16", "float32"), help="of the stored features")
    p.add_argument("--normalise", action=argparse.BooleanOptionalAction, default=True, help="scale features to unit length")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where the network runs")
    p.add_argument("--rank", type=int, default=0, help="number of this process")
    p.add_argument("--world-size", type=int, default=1, help="number of processes")
    return p


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    try:
        backbone = audio_backbone(args.weights, args.filters, args.normalise, args.device)
        jobs = share(list_jobs(args.files, AUDIO_SUFFIXES), args.rank, args.world_size)
        check_passport(args.features, backbone.passport)
        with tqdm(total=len(jobs), unit="file") as bar:
            options = args.batch_size, args.threads, args.dtype
            result = extract(jobs, read_waveforms, backbone.network, args.features, *options, on_file=lambda job, clips: bar.update())
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))
    with atomic_write(args.features / f"failed_{args.rank}.tsv", "w") as file:
        file.writelines(f"{video}\t{reason}\n" for video, reason in result.failed.items())
    print(f"{args.features}: {len(result.done)} extracted, {len(result.skipped)} were there, {len(result.failed)} failed")


if __name__ == "__main__":
    main()
