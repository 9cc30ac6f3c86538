"""Drop-DTW and the ordered step assignment: brute force, invariants and reference arrays."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from mmpt.ops.alignment import assign_steps, drop_dtw, dtw
from tests.conftest import golden_cases, load_golden
from tests.ops.slow_alignment import random_cost, softmin


def loop_drop_dtw(d, drop, smoothing):
    rows, cols = d.shape
    best, matched = (np.full((rows + 1, cols + 1), np.inf) for _ in range(2))
    best[0] = np.concatenate([[0.0], np.cumsum(drop)])
    for i in range(1, rows + 1):
        for j in range(1, cols + 1):
            matched[i, j] = d[i - 1, j - 1] + softmin(
                [best[i - 1, j - 1], best[i, j - 1], matched[i - 1, j]], smoothing
            )
            best[i, j] = softmin([matched[i, j], drop[j - 1] + best[i, j - 1]], smoothing)
    return best[-1, -1]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (3, 6), (5, 4)])
def test_drop_dtw_equals_the_cell_by_cell_loop(shape, smoothing):
    cost, drop = random_cost(3, *shape), random_cost(3, shape[1], seed=1, low=0, high=1)
    expected = [loop_drop_dtw(d, p, smoothing) for d, p in zip(cost.numpy(), drop.numpy(), strict=True)]
    np.testing.assert_allclose(drop_dtw(cost, drop, smoothing), expected, rtol=1e-12)


def test_drop_dtw_drops_the_outlier_and_its_gradient_says_so():
    cost = 5 * (1 - torch.eye(3, dtype=torch.float64))
    with_outlier = torch.cat([cost[:, :1], torch.full((3, 1), 9.0), cost[:, 1:]], 1)
    drop = torch.full((4,), 0.5, dtype=torch.float64, requires_grad=True)
    value = drop_dtw(with_outlier, drop)
    value.backward()
    assert value.item() == 0.5 and drop.grad.tolist() == [0, 1, 0, 0]


def test_drop_dtw_with_dear_drops_is_dtw():
    cost = random_cost(3, 5, 7)
    assert torch.allclose(drop_dtw(cost, 1e6), dtw(cost))


def test_drop_dtw_gradient_passes_gradcheck():
    cost, drop = random_cost(2, 3, 4).requires_grad_(), random_cost(2, 4, seed=1).requires_grad_()
    for smoothing in (0.0, 0.3):
        assert torch.autograd.gradcheck(lambda c, d: drop_dtw(c, d, smoothing), (cost, drop))


def test_drop_dtw_of_a_ragged_batch_equals_slicing():
    cost, rows, cols = random_cost(3, 5, 6), torch.tensor([5, 2, 1]), torch.tensor([4, 6, 1])
    padded = torch.full_like(cost, torch.nan)
    for n in range(3):
        padded[n, : rows[n], : cols[n]] = cost[n, : rows[n], : cols[n]]
    padded.requires_grad_()
    value = drop_dtw(padded, 0.3, 0.1, (rows, cols))
    value.sum().backward()
    expected = torch.stack([drop_dtw(cost[n, : rows[n], : cols[n]], 0.3, 0.1) for n in range(3)])
    assert torch.allclose(value, expected) and padded.grad.isfinite().all()


def best_frames(cost):
    frames, steps = cost.shape
    return min(
        itertools.combinations(range(frames), steps),
        key=lambda chosen: sum(cost[t, k] for k, t in enumerate(chosen)),
    )


@pytest.mark.parametrize("shape", [(1, 1), (6, 1), (5, 3), (8, 3), (3, 3)])
def test_exactly_one_frame_a_step_is_the_cheapest_increasing_choice(shape):
    cost = random_cost(20, *shape, low=0)
    for item, assigned in zip(cost.numpy(), assign_steps(cost), strict=True):
        chosen = best_frames(item)
        assert assigned.nonzero().tolist() == sorted([t, k] for k, t in enumerate(chosen))


def brute_force_cost(cost, bg_cost):
    """Cheapest labelling with every step in one run, in order, background anywhere between."""
    frames, steps = cost.shape
    best = np.inf
    for labels in itertools.product(range(-1, steps), repeat=frames):
        runs = [k for k, _ in itertools.groupby(labels) if k >= 0]
        if runs == list(range(steps)):
            best = min(best, sum(bg_cost if k < 0 else cost[t, k] for t, k in enumerate(labels)))
    return best


@pytest.mark.parametrize("bg_cost", [0.0, 0.5, 3.0])
def test_steps_of_several_frames_cost_what_brute_force_finds(bg_cost):
    for seed in range(4):
        cost = random_cost(6, 2, seed=seed, low=0)
        assigned = assign_steps(cost, exactly_one=False, bg_cost=bg_cost)
        background = (~assigned.any(1)).sum().item()
        assert (cost * assigned).sum().item() + bg_cost * background == pytest.approx(
            brute_force_cost(cost.numpy(), bg_cost)
        )


def loop_assignment(cost, exactly_one, bg_cost):
    """The recurrence state by state, ways compared in the order of the tie rule."""
    frames, steps = cost.shape
    total, came = np.full((frames + 1, 2 * steps + 1), np.inf), {}
    total[0, 0] = 0.0
    for t in range(1, frames + 1):
        for k in range(2 * steps + 1):
            ways = ([] if k % 2 and exactly_one else [k]) + [k - 1] + ([k - 2] if k % 2 else [])
            came[t, k] = min((w for w in ways if w >= 0), key=lambda w: total[t - 1, w])
            total[t, k] = total[t - 1, came[t, k]] + (cost[t - 1, k // 2] if k % 2 else bg_cost)
    state = 2 * steps if total[frames, -1] < total[frames, -2] else 2 * steps - 1
    assigned = np.zeros((frames, steps), bool)
    for t in range(frames, 0, -1):
        if state % 2:
            assigned[t - 1, state // 2] = True
        state = came[t, state]
    return assigned


@pytest.mark.parametrize("exactly_one", [True, False])
@pytest.mark.parametrize("bg_cost", [0.0, 1.0])
def test_ties_are_broken_as_stated(exactly_one, bg_cost):
    for seed in range(40):
        cost = random_cost(7, 3, seed=seed, low=0, high=3).floor()
        expected = loop_assignment(cost.numpy(), exactly_one, bg_cost)
        np.testing.assert_array_equal(
            assign_steps(cost, exactly_one, bg_cost).numpy(), expected, err_msg=f"seed {seed}"
        )


@pytest.mark.parametrize("path", golden_cases("tempclr_crosstask_dp.npz"))
def test_golden_tempclr_crosstask_dp_assignments_with_ties(path):
    golden = load_golden(path)
    for i in range(int(golden["n_cases"])):
        cost, expected = torch.from_numpy(golden[f"c{i}_cost"]), golden[f"c{i}_assign"]
        assigned = assign_steps(cost, bool(golden[f"c{i}_exactly_one"]), float(golden[f"c{i}_bg_cost"]))
        np.testing.assert_array_equal(assigned.numpy(), expected.astype(bool), err_msg=f"case {i}")


@pytest.mark.parametrize("path", golden_cases("tempclr_crosstask_eval.npz"))
def test_golden_tempclr_crosstask_eval_predictions(path):
    golden = load_golden(path)
    for key in [k for k in golden if k.endswith("_pred")]:
        logits = torch.from_numpy(golden[key.replace("_pred", "_logits")])
        np.testing.assert_array_equal(assign_steps(-logits.log_softmax(-1)).numpy(), golden[key].astype(bool))


def test_assignment_of_a_ragged_batch_equals_slicing():
    cost, frames, steps = random_cost(4, 9, 4), torch.tensor([9, 4, 6, 2]), torch.tensor([3, 4, 1, 2])
    assigned = assign_steps(cost, exactly_one=False, bg_cost=0.2, lengths=(frames, steps))
    for n in range(4):
        expected = torch.zeros(9, 4, dtype=torch.bool)
        expected[: frames[n], : steps[n]] = assign_steps(
            cost[n, : frames[n], : steps[n]], exactly_one=False, bg_cost=0.2
        )
        assert torch.equal(assigned[n], expected)


def test_as_many_frames_as_steps_gives_the_diagonal():
    assert torch.equal(assign_steps(random_cost(5, 5, low=0)), torch.eye(5, dtype=torch.bool))


def test_fewer_frames_than_steps_is_refused():
    with pytest.raises(ValueError, match="3 steps"):
        assign_steps(random_cost(2, 3))
