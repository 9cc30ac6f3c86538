"""Finds where the host would wait for a device, without one.

The "meta" device has shapes and no values: whatever would have to read a value there (item, bool, nonzero,
boolean indexing, a copy to the host) raises. Copies from pageable host memory, which wait on CUDA, work
there; a dispatch mode finds them. What does not run there runs on the CPU, where another mode finds reads.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class NoCopies(TorchDispatchMode):
    """Refuses copies of tensors of the host, and indices that lie there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        host = [
            tuple(x.shape)
            for x in tree_leaves(args)
            if isinstance(x, torch.Tensor) and x.device.type == "cpu"
        ]
        copies = function is torch.ops.aten._to_copy.default or any(
            host
        )  # scalars of the host are otherwise passed by value
        if host and copies and on_device(out) and not (kwargs or {}).get("non_blocking"):
            raise AssertionError(f"{function} copies from the host: {host}")
        return out


class NoLiterals(TorchFunctionMode):
    """Refuses tensors made from Python numbers, which are made on the host and copied."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        makes = function in (
            torch.tensor,
            torch.as_tensor,
            torch.asarray,
            torch.scalar_tensor,
            torch.Tensor.new_tensor,
        )
        if makes and on_device(out) and not isinstance(args[-1], torch.Tensor):
            raise AssertionError(f"{function.__name__}({args[-1]}) copies from the host; full() does not")
        return out


def on_device(out):
    return isinstance(out, torch.Tensor) and out.device.type == "meta"


class NoReads(TorchDispatchMode):
    """Refuses what reads values of tensors: item and bool, nonzero, and with it boolean indices."""

    READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in self.READS:
            raise AssertionError(f"{function} would wait for the device")
        return function(*args, **(kwargs or {}))
