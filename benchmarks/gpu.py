"""Everything that needs a GPU, in one call: the kernels against torch and against their bars, Norton's loss
and the published fp16 step.

    python benchmarks/gpu.py                        # at most 8 minutes; benchmarks/results/gpu_<card>.json
    python benchmarks/gpu.py --rehearse             # the same steps at toy size by the interpreter, no GPU
    python benchmarks/gpu.py --only late --explore  # one part, and other tiles of late interaction

Needs torch for CUDA with its Triton, transformers for the step, and this checkout; no network. Times are
medians of GPU events after warming up, with the number of runs and their spread beside them; memory is the
peak of the allocator above what is held before a call and what the call returns. Errors are relative to
float64 on the same GPU. A part that fails is written down with its message, and the rest goes on; the exit
status then is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
if "--rehearse" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.norton_batch import NORTON, WIDTH, norton_batch  # noqa: E402
from mmpt.losses import MMContraLoss  # noqa: E402
from mmpt.ops.alignment import drop_dtw, otam, soft_dtw  # noqa: E402
from mmpt.ops.contrastive import milnce_of_rows, nce_of_rows  # noqa: E402
from mmpt.ops.gram import gram_volume  # noqa: E402
from mmpt.ops.gram.contrast import volume_cross_entropy  # noqa: E402
from mmpt.ops.late_interaction import _packing, token_similarity  # noqa: E402
from mmpt.ops.sinkhorn import log_sinkhorn  # noqa: E402

MIB = 2**20

Step = Callable[[], object]


class Bench:
    """Collects rows; knows the device, how much time is left, and whether sizes are toys."""

    def __init__(self, device: torch.device, rehearse: bool, limit: float, only: list[str]):
        self.device, self.rehearse, self.only = device, rehearse, only
        self.begin, self.limit = time.monotonic(), limit
        self.rows: list[dict] = []
        self.failed: dict[str, str] = {}

    def size(self, full: int, toy: int) -> int:
        return toy if self.rehearse else full

    def left(self) -> float:
        return self.limit - (time.monotonic() - self.begin)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What fails inside is kept with its name, so that it does not cost the figures of the rest."""
        print(f"{name} .. {self.left():.0f} s left", flush=True)
        try:
            yield
        except Exception as error:
            self.failed[name] = f"{error!r:.500}\n{traceback.format_exc()[-1500:]}"
            print(f"  failed: {error!r:.300}", flush=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def time(self, row: str, how: str, step: Step, most: int = 30, tflop: float = 0.0, **bars: float) -> None:
        """A row: median milliseconds and peak MiB of a step, beside its bars `ms` and `mib`; with the
        operations it must do, also their rate."""
        if self.left() < 20:
            self.failed[f"{row}, {how}"] = "not run: out of time"
            return
        with self.part(f"{row}, {how}"):
            found = self.measured(step, most)
            if tflop:
                found["tflop_s"] = round(1e3 * tflop / found["ms"], 1)
            self.rows.append({"row": row, "how": how, **found, **({} if self.rehearse else _named(bars))})
            print(f"  {self.rows[-1]}", flush=True)

    def measured(self, step: Step, most: int) -> dict[str, float]:
        cuda = self.device.type == "cuda"
        begin = time.perf_counter()
        step()
        self.wait()
        first = time.perf_counter() - begin
        if cuda:
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            returned = step()
            self.wait()
            own = torch.cuda.max_memory_allocated() - held - _bytes(returned)
            del returned
        taken: list[float] = []
        stop = time.perf_counter() + 1.5
        while not taken or (
            not self.rehearse and (len(taken) < 3 or (len(taken) < most and time.perf_counter() < stop))
        ):
            taken.append(self._milliseconds(step))
        middle = statistics.median(taken)
        spread = (max(taken) - min(taken)) / middle
        return {
            **{"ms": round(middle, 4), "runs": len(taken), "spread": round(spread, 3)},
            **{"peak_mib": round(own / MIB, 1) if cuda else 0.0, "first_call_s": round(first, 2)},
        }

    def _milliseconds(self, step: Step) -> float:
        if self.device.type != "cuda":
            begin = time.perf_counter()
            step()
            return 1e3 * (time.perf_counter() - begin)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        step()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def error(self, row: str, step: Callable[[torch.dtype, str], list[Tensor]], **bars: float) -> None:
        """A row: relative errors of what a step returns, value first, against float64 torch; and whether a
        second run gives the same bits."""
        with self.part(f"{row}, error"):
            found, again = step(torch.float32, "triton"), step(torch.float32, "triton")
            exact = step(torch.float64, "torch")
            errors = [_relative(x, y) for x, y in zip(found, exact, strict=True)]
            same = all(torch.equal(x, y) for x, y in zip(found, again, strict=True))
            result = {"value_error": errors[0], "gradient_error": max(errors[1:], default=0.0)}
            self.rows.append({"row": row, "how": "error", **result, "repeatable": same, **_named(bars)})
            print(f"  {self.rows[-1]}", flush=True)


def _named(bars: dict[str, float]) -> dict[str, float]:
    return {f"bar_{name}": value for name, value in bars.items()}


def _bytes(returned: object) -> int:
    tensors = returned if isinstance(returned, (list, tuple)) else [returned]
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))


