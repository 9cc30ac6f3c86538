"""The plain forms that docs/ writes down equal the fast ones, in value and gradients."""

from __future__ import annotations

import re

import pytest
import torch

from mmpt.losses import MMContraLoss, TempCLRLoss
from mmpt.losses.tempclr import reordered
from mmpt.ops.gdt import GDTHypothesis
from mmpt.ops.gram import gram_volume
from tests.conftest import ROOT
from tests.losses.norton_batches import random_batch
from tests.ops.slow_alignment import random_cost
from tests.ops.vectors import tuples


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


def test_tempclr_as_it_reads_is_tempclr_as_it_runs():
    plain, orders = code_of("plain_forms.md"), [[2, 1, 0, 3], [3, 2, 1, 0]]
    cost = random_cost(4, 5)
    fast = TempCLRLoss(smoothing=0.2).config.loss(reordered(cost[None], torch.tensor([orders])))
    torch.testing.assert_close(fast[0], plain["plain_order_loss"](cost, orders, smoothing=0.2))


@pytest.mark.parametrize("number", range(1, 10))
def test_gdt_masks_as_they_read_are_those_that_run(number):
    hypothesis, plain = GDTHypothesis.parse(number), code_of("plain_forms.md")["plain_mask"]
    terms = {term.name: term for term in hypothesis.terms}
    for call in hypothesis.masks(world_size=1, batch_per_rank=3):
        term = terms[call["term"]]
        assert torch.equal(call["mult"], plain(term.kind, term.views, call["query_view"], 3))


def test_gram_volume_as_it_reads_is_gram_volume_as_it_runs():
    anchor, *modalities = tuples(3)
    volume = code_of("plain_forms.md")["plain_volume"](anchor, modalities)
    torch.testing.assert_close(gram_volume(anchor, modalities), volume)
