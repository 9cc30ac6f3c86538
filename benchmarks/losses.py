"""Norton's loss and its parts against the plain published formula: time, peak memory, accuracy.

    python benchmarks/losses.py                    # all rows, Markdown tables; about 10 minutes and 10 GiB
    python benchmarks/losses.py --rows time memory --sizes 64 256 --rounds 5

Time is process CPU time (wall time beside it), plain and ours in turn in one process, medians of the rounds.
Memory is the growth of the peak resident size over loss + backward, gradients included, in a fresh process
per measurement. Shapes are those of the published pre-training: 31 text and 18 video positions of width 768,
valid lengths drawn as its samplers draw them (39 % of the token pairs).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import gram  # noqa: E402
from benchmarks.measured import Step, command_line, interleaved, of_rows, publish, status_mib, threads  # noqa: E402
from benchmarks.norton_batch import NORTON, norton_batch  # noqa: E402
from benchmarks.plain import plain_norton, plain_sinkhorn, plain_token_similarity  # noqa: E402
from mmpt.losses import MMContraLoss, build_loss  # noqa: E402
from mmpt.ops.gdt import GDTHypothesis  # noqa: E402
from mmpt.ops.late_interaction import token_similarity  # noqa: E402
from mmpt.ops.sinkhorn import log_sinkhorn  # noqa: E402

TITLES = {
    "time": "Norton's loss, forward and backward, CPU time",
    "stages": "Token similarity, forward and backward, CPU time",
    "small": "Losses of pooled vectors through their classes, forward and backward, CPU time",
    "pairs": "VideoCLIP's loss and those of other libraries, forward and backward, CPU time",
    "sinkhorn": "Sinkhorn, 50 steps, CPU time",
    "memory": "Peak memory above the inputs, in a fresh process",
    "accuracy": "Relative errors against float64",
}

Loss = Callable[[dict[str, Tensor]], Tensor]


def our_norton(precision: str = "float32") -> Callable[[dict[str, Tensor]], Tensor]:
    loss = MMContraLoss(NORTON | {"precision": precision})
    return lambda batch: loss(**batch)


def backward(loss: Callable[[dict[str, Tensor]], Tensor], batch: dict[str, Tensor]) -> Tensor:
    for x in batch.values():
        x.grad = None
    value = loss(batch)
    value.backward()
    return value.detach()


def row(title: str, steps: dict[str, Step], rounds: int) -> dict[str, object]:
    """The first step is the plain one."""
    times = interleaved(steps, rounds)
    plain, *others = times
    result = {"row": title, f"{plain} ms": round(times[plain][0], 1)}
    for name in others:
        result |= {
            f"{name} ms": round(times[name][0], 1),
            f"{plain}/{name} cpu": round(times[plain][0] / times[name][0], 2),
        }
        result[f"{plain}/{name} wall"] = round(times[plain][1] / times[name][1], 2)
    return result


def loss_time(sizes: list[int], rounds: int) -> list[dict]:
    rows = []
    for n in sizes:
        batch = norton_batch(n)
        losses = {"plain": plain_norton, "ours": our_norton(), "bf16": our_norton("bf16")}
        rows.append(
            row(
                f"Norton loss, {n} clips",
                {name: lambda f=f, b=batch: backward(f, b) for name, f in losses.items()},
                rounds,
            )
        )
    return rows


def stage_time(sizes: list[int], rounds: int) -> list[dict]:
    rows = []
    for n in sizes:
        batch = norton_batch(n)
        names = ("text_outputs", "video_outputs", "text_mask_outputs", "video_mask_outputs")
        similarity = {
            "plain": lambda b: sum(
                x.square().sum() for x in plain_token_similarity(*(b[k] for k in names), 1.0)
            ),
            "ours": lambda b: sum(x.square().sum() for x in token_similarity(*(b[k] for k in names))),
        }
        rows.append(
            row(
                f"token similarity, {n}",
                {k: lambda f=f, b=batch: backward(f, b) for k, f in similarity.items()},
                rounds,
            )
        )
    return rows


def plain_gdt(number: int, n: int) -> Loss:
    """Every comparison against all used views under a mask, as defined; keys pass no gradient."""
    hypothesis = GDTHypothesis.parse(number)
    views, calls = hypothesis.views, hypothesis.calls("global")
    masks = [mask["mult"].view(n, 4, n)[:, list(views)].flatten(1).log() for mask in hypothesis.masks(1, n)]
    own = torch.arange(n)

    def loss(batch: dict[str, Tensor]) -> Tensor:
        sides = [F.normalize(batch[f"pooled_{side}"], dim=1) for side in ("video", "text")]
        total = 0.0
        for call, mask in zip(calls, masks, strict=True):
            query = sides[call.query_modality].unflatten(0, (len(views), n))[views.index(call.query_view)]
            logits = query @ sides[1 - call.query_modality].detach().T / 0.07 + mask
            total = total + call.weight * F.cross_entropy(logits, views.index(call.positive_view) * n + own)
        return total

    return loss


def plain_videoclip(batch: dict[str, Tensor]) -> Tensor:
    logits = batch["pooled_video"] @ batch["pooled_text"].T
    own = torch.arange(len(logits))
    return F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)


def plain_milnce(batch: dict[str, Tensor]) -> Tensor:
    """Miech et al. 2020, equation 1, with K captions for each of the N videos."""
    n = len(batch["pooled_video"])
    x = (batch["pooled_video"] @ batch["pooled_text"].T).view(n, n, -1)
    own = torch.arange(n)
    both = torch.cat([x, x.transpose(0, 1)], dim=1).flatten(1)
    return (both.logsumexp(1) - x[own, own].logsumexp(1)).mean()


def plain_gram(batch: dict[str, Tensor]) -> Tensor:
    vectors = [F.normalize(batch[f"pooled_{name}"], dim=1) for name in ("text", "video", "audio", "subtitle")]
    return gram.plain_loss(vectors[0], vectors[1:])


def pair_peers(n: int) -> dict[str, Loss]:
    """Losses of n pairs that users take instead, where they are installed (the extra `certify`)."""
    found: dict[str, Loss] = {}
    if importlib.util.find_spec("open_clip"):
        from open_clip.loss import ClipLoss

        clip = ClipLoss()
        # it averages the two directions
        found["open_clip"] = lambda b: 2 * clip(b["pooled_video"], b["pooled_text"], 1.0)
    if n <= 256 and importlib.util.find_spec("pytorch_metric_learning"):  # it takes minutes beyond
        from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

        nt_xent = SelfSupervisedLoss(NTXentLoss())  # of cosines, with the negatives of both sides
        found["metric_learning"] = lambda b: nt_xent(b["pooled_video"], b["pooled_text"])
    return found


def pooled_vectors(n: int, width: int = 512) -> Callable[[int], Tensor]:
    """Draws rows of length 4."""
    generator = torch.Generator().manual_seed(n)
    draw = lambda rows: F.normalize(torch.randn(rows, width, generator=generator), dim=1)  # noqa: E731
    return lambda rows: (4 * draw(rows)).requires_grad_()


def pooled_pairs(n: int) -> dict[str, Tensor]:
    vectors = pooled_vectors(n)
    return {"pooled_video": vectors(n), "pooled_text": vectors(n)}


def repeats(n: int, rounds: int) -> int:
    """More of what takes a millisecond."""
    return rounds * max(1, (512 // n) ** 2 // 2)


def small_time(sizes: list[int], rounds: int) -> list[dict]:
    """Losses through their classes, on pooled vectors alone."""
    rows = []
    for n in sizes:
        vectors = pooled_vectors(n)
        pairs = {"pooled_video": vectors(n), "pooled_text": vectors(n)}
        captions = pairs | {"pooled_text": vectors(5 * n)}
        views = {number: len(GDTHypothesis.parse(number).views) for number in (1, 2, 3)}
        cases: list[tuple[str, Loss, dict, dict[str, Tensor]]] = [
            ("VideoCLIP", plain_videoclip, {"loss_cls": "MMContraLoss"}, pairs),
            ("MIL-NCE", plain_milnce, {"loss_cls": "MILNCELoss", "compat": True}, captions),
        ]
        for number, many in views.items():
            given = {"pooled_video": vectors(many * n), "pooled_text": vectors(many * n)}
            keys = {"loss_cls": "GDTLoss", "hypothesis": number}
            cases.append((f"GDT {number}", plain_gdt(number, n), keys, given))
        if n <= gram.PLAIN_LIMIT:
            given = {f"pooled_{name}": vectors(n) for name in ("text", "video", "audio", "subtitle")}
            cases.append(("GRAM", plain_gram, {"loss_cls": "GRAMLoss", "temperature": 0.07}, given))
        for name, plain, keys, batch in cases:
            steps = {"plain": plain, "ours": lambda b, f=build_loss(keys): f(**b)}
            values = [backward(f, batch).item() for f in steps.values()]
            timed = {k: lambda f=f, b=batch: backward(f, b) for k, f in steps.items()}
            found = row(f"{name}, {n}", timed, repeats(n, rounds))
            rows.append(found | {"values": " ".join(f"{x:.4f}" for x in values)})
    return rows


def pair_time(sizes: list[int], rounds: int) -> list[dict]:
    """VideoCLIP's loss through its class, and the losses of other libraries on the same pairs."""
    rows = []
    ours = build_loss({"loss_cls": "MMContraLoss"})
    for n in sizes:
        losses = {"ours": lambda b: ours(**b)} | pair_peers(n)
        batch = pooled_pairs(n)
        steps = {name: lambda f=f, b=batch: backward(f, b) for name, f in losses.items()}
        # alone: its arrays of all triples push the others' out of the caches
        heavy = {k: steps.pop(k) for k in ("metric_learning",) if k in steps}
        times = interleaved(steps, repeats(n, rounds)) | interleaved(heavy, min(rounds, 3))
        rows.append({"pairs": n} | {f"{name} ms": round(cpu, 2) for name, (cpu, _) in times.items()})
    return rows