def _relative(found: Tensor, exact: Tensor) -> float:
    finite = torch.isfinite(exact)
    if not torch.equal(torch.isfinite(found), finite):
        return math.inf
    difference = (found.double() - exact).masked_fill(~finite, 0.0)
    return float(difference.norm() / exact.masked_fill(~finite, 0.0).norm())


# What is measured ------------------------------------------------------------------------------------------


def machine(bench: Bench) -> dict[str, object]:
    """Versions, and the two ceilings of the card: bandwidth and products."""
    facts: dict[str, object] = {"python": platform.python_version(), "torch": torch.__version__}
    if importlib.util.find_spec("triton"):
        import triton

        facts["triton"] = triton.__version__
    if bench.device.type != "cuda":
        return facts | {"card": "none: rehearsal on the CPU"}
    properties = torch.cuda.get_device_properties(0)
    facts |= {
        **{"card": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)},
        **{"capability": f"{properties.major}.{properties.minor}", "cuda": torch.version.cuda},
        "multiprocessors": properties.multi_processor_count,
    }
    source, n = torch.empty(2**30, dtype=torch.uint8, device="cuda"), 8192
    target = torch.empty_like(source)
    copied = bench.measured(lambda: target.copy_(source), 20)
    facts["copy_tb_s"] = round(2 * source.numel() / copied["ms"] / 1e9, 2)
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
        facts[f"{name}_tflop_s"] = round(2 * n**3 / bench.measured(lambda a=a, b=b: a @ b, 5)["ms"] / 1e9, 1)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    facts["tf32_tflop_s"] = round(2 * n**3 / bench.measured(lambda: a @ b, 5)["ms"] / 1e9, 1)
    torch.backends.cuda.matmul.fp32_precision = before
    return facts


def bucket_masses(n: int, device: torch.device) -> Tensor:
    return torch.tensor([-math.log(2 * (n - 1))] * (n - 1) + [-math.log(2)], device=device)


def sinkhorn(bench: Bench) -> None:
    generator = torch.Generator(bench.device).manual_seed(0)

    def scores(*shape: int) -> Tensor:
        return 10 * torch.rand(*shape, generator=generator, device=bench.device)

    for count, n in ((300, 9), (20, 17), (1, bench.size(500, 66))):
        given, mass = scores(count, n, n), bucket_masses(n, bench.device)
        bench.error(
            f"Sinkhorn, {count} of {n} x {n}",
            lambda dtype, backend, s=given, m=mass: [
                log_sinkhorn(s.to(dtype), m, m, 50, "triton" if backend == "triton" else "log").exp()
            ],
            value=2e-6,
        )
    n, count = 9, bench.size(262_144, 40)
    given, mass = scores(count, n, n), bucket_masses(n, bench.device)
    row = f"Sinkhorn, {count} of {n} x {n}, 50 steps"
    bench.time(row, "triton", lambda: log_sinkhorn(given, mass, mass, 50, "triton"), ms=1.0)
    bench.time(row, "torch", lambda: log_sinkhorn(given, mass, mass, 50, "log"), most=5)
    for n in (bench.size(1024, 66), bench.size(4096, 70)):
        given = scores(n, n)
        mass = torch.full((n,), -math.log(2 * n), device=bench.device)
        row, bar = f"Sinkhorn, one of {n} x {n}, 50 steps", {"ms": 5.0} if n == 4096 else {}
        bench.time(row, "triton", lambda s=given, m=mass: log_sinkhorn(s, m, m, 50, "triton"), **bar)
        bench.time(row, "torch", lambda s=given, m=mass: log_sinkhorn(s, m, m, 50, "log"), most=5)


