"""Compiles every Triton kernel for GPUs that need not be there, and prints what each takes of them.

Run as `python -m tests.ops.kernel_budgets [capability ..]`: calls the operators with launches replaced by
compilation, so that kernels, types and constants are those of real calls. One line of JSON a kernel and GPU:
registers of a thread, bytes of a thread's stack (spills), bytes of a block's shared memory. With `memory` it
prints what large calls allocate. `benchmarks/kernels.py` makes the table of docs/kernels.md of it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from torch.profiler import ProfilerActivity, profile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmpt.ops import backend

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
TYPES = {
    **{torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"},
    **{torch.int32: "i32", torch.int64: "i64", torch.uint8: "u8", torch.bool: "i1"},
}


class Compilation:
    """Stands in for `triton.JITFunction.run`."""

    def __init__(self, capabilities):
        self.capabilities, self.seen = capabilities, set()

    def __call__(self, kernel, *args, grid, warmup, num_warps=4, num_stages=3, **constants):
        given = dict(zip(kernel.arg_names, args, strict=False)) | constants
        signature, fixed, hints = {}, {}, {}
        for number, parameter in enumerate(kernel.params):
            value = given[parameter.name]
            if (
                parameter.is_constexpr
                or value is None
                or (type(value) is int and value == 1 and not parameter.do_not_specialize)
            ):
                signature[parameter.name], fixed[parameter.name] = "constexpr", value
                continue
            signature[parameter.name] = self._type(value)
            if isinstance(value, torch.Tensor) or (
                isinstance(value, int) and value % 16 == 0 and not parameter.do_not_specialize
            ):
                hints[(number,)] = [["tt.divisibility", 16]]
        options = {"num_warps": num_warps, "num_stages": num_stages}
        name = f"{Path(kernel.fn.__code__.co_filename).parent.name}.{kernel.fn.__name__}"
        key = name, str(signature), str(fixed), str(options)
        if key in self.seen:
            return
        self.seen.add(key)
        for capability in self.capabilities:
            source = ASTSource(kernel, signature=signature, constexprs=fixed, attrs=hints)
            binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
            constants = {key: value for key, value in fixed.items() if key.isupper()}
            resources = {
                "kernel": name,
                "capability": capability,
                **_resources(binary),
                **options,
                **constants,
            }
            print(json.dumps(resources), flush=True)

    @staticmethod
    def _type(value):
        if isinstance(value, torch.Tensor):
            return f"*{TYPES[value.dtype]}"
        return "fp32" if isinstance(value, float) else "i32"


def _resources(binary):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        report = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", report.stdout).groups()
    return {"registers": int(registers), "stack": int(stack), "shared": binary.metadata.shared}


def sinkhorn():
    from mmpt.ops.sinkhorn._triton import log_plan

    for shape in ((64, 9, 9), (4, 12, 12), (4, 17, 17), (4, 64, 64), (1, 256, 256)):
        log_plan(torch.rand(shape), torch.zeros(shape[:-1]), torch.zeros(shape[0], shape[2]), 2)


def late_interaction(hopper):
    from mmpt.ops.late_interaction import _packing
    from mmpt.ops.late_interaction._triton import similarities

    tiles = dict(_packing.TILES)
    for precision, alpha in (("bf16", 1.0), ("tf32", 1.0), ("float32", 1.0), ("bf16", None), ("tf32", None)):
        for size in (2, 4):  # the CPU stands for the GPU asked for
            _packing.TILES[size, False] = tiles[size, hopper and bool(alpha)]
        sides = [torch.rand(40, n, 768, dtype=torch.float16, requires_grad=True) for n in (31, 18)]
        masks = [torch.rand(40, n) < 0.6 for n in (31, 18)]
        out = similarities(*sides, *masks, alpha, precision)
        sum(x.nan_to_num().sum() for x in out).backward()
    _packing.TILES.update(tiles)


def alignment():
    from mmpt.ops.alignment._triton import solve, solve_drop

    for count, rows, cols in ((64, 32, 32), (64, 5, 5), (2, 250, 200)):
        cost, lengths = torch.rand(count, rows, cols), [torch.full((count,), n) for n in (rows, cols)]
        for relaxed, smoothing in ((False, 0.1), (True, 0.1), (False, 0.0)):
            solve(cost, *lengths, relaxed, smoothing, want_path=True)
        for smoothing in (0.1, 0.0):
            solve_drop(cost[:, :127], torch.rand(count, cols), *lengths, smoothing, want_path=True)


def gram():
    from mmpt.ops.gram.contrast import volume_cross_entropy

    vectors = [torch.rand(256, 512, requires_grad=True) for _ in range(4)]
    for score, dim_norm in (("volume", False), ("volume", True), ("logvolume", False)):
        options = {"score": score, "dim_norm": dim_norm, "backend": "triton"}
        sum(volume_cross_entropy(vectors[0], vectors[1:], 10.0, **options)).backward()


def late_interaction_memory(clips, precision):
    """Peak bytes above inputs and gradients of late interaction with its backward pass, launches left out."""
    from mmpt.ops.late_interaction import _packing
    from mmpt.ops.late_interaction._triton import similarities

    for size in (2, 4):
        _packing.TILES[size, False] = _packing.TILES[size, True]
    lengths = [torch.randint(least, most, (clips, 1)) for least, most in ((9, 31), (4, 18))]
    sides = [torch.zeros(clips, n, 768, dtype=torch.float16, requires_grad=True) for n in (31, 18)]
    masks = [torch.arange(n) < length for n, length in zip((31, 18), lengths, strict=True)]
    return _peak(sides, lambda: similarities(*sides, *masks, 1.0, precision))


def gram_memory(n):
    """The same of the contrast of n anchors with n tuples of three, products left out too."""
    from mmpt.ops.gram import _triton
    from mmpt.ops.gram.contrast import volume_cross_entropy

    _triton.product = lambda a, b: a.new_empty(len(a), len(b))
    vectors = [torch.rand(n, 512, requires_grad=True) for _ in range(4)]
    return _peak(vectors, lambda: volume_cross_entropy(vectors[0], vectors[1:], 10.0, backend="triton"))


def _peak(inputs, forward):
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        out = forward()
        gradients = torch.autograd.grad(out, inputs, [torch.ones_like(x) for x in out])
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak - sum(x.numel() * x.element_size() for x in gradients)


def main(capabilities):
    backend._no_kernels = lambda device: None  # the CPU stands for the GPU asked for
    if not capabilities:
        triton.JITFunction.run = lambda *args, **options: None
        for clips, precision in ((4096, "bf16"), (4096, "tf32")):
            size = late_interaction_memory(clips, precision)
            print(json.dumps({"clips": clips, "precision": precision, "bytes": size, "limit": 2**30}))
        print(json.dumps({"anchors": 4096, "bytes": gram_memory(4096), "limit": 300 * 2**20}))
        return
    for capability in capabilities:
        compilation = Compilation([capability])
        triton.JITFunction.run = lambda kernel, *args, **options: compilation(kernel, *args, **options)
        sinkhorn()
        late_interaction(capability >= 90)
        alignment()
        gram()


if __name__ == "__main__":
    main([] if sys.argv[1:] == ["memory"] else [int(number) for number in sys.argv[1:]] or [80, 90])