def bucket_problems(count: int = 16384) -> tuple[Tensor, Tensor]:
    scores = torch.rand(count, 9, 9, generator=torch.Generator().manual_seed(0)) / 0.1
    return scores, torch.tensor([-math.log(16)] * 8 + [-math.log(2)])


def square_problem(n: int) -> tuple[Tensor, Tensor]:
    scores = 3 * torch.randn(n, n, generator=torch.Generator().manual_seed(0)) + 10 * torch.eye(n)
    return scores, torch.full((n,), -math.log(2 * n))


def sinkhorn_time(rounds: int, compiled: bool) -> list[dict]:
    rows = []
    for title, (scores, mass), few in (
        ("Sinkhorn, 16384 of 9 x 9", bucket_problems(), rounds),
        ("Sinkhorn, one of 1024 x 1024", square_problem(1024), rounds),
        ("Sinkhorn, one of 4096 x 4096", square_problem(4096), min(rounds, 3)),
    ):
        steps = {
            "plain": lambda s=scores, m=mass: plain_sinkhorn(s, m, m),
            "ours": lambda s=scores, m=mass: log_sinkhorn(s, m, m),
        }
        if scores.dim() == 3 and importlib.util.find_spec("numba"):
            steps["numba"] = lambda s=scores, m=mass: log_sinkhorn(s, m, m, method="numba")
        if compiled and scores.dim() == 3:
            steps["compiled plain"] = lambda s=scores, m=mass, f=torch.compile(plain_sinkhorn): f(s, m, m)
        rows.append(row(title, steps | pot(scores, mass), few))
    return rows


