"""GRAM loss against the plain published formula: time, peak memory, accuracy.

    python benchmarks/gram.py                       # all sizes, a Markdown table
    python benchmarks/gram.py --sizes 1024 --modalities 3 --rounds 5 --record gram

Time is the process CPU time of loss + backward, interleaved in one process, median of the rounds; memory is
the growth of the peak resident size in a fresh process per measurement. The plain formula builds one Gram
matrix per pair and takes its determinant, once for each of the two cross entropies, as the published training
step does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import command_line, interleaved, publish, status_mib, threads
from mmpt.ops.gram.contrast import volume_cross_entropy

SCALE, SMOOTHING, WIDTH = 1 / 0.07, 0.1, 512
PLAIN_LIMIT = 2048  # above, the plain formula needs too many GiB to be run as a matter of course


def plain_volume(anchor: Tensor, modalities: list[Tensor]) -> Tensor:
    """sqrt |det Gram| of every pair, by determinants."""
    n = len(anchor)
    rows = [[anchor.square().sum(1)[:, None].expand(n, n)] + [anchor @ x.T for x in modalities]]
    for k, x in enumerate(modalities):
        rows.append([rows[0][k + 1]] + [(x * y).sum(1)[None].expand(n, n) for y in modalities])
    gram = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    return torch.linalg.det(gram).abs().sqrt()


def plain_loss(anchor: Tensor, modalities: list[Tensor]) -> Tensor:
    own = torch.arange(len(anchor), device=anchor.device)
    a2d = F.cross_entropy(-plain_volume(anchor, modalities) * SCALE, own, label_smoothing=SMOOTHING)
    d2a = F.cross_entropy(-plain_volume(anchor, modalities).T * SCALE, own, label_smoothing=SMOOTHING)
    return (a2d + d2a) / 2


def our_loss(anchor: Tensor, modalities: list[Tensor]) -> Tensor:
    return sum(volume_cross_entropy(anchor, modalities, SCALE, label_smoothing=SMOOTHING)) / 2


LOSSES = {"plain": plain_loss, "ours": our_loss}


def inputs(n: int, k: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Anchor and k modalities: unit rows around a common direction per item."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(n, WIDTH, generator=generator)
    noisy = [common + 0.7 * torch.randn(n, WIDTH, generator=generator) for _ in range(k + 1)]
    return [F.normalize(x, dim=1).to(dtype).requires_grad_() for x in noisy]


def step(name: str, tensors: list[Tensor]) -> Tensor:
    for x in tensors:
        x.grad = None
    loss = LOSSES[name](tensors[0], tensors[1:])
    loss.backward()
    return loss.detach()


def times(names: list[str], n: int, k: int, rounds: int) -> dict[str, float]:
    tensors = inputs(n, k)
    found = interleaved({name: partial(step, name, tensors) for name in names}, rounds)
    result = {f"{name}_ms": cpu for name, (cpu, _) in found.items()}
    if "plain" in names:
        result["speedup"] = result["plain_ms"] / result["ours_ms"]
    return result


def peak_mib(name: str, n: int, k: int) -> float:
    """Growth of the peak resident size over that of a small warm-up step, in a fresh process."""
    command = [sys.executable, __file__, "--peak-of", name, "--sizes", str(n), "--modalities", str(k)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(name: str, n: int, k: int) -> float:
    step(name, inputs(32, k))
    tensors = inputs(n, k)
    before = status_mib("VmHWM")
    step(name, tensors)
    return status_mib("VmHWM") - before


def accuracy(n: int, k: int) -> dict[str, float]:
    """Relative errors of float32 values and gradients against the plain formula in float64."""
    exact = inputs(n, k, torch.float64)
    truth = step("plain", exact)
    result = {}
    for name in LOSSES:
        tensors = inputs(n, k)
        result[f"{name}_loss_error"] = abs(step(name, tensors).item() / truth.item() - 1)
        errors = [(x.grad - y.grad).norm() / y.grad.norm() for x, y in zip(tensors, exact, strict=True)]
        result[f"{name}_gradient_error"] = max(errors).item()
    return result


COLUMNS = {
    "clips": "n",
    "modalities beside the anchor": "k",
    "plain, ms": "plain_ms",
    "mmpt, ms": "ours_ms",
    "plain / mmpt": "speedup",
    "plain, MiB": "plain_mib",
    "mmpt, MiB": "ours_mib",
    "error of the loss": "ours_loss_error",
    "of the gradients": "ours_gradient_error",
    "of the plain gradients": "plain_gradient_error",
}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument(
        "--modalities", type=int, nargs="+", default=[2, 3], help="modalities besides the anchor"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak-of", choices=LOSSES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        print(measure_peak(args.peak_of, args.sizes[0], args.modalities[0]))
        return
    found = []
    for n in args.sizes:
        for k in args.modalities:
            there = [name for name in LOSSES if name == "ours" or n <= PLAIN_LIMIT]
            row = {"n": n, "k": k, **times(there, n, k, args.rounds if n < 4096 else 1)}
            row |= {f"{name}_mib": peak_mib(name, n, k) for name in there}
            found.append(row | (accuracy(n, k) if n <= 256 else {}))
    rows = [[row.get(key, "-") for key in COLUMNS.values()] for row in found]
    title = "GRAM's loss, forward and backward, CPU time"
    publish(args.record, {title: [list(COLUMNS), *rows]}, found, setting=threads(args.threads))


if __name__ == "__main__":
    main()
