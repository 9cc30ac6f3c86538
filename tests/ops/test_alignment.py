"""Soft and hard DTW and OTAM: against a cell-by-cell loop, closed forms, invariants and reference arrays."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch

from mmpt.ops import backend as backends
from mmpt.ops.alignment import _torch as wavefront
from mmpt.ops.alignment import (
    cosine_cost,
    dtw,
    dtw_path,
    hard_otam,
    otam,
    otam_path,
    soft_dtw,
    soft_dtw_divergence,
)
from tests.conftest import golden_cases, load_golden
from tests.ops.slow_alignment import loop_dtw, loop_otam, random_cost

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
BACKENDS = ["torch", pytest.param("numba", marks=needs_numba)]


SOFT = {"dtw": (soft_dtw, loop_dtw), "otam": (otam, loop_otam)}
HARD = {"dtw": (dtw, loop_dtw), "otam": (hard_otam, loop_otam)}
SHAPES = [(1, 1), (1, 6), (6, 1), (2, 2), (5, 3), (4, 9), (12, 12)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("smoothing", [0.01, 0.1, 1.0, 30.0])
def test_soft_values_equal_the_cell_by_cell_loop(name, smoothing, backend):
    op, loop = SOFT[name]
    for shape in SHAPES:
        cost = random_cost(2, 3, *shape, seed=sum(shape))
        expected = [[loop(d, smoothing) for d in row] for row in cost.numpy()]
        np.testing.assert_allclose(op(cost, smoothing, backend=backend), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", HARD)
def test_hard_values_equal_the_cell_by_cell_loop(name):
    op, loop = HARD[name]
    for shape in SHAPES:
        cost = random_cost(3, *shape, seed=sum(shape))
        np.testing.assert_allclose(op(cost), [loop(d, 0) for d in cost.numpy()], rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("op", [soft_dtw, otam])
def test_soft_gradient_passes_gradcheck(op, backend):
    for shape in [(1, 4), (4, 1), (3, 5), (5, 3)]:
        cost = random_cost(2, *shape).requires_grad_()
        assert torch.autograd.gradcheck(lambda c: op(c, 0.3, backend=backend), cost)


@pytest.mark.parametrize("op", [dtw, hard_otam])
def test_hard_gradient_passes_gradcheck(op):
    assert torch.autograd.gradcheck(op, random_cost(2, 4, 5).requires_grad_())


@pytest.mark.parametrize("path", golden_cases("tempclr_dp.npz"))
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_tempclr_dp_values_and_gradients(path, backend):
    golden = load_golden(path)
    for i in range(int(golden["n_cases"])):
        case = {k.removeprefix(f"c{i}_"): v for k, v in golden.items() if k.startswith(f"c{i}_")}
        cost, smoothing = torch.from_numpy(case["cost"]), float(case["lbda"])
        rtol = 1e-8 if cost.dtype == torch.float64 else 1e-4
        for name, op, flip in [("dtw", soft_dtw, False), ("otam", otam, False), ("otam_t", otam, True)]:
            leaf = cost.clone().requires_grad_()
            value = op(leaf.mT if flip else leaf, smoothing, backend=backend)
            (value * torch.from_numpy(case["w"])).sum().backward()
            np.testing.assert_allclose(
                value.detach(), case[name], rtol=rtol, atol=rtol, err_msg=f"case {i} {name}"
            )
            scale = max(1.0, np.abs(case[f"{name}_grad"]).max())
            np.testing.assert_allclose(
                leaf.grad, case[f"{name}_grad"], rtol=0, atol=rtol * 5 * scale, err_msg=f"case {i} {name}"
            )
            hard = dtw if name == "dtw" else hard_otam
            np.testing.assert_allclose(
                hard(cost.mT if flip else cost), case[f"{name}_hard"], rtol=rtol / 10, atol=rtol / 10
            )


@pytest.mark.parametrize("path", golden_cases("tempclr_cos.npz"))
def test_golden_tempclr_cos_values_and_gradients(path):
    golden = load_golden(path)
    for i in range(int(golden["n_cases"])):
        x, y = (torch.from_numpy(golden[f"c{i}_{k}"]).requires_grad_() for k in "xy")
        tolerance = (
            {"rtol": 1e-9, "atol": 1e-12} if x.dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
        )
        similarity = 1 - cosine_cost(x, y, float(golden[f"c{i}_eps"]))
        (similarity * torch.from_numpy(golden[f"c{i}_w"])).sum().backward()
        np.testing.assert_allclose(similarity.detach(), golden[f"c{i}_sim"], **tolerance)
        np.testing.assert_allclose(x.grad, golden[f"c{i}_x_grad"], **tolerance)
        np.testing.assert_allclose(y.grad, golden[f"c{i}_y_grad"], **tolerance)


@pytest.mark.parametrize("path", golden_cases("norton_metrics.npz"))
def test_golden_norton_metrics_exact_end_costs(path):
    golden = load_golden(path)
    for name in [k.removesuffix("_dist") for k in golden if k.startswith("prim") and k.endswith("_dist")]:
        cost = torch.from_numpy(golden[f"{name}_dist"]).double()
        np.testing.assert_allclose(dtw(cost), golden[f"{name}_dtw_exact"], rtol=1e-6)
        np.testing.assert_allclose(hard_otam(cost), golden[f"{name}_otam_exact_one_way"], rtol=1e-6)


@pytest.mark.parametrize("path", golden_cases("tempclr_fullvideo.npz"))
def test_golden_tempclr_fullvideo_exact_scores_from_one_ragged_batch(path):
    golden = load_golden(path)
    for i in range(int(golden["n_cases"])):
        sim, texts, videos = (
            torch.from_numpy(golden[f"c{i}_{k}"]) for k in ("sim", "text_lengths", "video_lengths")
        )
        if not torch.equal(texts, videos):
            continue  # keeps only the best clips of a pair first, which belongs to the metric
        blocks = [row.split(videos.tolist(), 1) for row in (1 - sim.double()).split(texts.tolist())]
        longest = int(texts.max())
        cost = torch.full((len(texts), len(videos), longest, longest), torch.nan, dtype=torch.float64)
        for q, row in enumerate(blocks):
            for v, block in enumerate(row):
                cost[q, v, : texts[q], : videos[v]] = block * longest**2 / (texts[q] * videos[v])
        lengths = texts[:, None], videos[None, :]
        np.testing.assert_allclose(-dtw(cost, lengths), golden[f"c{i}_score_dtw"], rtol=1e-6)
        np.testing.assert_allclose(
            -hard_otam(cost, lengths, both=True), golden[f"c{i}_score_otam"], rtol=1e-6
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("op", [soft_dtw, otam])
def test_ragged_batch_equals_slicing_and_garbage_outside_does_not_leak(op, backend):
    full = random_cost(4, 6, 7)
    rows, cols = torch.tensor([6, 1, 3, 5]), torch.tensor([7, 4, 1, 6])
    padded = torch.stack(
        [torch.full((6, 7), g, dtype=torch.float64) for g in (0.0, torch.nan, torch.inf, -torch.inf)]
    )
    for n in range(4):
        padded[n, : rows[n], : cols[n]] = full[n, : rows[n], : cols[n]]
    padded.requires_grad_()
    value = op(padded, 0.2, (rows, cols), backend=backend)
    value.sum().backward()
    for n in range(4):
        alone = full[n, : rows[n], : cols[n]].clone().requires_grad_()
        expected = op(alone, 0.2, backend="torch")
        expected.backward()
        assert value[n].item() == pytest.approx(expected.item(), rel=1e-12)
        assert torch.allclose(padded.grad[n, : rows[n], : cols[n]], alone.grad, atol=1e-13)
        assert padded.grad[n].abs().sum().item() == pytest.approx(alone.grad.sum().item(), rel=1e-12)


def test_ragged_hard_paths_equal_slicing():
    cost = random_cost(3, 5, 6)
    rows, cols = torch.tensor([5, 2, 4]), torch.tensor([3, 6, 1])
    for function in (dtw_path, otam_path):
        path = function(cost, (rows, cols))
        for n in range(3):
            expected = torch.zeros(5, 6, dtype=torch.bool)
            expected[: rows[n], : cols[n]] = function(cost[n, : rows[n], : cols[n]])
            assert torch.equal(path[n], expected)


def test_expected_dtw_path_visits_both_corners_and_every_row_and_column():
    cost = random_cost(5, 6, 9).requires_grad_()
    soft_dtw(cost, 0.2, backend="torch").sum().backward()
    path = cost.grad
    assert (path >= 0).all() and (path.sum(-1) >= 1 - 1e-12).all() and (path.sum(-2) >= 1 - 1e-12).all()
    assert torch.allclose(path[:, 0, 0], torch.ones(5, dtype=torch.float64)) and torch.allclose(
        path[:, -1, -1], path[:, 0, 0]
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_expected_otam_path_visits_each_later_column_exactly_once(backend):
    cost = random_cost(5, 6, 9).requires_grad_()
    otam(cost, 0.2, backend=backend).sum().backward()
    columns = cost.grad.sum(-2)
    assert (cost.grad >= 0).all() and (columns[:, 0] >= 1 - 1e-12).all()
    assert torch.allclose(columns[:, 1:], torch.ones_like(columns[:, 1:]))


def test_dtw_is_symmetric_and_otam_is_not():
    cost = random_cost(4, 5, 8)
    assert torch.allclose(soft_dtw(cost), soft_dtw(cost.mT)) and torch.allclose(dtw(cost), dtw(cost.mT))
    assert not torch.allclose(otam(cost), otam(cost.mT))


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_directions_of_otam_are_summed_with_swapped_lengths(backend):
    cost, rows, cols = random_cost(3, 5, 8).requires_grad_(), torch.tensor([5, 2, 4]), torch.tensor([3, 8, 1])
    forth, back = (
        otam(cost, lengths=(rows, cols), backend="torch"),
        otam(cost.mT, lengths=(cols, rows), backend="torch"),
    )
    both = otam(cost, lengths=(rows, cols), both=True, backend=backend)
    assert torch.allclose(both, forth + back)
    found, expected = (torch.autograd.grad(value.sum(), cost)[0] for value in (both, forth + back))
    assert torch.allclose(found, expected, atol=1e-13)


def test_without_numba_the_torch_path_takes_over_in_silence(monkeypatch, recwarn):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    # asked anew: what other tests found is remembered
    monkeypatch.setattr(backends, "_missing", backends._missing.__wrapped__)
    cost = random_cost(2, 5, 4)
    assert torch.equal(otam(cost, both=True), otam(cost, both=True, backend="torch")) and not recwarn.list


@pytest.mark.parametrize("align", [soft_dtw, otam, dtw])
@pytest.mark.parametrize("axis", [1, 2])
def test_lengths_of_one_side_alone_cut_the_matrices(align, axis):
    cost, used = random_cost(3, 4, 5), torch.tensor([2, 4, 3])
    lengths = (used, None) if axis == 1 else (None, used)
    expected = [align(x.narrow(axis - 1, 0, n)) for x, n in zip(cost, used.tolist(), strict=True)]
    assert torch.allclose(align(cost, lengths=lengths, backend="torch"), torch.stack(expected))


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize(
    "cost",
    [
        random_cost(3, 5, 6),
        900 * random_cost(3, 5, 6),
        -900 * random_cost(3, 6, 5),
        torch.zeros(1, 500, 500).double(),
    ],
    ids=["near", "dear", "rewarding", "long"],
)
def test_sums_of_products_give_what_sums_of_logarithms_give(monkeypatch, cost, relaxed):
    count, *sides = cost.shape
    problem = cost, *(torch.full((count,), n) for n in sides), relaxed, 0.5, True
    value, path = wavefront.solve(*problem)
    monkeypatch.setattr(wavefront, "_in_range", lambda *_: False)
    expected, expected_path = wavefront.solve(*problem)
    assert value.isfinite().all() and torch.allclose(value, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(path, expected_path, rtol=1e-9, atol=1e-11)


def test_adding_a_constant_to_a_later_column_raises_otam_by_it():
    cost = random_cost(4, 5, 8)
    for column in range(1, 8):
        raised = cost.clone()
        raised[..., column] += 0.7
        assert torch.allclose(otam(raised), otam(cost) + 0.7)


def test_otam_equals_its_closed_form_over_end_rows():
    cost, smoothing = random_cost(5, 1), 0.3
    summed = cost[:, 0].cumsum(0)
    # one real column: y_l = -S_l + log(1 + 2 sum_{k=1..l} exp(S_{k-1})), every end row but the last counted
    # twice
    y = torch.stack(
        [-summed[i] / smoothing + torch.log(1 + 2 * (summed[:i] / smoothing).exp().sum()) for i in range(5)]
    )
    doubled = torch.tensor([2.0, 2.0, 2.0, 2.0, 1.0], dtype=torch.float64).log()
    assert otam(cost, smoothing).item() == pytest.approx(
        -smoothing * torch.logsumexp(y + doubled, 0).item(), rel=1e-12
    )


def test_soft_lies_below_hard_by_at_most_the_number_of_paths():
    cost, smoothing = random_cost(6, 4, 4), 0.25
    delannoy = 63  # monotone paths through 4 x 4 cells
    gap = dtw(cost) - soft_dtw(cost, smoothing)
    assert (gap >= 0).all() and (gap <= smoothing * math.log(delannoy)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_smoothing_approaches_the_hard_value(backend):
    cost = random_cost(6, 7, 9)
    assert torch.allclose(soft_dtw(cost, 1e-5, backend=backend), dtw(cost), atol=1e-4)
    assert torch.allclose(otam(cost, 1e-5, backend=backend), hard_otam(cost), atol=1e-4)


@pytest.mark.parametrize("op", [soft_dtw, otam, dtw, hard_otam])
def test_batch_order_and_splitting_change_nothing(op, monkeypatch):
    cost = random_cost(33, 4, 5)
    whole = op(cost)
    monkeypatch.setattr("mmpt.ops.alignment._torch.CPU_CELLS", 100)
    assert torch.allclose(op(cost.flip(0)).flip(0), whole) and torch.allclose(
        torch.stack([op(c) for c in cost]), whole
    )


@needs_numba
def test_compiled_path_gives_the_same_numbers_on_several_threads(monkeypatch):
    cost = random_cost(100, 4, 5)
    alone = otam(cost, backend="numba")
    monkeypatch.setattr("mmpt.ops.alignment._numba.CELLS_PER_THREAD", 500)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(otam(cost, backend="numba"), alone) and torch.allclose(
        otam(cost, backend="torch"), alone
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("op", [soft_dtw, otam])
def test_float32_agrees_with_float64_however_long_the_path(op, backend):
    cost = random_cost(4, 7, 120, dtype=torch.float32, low=0).requires_grad_()
    exact = cost.detach().double().requires_grad_()
    value, expected = op(cost, backend=backend), op(exact, backend="torch")
    value.sum().backward()
    expected.sum().backward()
    assert torch.allclose(value.double(), expected, rtol=2e-7)
    assert (cost.grad - exact.grad).norm() < 1e-6 * exact.grad.norm()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("op", [soft_dtw, otam])
def test_extreme_costs_stay_finite(op, dtype, backend):
    cost = (random_cost(3, 16, 16, low=-300, high=300) // 100 * 100).to(dtype).requires_grad_()
    value = op(cost, 0.01, backend=backend)
    value.sum().backward()
    assert value.dtype == dtype and cost.grad.dtype == dtype
    assert value.isfinite().all() and cost.grad.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_path_far_behind_can_recover(backend):
    cost = torch.zeros(1, 8, dtype=torch.float32).repeat(8, 1)
    cost[3:5, :] = torch.tensor(
        [50.0] * 7 + [0.0]
    )  # all cheap ways pass the last column, whose start is dear
    cost[0, 1:] = 45.0
    assert soft_dtw(cost, 0.1, backend=backend).item() == pytest.approx(
        loop_dtw(cost.double().numpy(), 0.1), rel=1e-5
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_infinite_cell_is_avoided_and_nan_spoils_only_its_own_matrix(backend):
    cost = random_cost(3, 4, 4)
    cost[0, 1, 2], cost[1, 2, 2] = torch.inf, torch.nan
    cost.requires_grad_()
    value = soft_dtw(cost, backend=backend)
    value.sum().backward()
    assert value[0].item() == pytest.approx(loop_dtw(cost[0].detach().numpy(), 0.1), rel=1e-12)
    assert (
        cost.grad[0, 1, 2] == 0
        and value[1].isnan()
        and value[2].isfinite()
        and cost.grad[[0, 2]].isfinite().all()
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_cells_behind_a_wall_leave_the_gradient_finite(backend):
    cost = random_cost(1, 4, 4)
    cost[0, 0, 1] = cost[0, 1, 2] = cost[0, 1, 3] = torch.inf
    cost.requires_grad_()
    soft_dtw(cost, backend=backend).sum().backward()
    assert cost.grad.isfinite().all() and cost.grad[0, 0, 2] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_long_float32_paths_keep_their_mass(backend):
    cost = random_cost(2, 96, 96, dtype=torch.float32, low=0).requires_grad_()
    otam(cost, backend=backend).sum().backward()
    assert torch.allclose(cost.grad.sum(-2)[:, 1:], torch.ones(2, 95), atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_finite_path_gives_infinity(backend):
    cost = random_cost(1, 3, 3)
    cost[0, 1] = torch.inf
    assert soft_dtw(cost, backend=backend).item() == torch.inf and dtw(cost).item() == torch.inf


@pytest.mark.parametrize("backend", BACKENDS)
def test_band_forbids_cells_far_from_the_diagonal(backend):
    cost = random_cost(2, 7, 7)
    i = torch.arange(7)
    fenced = torch.where((i[:, None] - i).abs() <= 2, cost, torch.inf)
    assert torch.allclose(soft_dtw(cost, band=2, backend=backend), soft_dtw(fenced, backend="torch"))
    assert torch.allclose(dtw(cost, band=0), cost.diagonal(dim1=-2, dim2=-1).sum(-1))
    assert torch.equal(dtw(cost, band=7), dtw(cost))


def test_band_of_one_connects_sequences_of_any_lengths():
    rows, cols = torch.arange(1, 13)[:, None], torch.arange(1, 13)
    assert dtw(random_cost(12, 12), band=1).isfinite()
    assert dtw(random_cost(12, 12, 12, 12), (rows, cols), band=1).isfinite().all()


def test_hard_paths_are_ordered_cells_that_sum_to_the_value():
    cost = random_cost(3, 5, 7)
    for paths, value in [(dtw_path(cost), dtw(cost)), (otam_path(cost), hard_otam(cost))]:
        assert torch.allclose((cost * paths).sum((-2, -1)), value)
        for path in paths:
            steps = path.nonzero().diff(dim=0)
            assert (steps >= 0).all() and (steps[:, 1] <= 1).all()
    assert (dtw_path(cost)[0].nonzero().diff(dim=0) <= 1).all()


def test_hard_path_prefers_the_diagonal_on_ties():
    assert torch.equal(dtw_path(torch.zeros(4, 4)), torch.eye(4, dtype=torch.bool))


def test_divergence_vanishes_for_equal_sequences_and_not_for_others():
    x, y = random_cost(2, 6, 4), random_cost(2, 8, 4, seed=1)
    square = lambda a, b: torch.cdist(a, b).square()  # noqa: E731
    same = soft_dtw_divergence(square(x, x), square(x, x), square(x, x), 0.5)
    assert torch.allclose(same, torch.zeros_like(same), atol=1e-12)
    other = soft_dtw_divergence(square(x, y), square(x, x), square(y, y), 0.5)
    assert torch.allclose(
        other, soft_dtw(square(x, y), 0.5) - (soft_dtw(square(x, x), 0.5) + soft_dtw(square(y, y), 0.5)) / 2
    )
    assert (other > 0).all()


def test_divergence_takes_the_lengths_of_both_sequences():
    x, y = random_cost(2, 6, 4), random_cost(2, 8, 4, seed=1)
    n, m = torch.tensor([6, 4]), torch.tensor([5, 8])
    value = soft_dtw_divergence(torch.cdist(x, y), torch.cdist(x, x), torch.cdist(y, y), lengths=(n, m))
    for k in range(2):
        a, b = x[k, : n[k]], y[k, : m[k]]
        alone = soft_dtw_divergence(torch.cdist(a, b), torch.cdist(a, a), torch.cdist(b, b))
        assert value[k].item() == pytest.approx(alone.item(), rel=1e-9)


def test_soft_dtw_equals_tslearn():
    metrics = pytest.importorskip("tslearn.metrics")
    x, y = random_cost(9, 3), random_cost(7, 3, seed=1)
    expected = metrics.soft_dtw(x.numpy(), y.numpy(), gamma=0.7)
    assert soft_dtw(torch.cdist(x, y).square(), 0.7).item() == pytest.approx(expected, rel=1e-9)


def test_cosine_cost_of_a_zero_vector_is_one_without_nan_gradients():
    x = torch.zeros(1, 4).requires_grad_()
    cost = cosine_cost(x, torch.eye(4))
    cost.sum().backward()
    assert torch.equal(cost, torch.ones(1, 4)) and x.grad.isfinite().all()


def test_cosine_cost_is_computed_in_float32_under_autocast():
    x = random_cost(3, 8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cosine_cost(x, x)
    assert inside.dtype == torch.float32 and torch.equal(inside, cosine_cost(x, x))
    assert cosine_cost(x.half(), x.half()).dtype == torch.float32


@pytest.mark.parametrize("op", [soft_dtw, otam, dtw, hard_otam])
def test_empty_batch_gives_an_empty_value(op):
    cost = torch.zeros(0, 3, 4, 5, requires_grad=True)
    assert op(cost).shape == (0, 3) and op(cost).requires_grad


def test_second_derivative_is_refused():
    cost = random_cost(3, 3).requires_grad_()
    (grad,) = torch.autograd.grad(soft_dtw(cost), cost, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda c: soft_dtw(c, smoothing=0), "smoothing"),
        (lambda c: otam(c, smoothing=-1.0), "smoothing"),
        (lambda c: dtw(c.long()), "floating"),
        (lambda c: dtw(c[:, :0]), "R, C >= 1"),
        (lambda c: dtw(c, (torch.tensor(0), None)), "row lengths"),
        (lambda c: dtw(c, (None, torch.tensor(9))), "column lengths"),
        (lambda c: dtw(c, band=-1), "band"),
        (lambda c: soft_dtw(c, backend="fortran"), "fortran"),
        (lambda c: soft_dtw(c.to("meta"), backend="numba"), "numba"),
    ],
)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(random_cost(4, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("distance", "both"), [(dtw, {}), (hard_otam, {}), (hard_otam, {"both": True})])
def test_compiled_minima_are_those_of_torch_bit_for_bit(distance, both, dtype):
    pytest.importorskip("numba")
    generator = torch.Generator().manual_seed(0)
    cost = torch.randn(50, 7, 9, generator=generator, dtype=dtype)
    lengths = (
        torch.randint(1, 8, (50,), generator=generator),
        torch.randint(1, 10, (50,), generator=generator),
    )
    cost[0, lengths[0][0] :] = torch.nan
    eager, compiled = (distance(cost, lengths, backend=name, **both) for name in ("torch", "numba"))
    assert torch.equal(eager, compiled)