def pot(scores: Tensor, mass: Tensor) -> dict[str, Step]:
    """POT's scaling solver for one large problem, where it is installed; 50 iterations as ours."""
    try:
        import ot
    except ImportError:
        return {}
    if scores.dim() != 2 or len(scores) > 1024:
        return {}
    weights = torch.full((len(scores),), 1 / len(scores))
    options = {"numItermax": 50, "stopThr": 0.0, "warn": False}
    return {
        "POT": lambda: ot.sinkhorn(weights, weights, -scores, 1.0, method="sinkhorn_stabilized", **options)
    }


def peak_mib(name: str, n: int) -> float:
    """Measured in a fresh process, whose allocator gives freed matrices back, so that the resident size shows
    what is held."""
    command = [
        sys.executable,
        __file__,
        "--peak-of",
        name,
        "--sizes",
        str(n),
        "--threads",
        str(torch.get_num_threads()),
    ]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    return float(
        subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        ).stdout.splitlines()[-1]
    )


def measure_peak(name: str, n: int) -> float:
    loss = {"plain": plain_norton, "ours": our_norton(), "bf16": our_norton("bf16")}[name]
    backward(loss, norton_batch(16))  # libraries load their code on first use
    batch = norton_batch(n)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status_mib("VmRSS")
    backward(loss, batch)
    return status_mib("VmHWM") - before