TOKENS = ("text_outputs", "video_outputs", "text_mask_outputs", "video_mask_outputs")


def similarity_step(batch: dict[str, Tensor], **options: object) -> Step:
    weights: list[Tensor] = []

    def step() -> list[Tensor]:
        to_video, to_text = token_similarity(*(batch[name] for name in TOKENS), **options)
        if not weights:
            weights.append(torch.randn_like(to_video) / to_video.numel())
        return torch.autograd.grad(((to_video + to_text) * weights[0]).sum(), [batch[k] for k in TOKENS[:2]])

    return step


def late_interaction(bench: Bench) -> None:
    small = norton_batch(bench.size(64, 6), torch.float32, bench.device)
    weights = torch.randn(2, *[len(small["text_outputs"])] * 2, device=bench.device)
    for precision, alpha, value, gradient in (
        ("float32", 1.0, 2e-6, 5e-6),
        ("float32", 0.04, 2e-6, 5e-6),
        ("float32", None, 2e-6, 5e-6),
        ("tf32", 1.0, 1e-3, 5e-3),
        ("bf16", 1.0, 1e-4, 2e-3),
    ):

        def step(dtype: torch.dtype, backend: str, precision=precision, alpha=alpha) -> list[Tensor]:
            how = precision if backend == "triton" else "float32"
            sides = [small[name].detach().to(dtype).requires_grad_() for name in TOKENS[:2]]
            masks = [small[name] for name in TOKENS[2:]]
            out = torch.stack(token_similarity(*sides, *masks, alpha, precision=how, backend=backend))
            return [out.detach(), *torch.autograd.grad((out * weights.to(dtype)).sum(), sides)]

        name = f"late interaction, {precision}, alpha {alpha}"
        bench.error(name, step, value=value, gradient=gradient)
    bars = {"bf16": {"ms": 90.0, "mib": 1024.0}, "tf32": {"ms": 250.0, "mib": 1024.0}}
    for n in (bench.size(1024, 6), bench.size(4096, 8)):
        batch = norton_batch(n, torch.float16, bench.device)
        row = f"late interaction, {n} clips"
        words, frames = (float(batch[name].sum()) for name in TOKENS[2:])
        tflop = 2e-12 * words * frames * WIDTH  # of one product of all valid pairs; backward takes three more
        for precision in ("bf16", "tf32", "float32"):
            step = similarity_step(batch, precision=precision, backend="triton")
            bar = bars.get(precision, {}) if n == 4096 else {}
            bench.time(row, f"triton {precision}", step, most=10, tflop=4 * tflop, **bar)
        hard = similarity_step(batch, precision="bf16", alpha=None, backend="triton")
        bench.time(row, "triton bf16, hard maximum", hard, most=5)

        def forward(batch=batch) -> object:
            with torch.no_grad():
                return token_similarity(*(batch[k] for k in TOKENS), precision="bf16", backend="triton")

        bench.time(row, "triton bf16, forward alone", forward, most=10, tflop=tflop)
        for precision in ("bf16", "float32"):
            step = similarity_step(batch, precision=precision, backend="torch")
            bench.time(row, f"torch {precision}", step, most=3, tflop=4 * tflop)


