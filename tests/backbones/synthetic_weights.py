"""Tensors by a formula, for reference arrays of whole networks."""

from __future__ import annotations

import json

import numpy as np
import torch

from tests.conftest import GOLDEN


def synthetic(n, shape):
    """The pattern u of the reference arrays' README, for tensor number n."""
    element = np.arange(int(np.prod(shape)), dtype=np.int64)
    return ((element * 7919 + (n + 1) * 104729) % 10007 / 10007 * 2 - 1).reshape(shape)


def gdt_state(variant, prefix, dtype=torch.float32):
    """Synthetic tensors below `prefix` of a published model's state, numbered by their place in the whole
    state."""
    state = {}
    for n, (name, shape) in enumerate(
        json.loads((GOLDEN / "gdt_state_dict_names.json").read_text())[variant]
    ):
        if not name.startswith(prefix) or not shape:
            continue
        u = synthetic(n, shape)
        if name.endswith("running_var"):
            u = 1 + 0.2 * u
        elif name.endswith("running_mean"):
            u = 0.1 * u
        elif len(shape) > 1:
            u = u * np.sqrt(3 / np.prod(shape[1:]))
        else:
            u = 1 + 0.1 * u if name.endswith("weight") else 0.1 * u
        state[name.removeprefix(prefix)] = torch.from_numpy(u).to(dtype)
    return state
