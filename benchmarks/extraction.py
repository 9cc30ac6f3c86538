"""Feature extraction against the plain loop that reads, encodes and stores one video after the other.

    python benchmarks/extraction.py                        # S3D, 30 frames per second
    python benchmarks/extraction.py --networks clip        # a ViT-B/32, 1 frame per second
    python benchmarks/extraction.py --networks means       # next to no network: what reading costs
    python benchmarks/extraction.py --folder my_videos     # on your own videos

`plain` reads a whole video through FFmpeg's filters (fps, scale, crop, RGB) with FFmpeg's own threads, gives
it to the network as it was trained, in batches of that video, and stores the result: what published
extraction scripts do. `mmpt` is what extract.py does, `mmpt, half` the same with `--half`. Every run has a
process of its own; the best of the repeats counts. Weights are random: speed does not depend on them. Without
a folder the videos are made here: H.264 with the frame types and about the bit rate of videos of the web.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import command_line, of_rows, publish, threads
from mmpt.backbones.backbone import VideoFeatures
from mmpt.backbones.external import ImageTower
from mmpt.backbones.folding import for_inference, keep_freed_memory
from mmpt.backbones.r2plus1d import R2Plus1D
from mmpt.backbones.s3d import S3D
from mmpt.extraction.extract import extract
from mmpt.extraction.run import list_jobs
from mmpt.media.video import Damage, probe, read_seconds

PLAIN_BATCH = 16  # seconds


class Means(nn.Module):
    """Colours of a coarse grid: next to no work."""

    def forward(self, clips: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool3d(clips, (1, 4, 4)).flatten(1)


def clip_tower() -> ImageTower:
    """A ViT-B/32 as CLIP has it."""
    import transformers

    config = transformers.CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    model = transformers.CLIPVisionModelWithProjection(config)
    return ImageTower(model, lambda images: model(pixel_values=images).image_embeds)


class Setting(NamedTuple):
    """A network, frames per second, pixels, and seconds per pass in extract.py."""

    build: Callable[[], nn.Module]
    fps: int
    size: int
    batch_size: int


NETWORKS = {
    "s3d": Setting(S3D, 30, 224, 4),
    "r2plus1d": Setting(R2Plus1D, 16, 112, 4),
    "clip": Setting(clip_tower, 1, 224, 16),
    "means": Setting(Means, 4, 224, 16),
}


def write_video(path: Path, n_seconds: int, size: tuple[int, int], seed: int) -> None:
    """A camera that wanders over a textured picture, with a little grain."""
    rng, (width, height) = np.random.default_rng(seed), size
    coarse = rng.integers(40, 190, (height // 40 + 2, width // 40 + 2, 3)).astype(np.uint8)
    smooth = av.VideoFrame.from_ndarray(coarse, format="rgb24").reformat(
        2 * width, 2 * height, interpolation="BICUBIC"
    )
    texture = np.kron(rng.integers(0, 50, (height // 4, width // 4, 1)), np.ones((8, 8, 1))).astype(np.uint8)
    picture = smooth.to_ndarray(format="rgb24")[: len(texture)] // 2 + texture
    grain = rng.integers(0, 15, picture.shape[:2] + (1,), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(30 * n_seconds):
            left, top = int(width / 3 * (1 + np.sin(i / 60 + seed))), int(height / 3 * (1 + np.cos(i / 45)))
            noise_left, noise_top = rng.integers(0, width), rng.integers(0, height)
            seen = (
                picture[top : top + height, left : left + width]
                + grain[noise_top:, noise_left:][:height, :width]
            )
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(seen), format="rgb24"))
            )
        container.mux(stream.encode())


def plain_seconds(path: Path, fps: int, size: int) -> Tensor:
    """The whole video as (seconds, FPS, S, S, 3) uint8, by FFmpeg's filters."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        graph, scale = av.filter.Graph(), f"{size}:-2" if stream.height > stream.width else f"-2:{size}"
        nodes = [graph.add_buffer(template=stream, time_base=stream.time_base)]
        for name, options in (
            ("fps", str(fps)),
            ("scale", scale),
            ("crop", f"{size}:{size}"),
            ("format", "rgb24"),
            ("buffersink", None),
        ):
            nodes.append(graph.add(name, options))
            nodes[-2].link_to(nodes[-1])
        graph.configure()
        frames = []
        for frame in [*container.decode(stream), None]:
            graph.push(frame)
            try:
                while True:
                    frames.append(graph.pull().to_ndarray(format="rgb24"))
            except (av.error.BlockingIOError, av.error.EOFError):
                continue
    frames += [np.zeros_like(frames[0])] * (-len(frames) % fps)
    return torch.from_numpy(np.stack(frames)).unflatten(0, (-1, fps))