def many_clips(bench: Bench) -> None:
    n = bench.size(16_384, 8)
    batch = norton_batch(n, torch.float16, bench.device)
    step = similarity_step(batch, precision="bf16", backend="triton")
    bench.time(f"late interaction, {n} clips", "triton bf16", step, most=3, mib=8192.0)


def explore(bench: Bench) -> None:
    """Other tiles than the ones in use, on a middle size."""
    batch = norton_batch(bench.size(2048, 6), torch.float16, bench.device)
    key = 2, bench.device.type == "cuda"
    used = dict(_packing.TILES)
    for rows, columns, step, warps, stages in (
        (128, 128, 64, 8, 3),
        (128, 128, 64, 8, 4),
        (128, 128, 64, 8, 2),
        (128, 128, 128, 8, 2),
        (128, 128, 64, 4, 3),
        (128, 64, 64, 8, 3),
        (128, 64, 64, 4, 4),
        (128, 256, 64, 8, 3),
    ):
        texts, videos = 16, 32 if columns == 256 else 16
        shape = _packing.Tile(rows, columns, texts, videos, step, 128, warps, stages, used[key].chunk)
        _packing.TILES[key] = shape
        run = similarity_step(batch, precision="bf16", backend="triton")
        bench.time(
            "late interaction, tiles", f"{rows} x {columns} x {step}, {warps} warps, {stages} stages", run, 5
        )
    _packing.TILES.update(used)


def alignment(bench: Bench) -> None:
    generator = torch.Generator(bench.device).manual_seed(0)

    def cost(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=bench.device)

    kinds = {
        "soft-DTW": soft_dtw,
        "OTAM, both ways": lambda x, **options: otam(x, both=True, **options),
        "Drop-DTW": lambda x, **options: drop_dtw(x, 0.4, smoothing=0.1, **options),
    }
    for name, function in kinds.items():
        given = cost(20, 12, 9)

        def step(dtype: torch.dtype, backend: str, given=given, function=function) -> list[Tensor]:
            x = given.to(dtype).requires_grad_()
            out = function(x, backend=backend)
            return [out.detach(), *torch.autograd.grad(out.sum(), x)]

        bench.error(name, step, value=2e-6, gradient=5e-6)
    for count, n in ((bench.size(4096, 2), bench.size(32, 6)), (bench.size(16_384, 6), 5)):
        given = cost(count, n, n).requires_grad_()
        for name, function in kinds.items():
            row, bar = f"{name}, {count} of {n} x {n}", {"ms": 5.0} if n == 32 else {}
            for backend in ("triton", "torch"):
                bench.time(
                    row,
                    backend,
                    lambda f=function, x=given, b=backend: torch.autograd.grad(f(x, backend=b).sum(), x),
                    **(bar if backend == "triton" else {}),
                )


def gram(bench: Bench) -> None:
    n, k, width = bench.size(4096, 24), 3, bench.size(512, 16)
    generator = torch.Generator(bench.device).manual_seed(0)
    vectors = [
        torch.nn.functional.normalize(torch.randn(n, width, generator=generator, device=bench.device), dim=1)
        for _ in range(k + 1)
    ]
    for x in vectors:
        x.requires_grad_()

    def contrast(given: list[Tensor], backend: str) -> list[Tensor]:
        losses = volume_cross_entropy(given[0], given[1:], 10.0, backend=backend)
        return [sum(losses), *torch.autograd.grad(sum(losses), given)]

    few = [x.detach()[: bench.size(700, 20)] for x in vectors]
    bench.error(
        f"GRAM contrast, K = {k}",
        lambda dtype, backend: contrast([x.to(dtype).requires_grad_() for x in few], backend),
        value=2e-6,
        gradient=5e-6,
    )
    row = f"GRAM contrast, {n} x {n}, K = {k}"
    for backend, bars in (("triton", {"ms": 30.0, "mib": 300.0}), ("torch", {})):
        bench.time(row, backend, lambda b=backend: contrast(vectors, b), **bars)
    with torch.no_grad():
        plain = [x.detach() for x in vectors]
        for exact in (True, False):
            name = "float64" if exact else "float32"
            bench.time(
                f"GRAM mining, {n} x {n}",
                name,
                lambda e=exact: gram_volume(plain[0], plain[1:], exact=e),
                most=5,
            )