def memory(sizes: list[int]) -> list[dict]:
    rows = []
    for n in sizes:
        plain, ours, bf16 = (peak_mib(name, n) for name in ("plain", "ours", "bf16"))
        inputs = (
            sum(x.numel() * x.element_size() for x in norton_batch(n).values() if x.requires_grad) / 2**20
        )
        result = {
            "plain MiB": plain,
            "ours MiB": ours,
            "plain/ours": plain / ours,
            "bf16 MiB": bf16,
            "gradients MiB": inputs,
        }
        result["plain/ours without gradients"] = (plain - inputs) / (ours - inputs)
        rows.append(
            {"row": f"peak memory, {n} clips"} | {name: round(value, 1) for name, value in result.items()}
        )
    return rows


def accuracy(sizes: list[int]) -> list[dict]:
    """Relative errors against the plain formula in float64."""
    rows = []
    for n in sizes:
        exact = norton_batch(n, torch.float64)
        truth = backward(plain_norton, exact)
        for name, loss, dtype in (
            ("plain float32", plain_norton, torch.float32),
            ("ours float32", our_norton(), torch.float32),
            ("ours bf16 products", our_norton("bf16"), torch.float32),
            ("ours float64", our_norton(), torch.float64),
        ):
            batch = {
                k: x.detach().to(dtype).requires_grad_() if x.requires_grad else x for k, x in exact.items()
            }
            value = backward(loss, batch)
            result = {
                "row": f"error of {name}, {n} clips",
                "loss": f"{abs(value.item() / truth.item() - 1):.1e}",
            }
            for group in ("pooled", "outputs"):
                names = [k for k in batch if group in k and batch[k].requires_grad]
                result[f"{group} gradient"] = (
                    f"{max((batch[k].grad - exact[k].grad).norm() / exact[k].grad.norm() for k in names):.1e}"
                )
            rows.append(result)
    return rows


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=["time", "stages", "small", "pairs", "sinkhorn", "memory", "accuracy"],
        help="default: all",
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        help="clips; default: small 64 256 1024, time 64 128 256 512, memory 256 1024, accuracy 64 256",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="also time torch.compile of the plain Sinkhorn (needs a C++ compiler)",
    )
    parser.add_argument("--peak-of", choices=["plain", "ours", "bf16"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        print(measure_peak(arguments.peak_of, arguments.sizes[0]))
        return
    wanted = arguments.rows or ["time", "stages", "small", "pairs", "sinkhorn", "memory", "accuracy"]
    tables = {
        "time": lambda: loss_time(arguments.sizes or [64, 128, 256, 512], arguments.rounds),
        "stages": lambda: stage_time(arguments.sizes or [64, 256], arguments.rounds),
        "small": lambda: small_time(arguments.sizes or [64, 256, 1024], arguments.rounds),
        "pairs": lambda: pair_time(arguments.sizes or [64, 256, 1024], arguments.rounds),
        "sinkhorn": lambda: sinkhorn_time(arguments.rounds, arguments.compiled),
        "memory": lambda: memory(arguments.sizes or [256, 1024]),
        "accuracy": lambda: accuracy(arguments.sizes or [64, 256]),
    }
    found = {name: tables[name]() for name in wanted}
    titles = {TITLES[name]: of_rows(rows) for name, rows in found.items()}
    publish(arguments.record, titles, found, setting=threads(arguments.threads))


if __name__ == "__main__":
    main()
