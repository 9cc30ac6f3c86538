"""Learning-rate schedules."""

import numpy as np
import pytest

from mmpt.utils.schedules import warmup_multistep, warmup_share, warmup_then
from tests.conftest import golden_cases, load_golden


@pytest.mark.parametrize("path", golden_cases("gdt_data_*.npz"))
def test_golden_gdt_data_warmup_then_milestones_by_epoch(path):
    g = load_golden(path)
    numbers = sorted({name.split(".")[0] for name in g if name.startswith("warmup")})
    for name in numbers:
        lr, multiplier, warmup, gamma, epochs = g[f"{name}.args"]
        milestones = g[f"{name}.milestones_after_warmup"] + int(warmup)
        found = [
            warmup_multistep(e, lr, multiplier, int(warmup), milestones, gamma, legacy_offset=True)
            for e in range(int(epochs))
        ]
        np.testing.assert_allclose(found, g[f"{name}.lr_per_epoch"], rtol=1e-9)


@pytest.mark.parametrize("path", golden_cases("gdt_data_*.npz"))
def test_golden_gdt_data_stica_schedule_by_update(path):
    g = load_golden(path)
    lr, start, final, warmup, epochs, per_epoch = g["stica_sched.args"]
    warmup_updates, total = int(warmup * per_epoch), int(epochs * per_epoch)
    cosine = [warmup_then(u, lr, warmup_updates, start, total, final) for u in range(total)]
    np.testing.assert_allclose(cosine, g["stica_sched.cosine"], rtol=1e-9, atol=1e-12)
    constant = [warmup_then(u, lr, warmup_updates, start) for u in range(total)]
    np.testing.assert_allclose(constant, g["stica_sched.constant"], rtol=1e-9)


def test_a_drop_comes_at_its_milestone_unless_the_released_offset_is_asked_for():
    rates = [warmup_multistep(e, 1.0, milestones=[3]) for e in range(5)]
    assert rates == [1, 1, 1, 0.1, 0.1]
    assert [warmup_multistep(e, 1.0, milestones=[3], legacy_offset=True) for e in range(5)] == [
        1,
        1,
        1,
        1,
        0.1,
    ]


def test_warm_up_of_one_process_starts_at_the_full_rate_and_not_at_zero():
    assert [warmup_multistep(e, 0.5, multiplier=1, warmup_epochs=4) for e in range(6)] == [0.5] * 6


@pytest.mark.parametrize("case", golden_cases("release_optim*.npz"))
def test_golden_release_optim_schedules(case):
    golden = load_golden(case)
    for decay in ("linear", "cosine"):
        expected = golden[f"sched.warmup_{decay}"]
        found = [warmup_share(step, 1.0, len(expected) - 1, 0.1, decay) for step in range(len(expected))]
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-16)
