"""Soft-DTW and OTAM (both directions), forward and backward, against the cell-by-cell loop they are published
as, and against tslearn.

    python benchmarks/alignment.py                        # all sizes, a Markdown table
    python benchmarks/alignment.py --sizes 4096x8x8 --rounds 9 --record alignment

Time is the process CPU time, the implementations of a size interleaved in one process; a ratio is the median
over the rounds of the ratio within a round. The loop writes cell after cell into one table, so its backward
pass copies the gradient of the whole table once a cell: from `--long` squared cells on it runs in the first
round only (a minute at the largest size). tslearn gets the costs ready, as ours does.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import command_line, publish, threads
from mmpt.ops.alignment import otam, soft_dtw

SMOOTHING = 0.1
SIZES = [
    "512x5x5",
    "32x7x70",
    "4096x8x8",
    "256x64x64",
    "4096x32x32",
]  # the first two: a pre-training and a localisation step of TempCLR
Aligner = Callable[[Tensor], Tensor]


def softmin(*ways: Tensor) -> Tensor:
    return -SMOOTHING * torch.logsumexp(torch.stack(ways) / -SMOOTHING, 0)


def loop_dtw(cost: Tensor) -> Tensor:
    """(N, R, C) -> (N,), the recurrence as written."""
    table = torch.zeros_like(cost)
    for i in range(cost.shape[1]):
        for j in range(cost.shape[2]):
            if i == 0 or j == 0:
                before = table[:, i - 1, j] if i else table[:, i, j - 1] if j else 0.0
            else:
                before = softmin(table[:, i - 1, j - 1], table[:, i, j - 1], table[:, i - 1, j])
            table[:, i, j] = cost[:, i, j] + before
    return table[:, -1, -1]


def loop_otam(cost: Tensor) -> Tensor:
    """(N, R, C) -> (N,), one direction, the recurrence as written."""
    padded = F.pad(cost, (1, 1))
    table = torch.zeros_like(padded)
    last = padded.shape[2] - 1
    for m in range(1, last + 1):
        table[:, 0, m] = padded[:, 0, m] + table[:, 0, m - 1]
    for l in range(1, padded.shape[1]):  # noqa: E741
        for m in range(1, last + 1):
            ways = [table[:, l - 1, m - 1], table[:, l, m - 1]] + (
                [table[:, l - 1, m]] if m in (1, last) else []
            )
            table[:, l, m] = padded[:, l, m] + softmin(*ways)
    return table[:, -1, -1]


def implementations(metric: str) -> dict[str, Aligner]:
    installed = importlib.util.find_spec
    ours = soft_dtw if metric == "dtw" else partial(otam, both=True)
    found = {"loop": loop_dtw if metric == "dtw" else lambda cost: loop_otam(cost) + loop_otam(cost.mT)}
    found["torch"] = partial(ours, smoothing=SMOOTHING, backend="torch")
    if installed("numba"):
        found["numba"] = partial(ours, smoothing=SMOOTHING, backend="numba")
    if metric == "dtw" and installed("tslearn"):
        from tslearn.metrics import SoftDTWLossPyTorch

        distance = SoftDTWLossPyTorch(gamma=SMOOTHING, dist_func=lambda cost, _: cost * 1)
        found["tslearn"] = lambda cost: distance(cost, cost)
    return found


def costs(count: int, rows: int, cols: int) -> Tensor:
    return 2 * torch.rand(count, rows, cols, generator=torch.Generator().manual_seed(0))


def step(align: Aligner, cost: Tensor) -> tuple[float, Tensor, Tensor]:
    """CPU seconds of forward and backward, value, gradient."""
    cost = cost.clone().requires_grad_()
    start = time.process_time()
    value = align(cost)
    value.sum().backward()
    return time.process_time() - start, value.detach(), cost.grad


def measure(metric: str, count: int, rows: int, cols: int, rounds: int, long: float) -> dict[str, float]:
    cost, slow = costs(count, rows, cols), count * (rows * cols) ** 2 > long
    aligners = implementations(metric)
    times: dict[str, list[float]] = {name: [] for name in aligners}
    for name, align in aligners.items():
        step(align, cost[:4] if name == "loop" else cost)  # warm-up: compilation, first allocations
    for number in range(rounds):
        for name, align in aligners.items():
            if name != "loop" or number == 0 or not slow:
                times[name].append(step(align, cost)[0])
    result = {"metric": metric, "size": f"{count}x{rows}x{cols}"}
    for name, values in times.items():
        result[f"{name}_ms"] = 1e3 * statistics.median(values)
        for ours in {"torch", "numba"} & aligners.keys() - {name}:
            result[f"{ours}_over_{name}"] = statistics.median(
                other / own for other, own in zip(values, times[ours], strict=False)
            )
    return result | accuracy(metric, cost[:64])


def accuracy(metric: str, cost: Tensor) -> dict[str, float]:
    """Largest relative errors of float32 values and gradients against float64."""
    aligners = implementations(metric)
    _, value, grad = step(aligners["torch"], cost.double())
    result = {}
    for name in {"torch", "numba"} & aligners.keys():
        _, ours, ours_grad = step(aligners[name], cost)
        result[f"{name}_value_error"] = ((ours - value).norm() / value.norm()).item()
        result[f"{name}_gradient_error"] = ((ours_grad - grad).norm() / grad.norm()).item()
    return result


COLUMNS = {
    "measure": "metric",
    "matrices": "size",
    "loop, ms": "loop_ms",
    "torch, ms": "torch_ms",
    "numba, ms": "numba_ms",
    "tslearn, ms": "tslearn_ms",
    "loop / torch": "torch_over_loop",
    "loop / numba": "numba_over_loop",
    "tslearn / torch": "torch_over_tslearn",
    "tslearn / numba": "numba_over_tslearn",
}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="count x rows x columns")
    parser.add_argument("--metrics", nargs="+", default=["dtw", "otam"], choices=["dtw", "otam"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--long", type=float, default=2e8, help="matrices times squared cells from which the loop runs once"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if importlib.util.find_spec("numba"):
        import numba

        numba.set_num_threads(args.threads)  # for tslearn, which would take all cores
    found = [
        measure(metric, *map(int, size.split("x")), args.rounds, args.long)
        for metric in args.metrics
        for size in args.sizes
    ]
    rows = [[row.get(key, "-") for key in COLUMNS.values()] for row in found]
    title = "Alignment, forward and backward, float32, CPU time"
    publish(args.record, {title: [list(COLUMNS), *rows]}, found, setting=threads(args.threads))


if __name__ == "__main__":
    main()