def plain(files: Path, setting: Setting) -> Callable[[Path], None]:
    """One video after the other."""
    network = VideoFeatures(setting.build().eval())

    def run(out: Path) -> None:
        for job in list_jobs(files):
            clips = plain_seconds(job.path, setting.fps, setting.size)
            features = torch.cat([network(part) for part in clips.split(PLAIN_BATCH)])
            np.save(out / f"{job.video_id}.npy", features.half().numpy())

    return run


def mmpt(files: Path, setting: Setting, half: bool = False) -> Callable[[Path], None]:
    """What extract.py does."""
    keep_freed_memory()
    network = VideoFeatures(for_inference(setting.build()), half=half)

    def read(path: Path, damage: Damage) -> Iterator[np.ndarray]:
        return read_seconds(path, setting.fps, setting.size, n_threads=1, damage=damage)

    def run(out: Path) -> None:
        if failed := extract(list_jobs(files), read, network, out, setting.batch_size).failed:
            sys.exit(f"error: {len(failed)} videos failed, the first: {next(iter(failed.items()))}")

    return run


WAYS = {"plain": plain, "mmpt": mmpt, "mmpt, half": partial(mmpt, half=True)}


@dataclass(frozen=True)
class Measured:
    """One run: seconds of footage, seconds on the clock, of the processor, and peak memory in GB."""

    footage: int
    wall: float
    cpu: float
    memory: float


def measure(way: str, files: Path, name: str, n_threads: int) -> Measured:
    """Runs one way in this process, which does nothing else."""
    torch.set_num_threads(n_threads)
    run = WAYS[way](files, NETWORKS[name])
    with tempfile.TemporaryDirectory() as out:
        start, cpu_start = time.perf_counter(), time.process_time()
        run(Path(out))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        footage = sum(len(np.load(path)) for path in Path(out).glob("*.npy"))
    return Measured(footage, wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


def in_own_process(*arguments) -> Measured:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def reading_speed(files: Path, fps: int, size: int) -> float:
    """Frames decoded or stepped over, scaled and cropped, per second of one core."""
    jobs, start = list_jobs(files), time.process_time()
    for job in jobs:
        for _ in read_seconds(job.path, fps, size, n_threads=1):
            pass
    return sum(info.duration_s * info.fps for info in (probe(job.path) for job in jobs)) / (
        time.process_time() - start
    )


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--networks", choices=NETWORKS, nargs="+", default=["s3d"])
    parser.add_argument("--folder", type=Path, help="of your own videos")
    parser.add_argument("--videos", type=int, default=6, help="to make")
    parser.add_argument(
        "--seconds", type=int, default=4, help="length of the shortest of them; the longest has twice as many"
    )
    parser.add_argument("--frame-size", type=int, nargs=2, default=(1280, 720), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    n_threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary:
        files = args.folder or Path(temporary)
        for n in range(0 if args.folder else args.videos):
            write_video(
                files / f"v{n}.mp4",
                args.seconds + n * args.seconds // max(1, args.videos - 1),
                tuple(args.frame_size),
                seed=n,
            )
        infos = [(job.path, probe(job.path)) for job in list_jobs(files)]
        rate = np.mean([path.stat().st_size * 8e-6 / info.duration_s for path, info in infos])
        rows = [row for name in args.networks for row in measured(name, files, args, n_threads)]
    title = f"Extraction, {len(infos)} videos of {rate:.1f} Mbit/s, best of {args.repeats}"
    publish(args.record, {title: of_rows(rows)}, rows, setting=threads(n_threads))


def measured(name: str, files: Path, args: argparse.Namespace, n_threads: int) -> list[dict[str, Any]]:
    """A row for each way, and one for reading alone."""
    fps, size = NETWORKS[name].fps, NETWORKS[name].size
    runs: dict[str, list[Measured]] = {way: [] for way in args.ways}
    for _ in range(args.repeats):  # in turn, so that a slow minute of the machine hits all
        for way in args.ways:
            runs[way].append(in_own_process(way, files, name, n_threads))
    best = {way: min(found, key=lambda run: run.wall) for way, found in runs.items()}
    plain = best[args.ways[0]]
    rows = []
    for way, run in best.items():
        row = {"network": f"{name}, {fps} a second", "way": way, "footage / clock": run.footage / run.wall}
        row |= {f"{args.ways[0]} / this, clock": plain.wall / run.wall}
        rows.append(row | {"CPU time": plain.cpu / run.cpu, "CPU, s": run.cpu, "GB": run.memory})
    reading = reading_speed(files, fps, size)
    return [*rows, {"network": f"{name}, {fps} a second", "way": f"reading: {reading:.0f} frames/s a core"}]


if __name__ == "__main__":
    main()
