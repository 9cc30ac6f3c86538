"""Schedules as fairseq drives them."""

from argparse import Namespace

import pytest
import torch
from fairseq.optim import FairseqOptimizer

import mmpt.fairseq_plugin  # noqa: F401
from mmpt.fairseq_plugin.lr_schedulers import WarmupMultistep, WarmupThen


class Optimizer(FairseqOptimizer):
    def __init__(self):
        super().__init__(None)
        self._optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.0)


def test_the_rate_of_the_first_epoch_is_that_of_epoch_zero():
    settings = Namespace(
        lr=[0.1], lr_multiplier=4.0, lr_warmup_epochs=2, lr_milestones=[5], lr_gamma=0.1, legacy_offset=False
    )
    schedule = WarmupMultistep(settings, Optimizer())
    rates = [schedule.step_begin_epoch(epoch) for epoch in range(1, 8)]
    assert rates == pytest.approx([0.1, 0.25, 0.4, 0.4, 0.4, 0.04, 0.04])


def test_a_cosine_without_an_end_is_refused():
    settings = Namespace(
        lr=[0.1], warmup_updates=2, warmup_init_lr=0.0, decay="cosine", final_lr=0.0, max_update=0
    )
    with pytest.raises(ValueError, match="needs fairseq.optimization.max_update"):
        WarmupThen(settings, Optimizer())


def test_a_constant_rate_follows_the_warm_up():
    settings = Namespace(
        lr=[0.1], warmup_updates=3, warmup_init_lr=0.0, decay="constant", final_lr=0.0, max_update=0
    )
    schedule = WarmupThen(settings, Optimizer())
    assert [schedule.step_update(n) for n in range(5)] == pytest.approx([0, 0.05, 0.1, 0.1, 0.1])
