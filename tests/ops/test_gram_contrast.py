from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmpt.ops.gram import gram_volume
from mmpt.ops.gram.contrast import hard_negative_weights, pair_cross_entropy, volume_cross_entropy
from tests.conftest import golden_cases, load_golden
from tests.ops.vectors import modalities_of, tuples, unit


def plain(anchor, modalities, scale, mask=None, anchor_mask=None, smoothing=0.1, **score):
    """The definition, row by row, from the dense volumes."""
    volume = gram_volume(anchor, modalities, mask, **score)
    rows = [i for i in range(len(anchor)) if anchor_mask is None or anchor_mask[i]]
    columns = [j for j in range(len(modalities[0])) if mask is None or mask[j].any()]
    pairs = [p for p in rows if p in columns]
    a2d = [
        F.cross_entropy(
            -scale * volume[p, columns], torch.tensor(columns.index(p)), label_smoothing=smoothing
        )
        for p in pairs
    ]
    d2a = [
        F.cross_entropy(-scale * volume[rows, p], torch.tensor(rows.index(p)), label_smoothing=smoothing)
        for p in pairs
    ]
    return torch.stack(a2d).mean(), torch.stack(d2a).mean()


@pytest.mark.parametrize("path", golden_cases("gram_loss*.npz"))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("chunk", [None, 5])
def test_golden_gram_loss_values_and_gradients(path, dtype, chunk):
    golden = load_golden(path)
    anchor, modalities = (
        torch.tensor(golden["anchor"], dtype=dtype, requires_grad=True),
        modalities_of(golden, dtype),
    )
    temperature = torch.tensor(golden["temperature"].item(), dtype=dtype, requires_grad=True)
    a2d, d2a = volume_cross_entropy(
        anchor, modalities, 1 / temperature, label_smoothing=golden["label_smoothing"].item(), chunk=chunk
    )
    ((a2d + d2a) / 2).backward()
    value, gradient = (1e-10, 1e-9) if dtype == torch.float64 else (2e-6, 5e-6)
    assert a2d.item() == pytest.approx(golden["loss_a2d"].item(), rel=value)
    assert d2a.item() == pytest.approx(golden["loss_d2a"].item(), rel=value)
    for x, name in [(anchor, "grad_anchor"), *((x, f"grad_mod_{m}") for m, x in enumerate(modalities))]:
        assert np.linalg.norm(x.grad.numpy() - golden[name]) <= gradient * np.linalg.norm(golden[name])
    assert temperature.grad.item() == pytest.approx(golden["grad_temperature"].item(), rel=5 * gradient)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(
    "mask, bound",
    [
        (None, 2e-5),
        (torch.arange(64 * 3).reshape(64, 3) % 7 != 0, 1e-4),  # without a first vector there is no tip
    ],
)
def test_float32_gradients_are_exact_where_all_items_are_close(k, mask, bound):
    common = unit(1, 32, seed=9)
    found = []
    for dtype in (torch.float32, torch.float64):
        inputs = [F.normalize(common + 0.03 * unit(64, 32, seed=m)).float().to(dtype) for m in range(k + 1)]
        inputs = [x.requires_grad_() for x in inputs]
        losses = volume_cross_entropy(inputs[0], inputs[1:], 14.0, mask=mask if mask is None else mask[:, :k])
        found.append([x.double() for x in torch.autograd.grad(sum(losses), inputs)])
    for single, exact in zip(*found, strict=True):
        assert (single - exact).norm() <= bound * exact.norm()


@pytest.mark.parametrize("score", ["volume", "distance", "logvolume"])
@pytest.mark.parametrize("dim_norm", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chunk", [None, 2])
def test_equals_the_definition_and_its_gradients(score, dim_norm, masked, chunk):
    inputs = [unit(6, 10, seed=1), *tuples(3)]
    mask = anchor_mask = None
    if masked:
        mask = torch.tensor(
            [[1, 1, 1], [0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 0, 1]], dtype=torch.bool
        )
        anchor_mask = torch.tensor([1, 1, 1, 1, 0, 1], dtype=torch.bool)
    gradients = []
    for function in (plain, volume_cross_entropy):
        leaves = [x.clone().requires_grad_() for x in inputs]
        scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
        extra = {"chunk": chunk} if function is volume_cross_entropy else {}
        values = function(
            leaves[0],
            leaves[1:],
            scale,
            mask=mask,
            anchor_mask=anchor_mask,
            score=score,
            dim_norm=dim_norm,
            **extra,
        )
        (values[0] + 2 * values[1]).backward()
        gradients.append([*values, scale.grad, *(x.grad for x in leaves)])
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_matched_pairs_keep_their_precision_where_a_subtraction_has_none():
    x = unit(6, 16, seed=1)
    inputs = [(x + 3e-4 * unit(6, 16, seed=2)).float(), x.float()]
    found = volume_cross_entropy(inputs[0], inputs[1:], 100.0)
    expected = plain(inputs[0].double(), [inputs[1].double()], 100.0)
    torch.testing.assert_close(torch.stack(found).double(), torch.stack(expected), rtol=2e-5, atol=0)


def test_off_diagonal_distances_below_the_floor_pass_no_gradient():
    x = unit(3, 8, seed=1)
    anchor = unit(3, 8, seed=2)
    anchor[0] = x[1] + 5e-7 * (
        unit(8, seed=3) - unit(8, seed=3).dot(x[1]) * x[1]
    )  # nearly tuple 1, but matched with tuple 0
    leaves = [anchor.clone().requires_grad_() for _ in range(2)]
    sum(volume_cross_entropy(leaves[0], [x], 5.0)).backward()
    clamped = (
        (leaves[1].square().sum(1, keepdim=True) - (leaves[1] @ F.normalize(x, dim=1).T).square())
        .clamp_min(1e-12)
        .sqrt()
    )
    logits = -5.0 * clamped
    sum(F.cross_entropy(z, torch.arange(3), label_smoothing=0.1) for z in (logits, logits.T)).backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-5, atol=1e-6)