def rows_of_ranks(bench: Bench) -> None:
    """One rank of 64 with 1024 clips each; what it takes of its own, without the gathering."""
    own, ranks, width = bench.size(1024, 8), bench.size(64, 3), bench.size(512, 8)
    generator = torch.Generator(bench.device).manual_seed(0)
    joined = [
        torch.randn(own * ranks, width, generator=generator, device=bench.device)
        .div_(width**0.25)
        .half()
        .requires_grad_()
        for _ in range(2)
    ]

    def nce() -> object:
        video, text = joined
        loss = nce_of_rows(video[:own], text) + nce_of_rows(text[:own], video)
        return torch.autograd.grad(loss, joined)

    def milnce() -> object:
        video, text = joined
        return torch.autograd.grad(milnce_of_rows(video[:own], text[:own], video, text), joined)

    def exactly(dtype: torch.dtype, backend: str) -> list[Tensor]:
        kind = torch.float16 if backend == "triton" else dtype
        few = [x.detach()[: 4 * own].to(kind).requires_grad_() for x in joined]
        loss = nce_of_rows(few[0][:own], few[1]) + milnce_of_rows(few[0][:own], few[1][:own], *few)
        return [loss.detach(), *torch.autograd.grad(loss, few)]

    bench.error("rows of one rank, fp16", exactly, value=2e-6, gradient=2e-3)
    row = f"rows of one rank, {own} of {own * ranks} clips"
    bench.time(row, "InfoNCE, both directions", nce, most=10, mib=1024.0)
    bench.time(row, "MIL-NCE", milnce, most=10, mib=1024.0)


@contextmanager
def backend(name: str) -> Iterator[None]:
    before = os.environ.get("MMPT_BACKEND")
    os.environ["MMPT_BACKEND"] = name
    try:
        yield
    finally:
        os.environ.pop("MMPT_BACKEND")
        if before is not None:
            os.environ["MMPT_BACKEND"] = before


def norton(bench: Bench) -> None:
    """The loss of the published configuration on half-precision outputs of the towers."""
    for n in (bench.size(256, 8), bench.size(1024, 8)):
        batch = norton_batch(n, torch.float16, bench.device)
        inputs = [x for x in batch.values() if x.requires_grad]
        for name, precision in (
            ("triton", "bf16"),
            ("triton", "float32"),
            ("torch", "bf16"),
            ("torch", "float32"),
        ):
            loss = MMContraLoss(NORTON | {"precision": precision})

            def step(loss=loss, name=name, batch=batch, inputs=inputs) -> object:
                with backend(name):
                    return torch.autograd.grad(loss(**batch), inputs)

            bench.time(f"Norton's loss, {n} clips, fp16 inputs", f"{name} {precision}", step, most=10)
    if bench.device.type == "cuda":
        waits(bench, batch, inputs)


