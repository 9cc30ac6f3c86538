"""Feature extraction against the plain loop that reads, encodes and stores one video after the other.

    python benchmarks/extraction.py                   # a tiny network, where decoding decides
    python benchmarks/extraction.py --network s3d     # the real one, where the network decides

Both run on the same videos (made here: H.264, 30 frames per second), the same frames by time stamp, the same network. `plain` decodes as
PyAV does by default, turns every frame it meets into RGB at full size, and scales what it keeps; `plain, tuned` uses this project's reader,
which scales in the decoder's colour space and only what it keeps, but still waits for each step; `mmpt` is what extract.py does.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmpt.models import S3D  # noqa: E402
from mmpt.models.backbones import VideoFeatures  # noqa: E402
from mmpt.models.extraction import Job, extract  # noqa: E402
from mmpt.utils.video import read_seconds  # noqa: E402


class Means(nn.Module):
    """Colours of a coarse grid: next to no work."""

    def forward(self, clips: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool3d(clips, (1, 4, 4)).flatten(1)


def write_video(path: Path, n_seconds: int, size: tuple[int, int], seed: int) -> None:
    """Smooth moving colours with some noise, as hard to decode as footage of that size."""
    rng, (width, height) = np.random.default_rng(seed), size
    picture = np.kron(rng.integers(0, 255, (height // 20, width // 20, 3)), np.ones((40, 40, 1))).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(30 * n_seconds):
            shown = np.roll(picture, (3 * i, 2 * i), axis=(0, 1))[:height, :width]
            noisy = shown // 2 + rng.integers(0, 60, (height, width, 1), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(noisy), format="rgb24")))
        container.mux(stream.encode())


def plain_seconds(path: Path, fps: int, size: int) -> Tensor:
    """The whole video as (seconds, FPS, S, S, 3) uint8, as a first script would read it."""
    kept, shown, count = [], None, 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            while shown is not None and count / fps < frame.time - 1e-6:
                kept.append(shown)
                count += 1
            shown = image
    kept += [shown] * (-len(kept) % fps)
    frames = []
    for image in kept:
        scale = size / min(image.shape[1:])
        target = [max(size, round(side * scale)) for side in image.shape[1:]]
        scaled = nn.functional.interpolate(image[None].float(), target, mode="bilinear", antialias=True)[0]
        top, left = ((side - size) // 2 for side in scaled.shape[1:])
        frames.append(scaled[:, top : top + size, left : left + size].round().byte())
    return torch.stack(frames).permute(0, 2, 3, 1).unflatten(0, (-1, fps))


def plain(jobs: list[Job], network: nn.Module, out: Path, fps: int, size: int, batch_size: int, tuned: bool) -> None:
    """One video after the other."""
    for job in jobs:
        if tuned:
            clips = torch.from_numpy(np.concatenate(list(read_seconds(job.path, fps, size))))
        else:
            clips = plain_seconds(job.path, fps, size)
        features = torch.cat([network(part) for part in clips.split(batch_size)])
        np.save(out / f"{job.video_id}.npy", features.half().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("means", "s3d"), default="means")
    parser.add_argument("--fps", type=int, help="frames per second (default: 4 for means, 30 for s3d)")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=10, help="length of the shortest video; the longest has twice as many")
    parser.add_argument("--frame-size", type=int, nargs=2, default=(1280, 720), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3, help="the best run counts")
    args = parser.parse_args()
    fps = args.fps or {"means": 4, "s3d": 30}[args.network]
    network = VideoFeatures({"means": Means, "s3d": S3D}[args.network]()).eval()
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for n in range(args.videos):
            jobs.append(Job(f"v{n}", Path(folder) / f"v{n}.mp4"))
            write_video(jobs[-1].path, args.seconds + n * args.seconds // max(1, args.videos - 1), tuple(args.frame_size), seed=n)
        n_threads = len(os.sched_getaffinity(0))
        read = partial(read_seconds, fps=fps, size=args.size, n_threads=1)
        ways = {
            "plain": lambda out: plain(jobs, network, out, fps, args.size, args.batch_size, tuned=False),
            "plain, tuned": lambda out: plain(jobs, network, out, fps, args.size, args.batch_size, tuned=True),
            "mmpt": lambda out: extract(jobs, read, network, out, args.batch_size, n_threads),
        }
        width, height = args.frame_size
        print(f"{args.network}, {fps} frames per second of {width} x {height}, {n_threads} cores, {args.videos} videos")
        base = None
        for name, run in ways.items():
            times, cpu = [], []
            for repeat in range(args.repeats):
                out = Path(folder) / f"{name}{repeat}"
                out.mkdir()
                start, cpu_start = time.perf_counter(), time.process_time()
                run(out)
                times.append(time.perf_counter() - start)
                cpu.append(time.process_time() - cpu_start)
            seconds = sum(len(np.load(path)) for path in out.glob("*.npy"))
            base = base or min(times)
            print(f"{name:14} {seconds / min(times):8.2f} s of footage per s   {base / min(times):5.2f}x   {min(cpu):6.1f} s of CPU time")


if __name__ == "__main__":
    main()