def test_gradients_are_exact_in_a_rectangle_with_pairs_in_the_middle():
    inputs = [x.requires_grad_() for x in (unit(5, 7, seed=1), *tuples(2, n=6, d=7))]
    scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)

    def function(s, a, *ms):
        return volume_cross_entropy(a, ms, s, first_row=1, first_column=2, pairs=3, chunk=2)

    assert torch.autograd.gradcheck(function, [scale, *inputs])


def test_pairs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        volume_cross_entropy(unit(4, 8), tuples(1, n=4, d=8), 1.0, first_column=2, pairs=3)


@pytest.mark.parametrize("score", ["volume", "logvolume"])
def test_finite_for_duplicates_zeros_and_extreme_scales(score):
    x = unit(1, 8, dtype=torch.float32).repeat(5, 1)
    for case in (
        [x, x, x],
        [x, torch.zeros_like(x), x],
        [torch.zeros_like(x), x, x],
        [-x, x, unit(5, 8, seed=4, dtype=torch.float32)],
    ):
        leaves = [v.clone().requires_grad_() for v in case]
        loss = sum(volume_cross_entropy(leaves[0], leaves[1:], 100.0, score=score))
        loss.backward()
        assert loss.isfinite() and all(v.grad.isfinite().all() for v in leaves)


def test_with_nothing_present_the_loss_and_its_gradients_are_zero():
    leaves = [x.requires_grad_() for x in (unit(4, 8), *tuples(2, n=4, d=8))]
    loss = sum(volume_cross_entropy(leaves[0], leaves[1:], 10.0, mask=torch.zeros(4, 2, dtype=torch.bool)))
    loss.backward()
    assert loss == 0 and all((x.grad == 0).all() for x in leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_under_autocast_give_the_float32_loss(dtype):
    inputs = [x.to(dtype) for x in (unit(6, 16, seed=1), *tuples(2, d=16))]
    expected = sum(volume_cross_entropy(inputs[0].float(), [x.float() for x in inputs[1:]], 100.0))
    leaves = [x.clone().requires_grad_() for x in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum(volume_cross_entropy(leaves[0], leaves[1:], 100.0))
        loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    assert all(x.grad.dtype == dtype and x.grad.isfinite().all() for x in leaves)


def test_backward_can_be_taken_twice():
    leaves = [x.requires_grad_() for x in (unit(6, 10, seed=1), *tuples(2))]
    loss = sum(volume_cross_entropy(leaves[0], leaves[1:], 10.0))
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(loss, leaves), strict=True):
        assert torch.equal(a, b)


def test_memory_does_not_grow_with_the_number_of_pairs():
    """Nothing of the size of the N x N matrix is alive between forward and backward."""
    n, saved = 3000, []
    leaves = [
        x.requires_grad_() for x in (unit(n, 4, dtype=torch.float32), unit(n, 4, seed=2, dtype=torch.float32))
    ]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        volume_cross_entropy(leaves[0], leaves[1:], 10.0)
    assert max(saved) < n * n / 100


@pytest.mark.parametrize("path", golden_cases("gram_dist*.npz"))
def test_golden_gram_dist_hard_negative_weights(path):
    golden = load_golden(path)
    world, batch = golden["anchor"].shape[:2]
    anchor = torch.tensor(golden["anchor"]).flatten(0, 1)
    modalities = [torch.tensor(golden[f"mod_{m}"]).flatten(0, 1) for m in range(len(golden["modalities"]))]
    logits = -gram_volume(anchor, modalities) / golden["temperature"].item()
    for name, index, table in (
        ("neg_weight_a2d", "neg_data_index", logits),
        ("neg_weight_d2a", "neg_text_index", logits.T),
    ):
        weights = hard_negative_weights(table, torch.arange(world * batch)).view(world, batch, -1)
        np.testing.assert_allclose(weights, golden[name], atol=1e-10)
        np.testing.assert_array_equal(weights.argmax(-1), golden[index])


def test_pair_cross_entropy_is_the_plain_one_without_masks():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows, columns = pair_cross_entropy(logits, label_smoothing=0.2)
    torch.testing.assert_close(rows, F.cross_entropy(logits, torch.arange(5), label_smoothing=0.2))
    torch.testing.assert_close(columns, F.cross_entropy(logits.T, torch.arange(5), label_smoothing=0.2))


def test_pair_cross_entropy_leaves_invalid_pairs_out():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    valid = torch.tensor([True, False, True, True, False])
    found = pair_cross_entropy(logits, valid, 0.1)
    expected = pair_cross_entropy(logits[valid][:, valid], None, 0.1)
    torch.testing.assert_close(found, expected)
    assert pair_cross_entropy(logits, torch.zeros(5, dtype=torch.bool))[0] == 0
