"""Evaluation at size: ranks by counting against sorting, full-video alignment against the released
evaluation, N modalities by volume.

    python benchmarks/evaluation.py [--rows 50000] [--videos 60 436]
    python benchmarks/evaluation.py --only modalities --rows 50000

CPU time of this process is compared, because wall time on a shared machine is not worth much; peak memory is
that of a fresh process. The slow sides are measured on a part and scaled up (stated in the output).
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import command_line, publish, seconds, threads
from mmpt.config import EvalConfig
from mmpt.evaluators import FullVideoRetrievalMetric, GramRetrievalMetric
from mmpt.evaluators.paragraphs import Groups, cut_block, query_tiles, video_bins
from mmpt.evaluators.ranking import ScoreMatrix, count_ranks
from mmpt.historic.alignment_costs import dtw_eval_cum_dist, dtw_pad, otam_eval_cum_dist, otam_pad
from mmpt.ops.alignment import dtw, hard_otam

Row = list[Any]  # what, CPU seconds, MiB
WIDTH = 768
GRAM_WIDTH = 512
SORTED_ROWS = 1000
RELEASED_QUERIES = 40


def embeddings(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, WIDTH, generator=generator), torch.randn(rows, WIDTH, generator=generator)


def by_counting(rows: int) -> float:
    """CPU seconds of `count_ranks`."""
    text, video = embeddings(rows)
    return seconds(lambda: count_ranks(ScoreMatrix(queries=text, gallery=video)))


def by_sorting(rows: int) -> float:
    """CPU seconds of the whole score matrix and an argsort of its rows; the sort is scaled up from
    SORTED_ROWS rows."""
    text, video = embeddings(rows)
    start = time.process_time()
    scores = (text @ video.T).numpy()
    multiplied = time.process_time() - start
    part = min(rows, SORTED_ROWS)
    return multiplied + seconds(lambda: np.argsort(scores[:part], axis=1)) * rows / part


def clips(rows: int) -> dict[str, Any]:
    """Embeddings of captions and three modalities, unit rows around a direction per item; a tenth of each
    modality is missing."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(rows, GRAM_WIDTH, generator=generator)
    arrays: dict[str, Any] = {"modalities": ["video", "audio", "subtitle"]}
    for name in ("text", *arrays["modalities"]):
        x = torch.randn(rows, GRAM_WIDTH, generator=generator).add_(common)
        arrays[f"pooled_{name}"] = x.div_(torch.linalg.vector_norm(x, dim=1, keepdim=True))
    present = torch.rand(rows, 3, generator=generator) > 0.1
    present[:, 0] |= ~present.any(1)
    return arrays | {"present": present}


def by_volume(rows: int) -> float:
    """CPU seconds of the whole metric: both directions, alignment report, one subset of three modalities, one
    score."""
    arrays = clips(rows)
    return seconds(lambda: GramRetrievalMetric(EvalConfig(bootstrap=0)).evaluate(**arrays))


def only_clips(rows: int) -> float:
    """The inputs of `by_volume` alone."""
    clips(rows)
    return 0.0


def nothing(rows: int) -> float:
    """The inputs alone, to subtract their memory."""
    embeddings(rows)
    return 0.0


METHODS = {method.__name__: method for method in (by_counting, by_sorting, nothing, by_volume, only_clips)}


def fresh_process(method: str, rows: int) -> tuple[float, float]:
    """CPU seconds and peak memory in MiB of one method in a process of its own."""
    command = [sys.executable, __file__, "--method", method, "--rows", str(rows)]
    taken, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(taken), float(peak)


def compare_ranks(rows: int) -> list[Row]:
    _, inputs = fresh_process("nothing", rows)
    what = {"by_counting": "counting", "by_sorting": "a score matrix and argsort"}
    found = {method: fresh_process(method, rows) for method in what}
    return [
        [f"ranks among {rows:,}, {what[method]}", taken, peak - inputs]
        for method, (taken, peak) in found.items()
    ]


def measure_modalities(rows: int) -> list[Row]:
    _, inputs = fresh_process("only_clips", rows)
    taken, peak = fresh_process("by_volume", rows)
    what = f"retrieval by volume, {rows:,} x {rows:,}, three modalities: both directions, alignment report"
    return [[what, taken, peak - inputs]]