def waits(bench: Bench, batch: dict[str, Tensor], inputs: list[Tensor]) -> None:
    """How often the loss waits for the GPU, and whether it can be captured as a graph."""
    loss = MMContraLoss(NORTON | {"precision": "bf16"})
    with bench.part("Norton's loss, synchronisations"), warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            torch.autograd.grad(loss(**batch), inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        places = sorted(
            {f"{Path(w.filename).name}:{w.lineno}" for w in found if "synchroniz" in str(w.message)}
        )
        bench.rows.append({"row": "Norton's loss, waits for the GPU", "how": "triton bf16", "places": places})
        print(f"  {bench.rows[-1]}", flush=True)
    with bench.part("Norton's loss, graph"):
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                torch.autograd.grad(loss(**batch), inputs)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            torch.autograd.grad(loss(**batch), inputs)
        bench.time(
            f"Norton's loss, {len(inputs[0])} clips, fp16 inputs", "triton bf16, as a graph", graph.replay
        )


def step(bench: Bench) -> None:
    """Towers of BERT-base's size in half precision with Norton's loss: forward and backward of 1024 clips."""
    from benchmarks.towers import make_batch, make_model

    clips = bench.size(1024, 8)
    model = make_model([6, 12] if not bench.rehearse else [1, 1])
    kind = torch.float16 if bench.device.type == "cuda" else torch.float32
    model = model.to(bench.device, kind)
    batch = {k: v.to(bench.device) for k, v in make_batch(clips, torch.Generator().manual_seed(0)).items()}
    batch["vfeats"] = batch["vfeats"].to(kind)
    trained = [p for p in model.parameters() if p.requires_grad]

    def run(loss: Callable[[dict[str, Tensor]], Tensor]) -> Step:
        return lambda: torch.autograd.grad(loss(model(**batch)), trained, allow_unused=True)

    def towers_alone(outputs: dict[str, Tensor]) -> Tensor:
        return sum(
            x.float().mean() for k, x in outputs.items() if k.endswith("outputs") and x.is_floating_point()
        )

    row = f"published step, {clips} clips, {kind}".replace("torch.", "")
    bench.time(row, "towers alone", run(towers_alone), most=5)
    for name, precision in (("triton", "bf16"), ("torch", "bf16"), ("torch", "float32")):
        loss = MMContraLoss(NORTON | {"precision": precision})

        def whole(outputs: dict[str, Tensor], loss=loss, name=name) -> Tensor:
            with backend(name):
                return loss(**outputs)

        bench.time(row, f"with Norton's loss, {name} {precision}", run(whole), most=5)


PARTS = {
    "sinkhorn": sinkhorn,
    "late": late_interaction,
    "alignment": alignment,
    "gram": gram,
    "rows": rows_of_ranks,
    "norton": norton,
    "step": step,
    "many": many_clips,
}


def verdict(row: dict) -> str:
    """What of a row misses its bar."""
    pairs = (
        ("ms", "bar_ms"),
        ("peak_mib", "bar_mib"),
        ("value_error", "bar_value"),
        ("gradient_error", "bar_gradient"),
    )
    over = [
        f"{name} {row[name]:.3g} > {row[bar]:.3g}"
        for name, bar in pairs
        if bar in row and row[name] > row[bar]
    ]
    return ", ".join(over) or ("met" if any(bar in row for _, bar in pairs) else "")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu_<card>.json")
    parser.add_argument("--limit", type=float, default=440.0, help="seconds after which no row is begun")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--explore", action="store_true", help="also other tiles of late interaction")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on the CPU, to try the script")
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.rehearse:
        print("gpu.py: no CUDA device here, so nothing to measure; --rehearse tries the script.")
        return 0
    device = torch.device("cpu" if args.rehearse else "cuda")
    bench = Bench(device, args.rehearse, args.limit, args.only)
    facts = machine(bench)
    print(json.dumps(facts, indent=1), flush=True)
    for name in args.only:
        if bench.left() < 20:
            bench.failed[name] = "not run: out of time"
            continue
        with bench.part(name):
            PARTS[name](bench)
    if args.explore:
        with bench.part("explore"):
            explore(bench)
    for row in bench.rows:
        row["verdict"] = verdict(row)
    out = args.out or ROOT / "benchmarks" / "results" / f"gpu_{str(facts['card']).replace(' ', '_')}.json"
    if args.out or not args.rehearse:
        out.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": facts, "rows": bench.rows, "failed": bench.failed}
        out.write_text(json.dumps(result | {"seconds": round(time.monotonic() - bench.begin)}, indent=1))
    print("\n| what | how | ms | runs | peak MiB | value error | gradient error | bar |\n|" + "---|" * 8)
    for row in bench.rows:
        cells = [row.get(k, "") for k in ("ms", "runs", "peak_mib", "value_error", "gradient_error")]
        cells = [f"{x:.3g}" if isinstance(x, float) else x for x in cells]
        print("|", " | ".join(str(x) for x in (row["row"], row["how"], *cells, row["verdict"])), "|")
    for name, message in bench.failed.items():
        print(f"FAILED {name}: {message.splitlines()[0]}")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
