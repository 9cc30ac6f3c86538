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


@pytest.mark.parametrize("case", golden_cases("release_gdt_eval*.npz"))
def test_golden_release_gdt_eval_schedules_of_the_groups(case):
    golden = load_golden(case)
    for name in (key.removesuffix(".milestones") for key in golden if key.endswith(".milestones")):
        n_epochs, gamma, warmup = golden[f"{name}.args_epochs_gamma_warmup"].tolist()
        milestones = [int(epoch) for epoch in str(golden[f"{name}.milestones"]).split(",")]
        # the release multiplies rates, and lets them fall late, only where it warms up
        warms = warmup > 0
        rates = [
            warmup_multistep(epoch, 1.0, 8.0 if warms else 1.0, int(warmup), milestones, gamma, warms)
            for epoch in range(int(n_epochs))
        ]
        expected = golden[f"{name}.lr_per_epoch_head_base_tsf"]
        np.testing.assert_allclose(np.outer(rates, expected[0]), expected, rtol=1e-9)