def released_alignment(scores: np.ndarray, edges: np.ndarray, queries: range) -> None:
    """DTW and OTAM (both directions) of some queries with all videos as the released evaluation finds them:
    every pair's block is padded on its own, then all padded blocks go through the recurrence at once."""
    matrix, lengths = torch.from_numpy(scores), torch.from_numpy(np.diff(edges))
    size = (int(lengths.max()),) * 2
    columns = matrix.neg().split(lengths.tolist(), dim=1)
    blocks = []
    for query in queries:
        rows = slice(*edges[query : query + 2])
        blocks += [(block[rows], lengths[query], n) for block, n in zip(columns, lengths, strict=True)]
    dtw_eval_cum_dist(torch.stack([dtw_pad(block, size, *sizes) for block, *sizes in blocks]))
    otam_eval_cum_dist(torch.stack([otam_pad(block, size, *sizes) for block, *sizes in blocks]))
    otam_eval_cum_dist(torch.stack([otam_pad(block.T, size, n, m) for block, m, n in blocks]))


def align_every_pair(scores: np.ndarray, groups: Groups) -> None:
    """DTW and OTAM (both directions) of the videos of `groups`, as the metric does them."""
    matrix = ScoreMatrix(scores)
    for queries in query_tiles(groups, groups):
        rows = matrix[groups.index[queries].flatten()]
        for videos in video_bins(groups):
            block = cut_block(rows, groups, groups, queries, videos)
            dtw(-block.scores.double(), (block.rows, block.cols))
            hard_otam(-block.scores.double(), (block.rows, block.cols), both=True)


def report_every_pair(text: np.ndarray, video: np.ndarray, lengths: np.ndarray) -> None:
    FullVideoRetrievalMetric(EvalConfig(bootstrap=0)).evaluate(
        pooled_text=torch.from_numpy(text),
        pooled_video=torch.from_numpy(video),
        video_ids=np.repeat(np.arange(len(lengths)), lengths),
    )


def compare_full_video(n_videos: int) -> list[Row]:
    """DTW and OTAM (both directions) of all pairs here and as released; then the whole report."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 12, n_videos)  # YouCook2 has 3350 clips in 436 videos
    edges = np.cumsum([0, *lengths])
    text, video = (rng.normal(size=(edges[-1], WIDTH)).astype(np.float32) for _ in range(2))
    scores = text @ video.T
    few = edges[2]  # clips of two videos, on which what is compiled is loaded
    align_every_pair(scores[:few, :few], Groups.from_lengths(lengths[:2]))
    report_every_pair(text[:few], video[:few], lengths[:2])
    batched = seconds(lambda: align_every_pair(scores, Groups.from_lengths(lengths)))
    some = range(min(n_videos, RELEASED_QUERIES))
    with mock.patch.dict(os.environ, {"MMPT_BACKEND": "torch"}):  # nothing released is compiled
        released = seconds(lambda: released_alignment(scores, edges, some)) * n_videos / len(some)
    whole = seconds(lambda: report_every_pair(text, video, lengths))
    pairs = f"DTW and OTAM of {n_videos} x {n_videos} videos of 4 to 11 clips"
    return [
        [pairs, batched, "-"],
        [f"{pairs}, as released (from {len(some)} queries)", released, "-"],
        [
            f"the whole report of {edges[-1]} clips of {n_videos} videos, shift curve included, no intervals",
            whole,
            "-",
        ],
    ]


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=10_000, help="queries and gallery items")
    parser.add_argument("--videos", type=int, nargs="+", default=[60, 436], help="long videos")
    parser.add_argument("--only", choices=("ranks", "videos", "modalities"), help="one part")
    parser.add_argument("--method", choices=METHODS, help="internal: measure one method in this process")
    args = parser.parse_args()
    if args.method:
        print(METHODS[args.method](args.rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    parts = {
        "ranks": lambda: compare_ranks(args.rows),
        "videos": lambda: [row for n in args.videos for row in compare_full_video(n)],
        "modalities": lambda: measure_modalities(args.rows),
    }
    found = [row for part in ([args.only] if args.only else parts) for row in parts[part]()]
    head = ["what", "CPU seconds", "MiB above the inputs"]
    publish(args.record, {"Evaluation": [head, *found]}, found, setting=threads(torch.get_num_threads()))


if __name__ == "__main__":
    main()
