"""The plain forms that docs/ writes down equal the fast ones, in value and gradients."""

from __future__ import annotations

import re

import pytest
import torch

from mmpt.losses import MMContraLoss
from tests.conftest import ROOT
from tests.losses.norton_batches import random_batch


def code_of(page: str) -> dict:
    """The names that the Python blocks of a page define."""
    space: dict = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL):
        exec(code, space)
    return space


def value_and_gradients(loss, batch):
    batch = {name: x.clone().requires_grad_() if x.is_floating_point() else x for name, x in batch.items()}
    value = loss(batch)
    value.backward()
    return value.detach(), [x.grad for x in batch.values() if x.is_floating_point()]


@pytest.mark.parametrize("length", [4, 8])
def test_norton_as_it_reads_is_norton_as_it_runs(length):
    batch, plain = random_batch(n=16), code_of("norton.md")["plain_norton"]
    fast = MMContraLoss(n_iters=50, beta=0.3, sequence_contrast={"threshold": length})
    torch.testing.assert_close(
        value_and_gradients(lambda b: fast(**b), batch),
        value_and_gradients(lambda b: plain(b, length=length), batch),
    )
