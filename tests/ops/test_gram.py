from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmpt.ops.gram import (
    eigen_score,
    gram_volume,
    leading_components,
    multilinear_product,
    orthonormal_tuples,
    paired_volume,
    triangle_score,
)
from tests.conftest import golden_cases, load_golden
from tests.ops.vectors import modalities_of, tuples, unit


def determinant_volume(anchor, modalities):
    """One Gram matrix a pair, by loops."""
    volume = torch.zeros(len(anchor), len(modalities[0]), dtype=anchor.dtype)
    for i, t in enumerate(anchor):
        for j in range(len(modalities[0])):
            rows = torch.stack([t, *(x[j] for x in modalities)])
            volume[i, j] = torch.linalg.det(rows @ rows.T).abs().sqrt()
    return volume


@pytest.mark.parametrize("path", golden_cases("gram_volume*.npz"))
def test_golden_gram_volume_values_and_gradients(path):
    golden = load_golden(path)
    anchor, modalities = torch.tensor(golden["anchor"], requires_grad=True), modalities_of(golden)
    volume = gram_volume(anchor, modalities, chunk=3)
    np.testing.assert_allclose(volume.detach(), golden["volume"], rtol=0, atol=1e-10)
    (volume * torch.tensor(golden["weight"])).sum().backward()
    np.testing.assert_allclose(anchor.grad, golden["grad_anchor"], atol=1e-10)
    for m, x in enumerate(modalities):
        np.testing.assert_allclose(x.grad, golden[f"grad_mod_{m}"], atol=1e-10)


@pytest.mark.parametrize("path", golden_cases("gram_degenerate*.npz"))
@pytest.mark.parametrize("how", ["paired", "all pairs"])
def test_golden_gram_degenerate_is_closer_to_the_exact_volume_than_a_determinant(path, how):
    golden = load_golden(path)
    anchor, modalities = (
        torch.tensor(golden["anchor"]),
        [x.detach() for x in modalities_of(golden, torch.float32)],
    )
    volume = (
        paired_volume(anchor, modalities) if how == "paired" else gram_volume(anchor, modalities).diagonal()
    )
    exact = golden["volume_exact"]
    error, plain = np.abs(volume.double().numpy() - exact), np.abs(golden["volume_det_f32"] - exact)
    assert (error <= plain + 1e-7 * exact + 1e-30).all()
    if how == "paired":
        np.testing.assert_allclose(volume, exact, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("path", golden_cases("gram_eval_*.npz"))
def test_golden_gram_eval_ranking_by_volume(path):
    golden = load_golden(path)
    volume = gram_volume(torch.tensor(golden["anchor"]), [x.detach() for x in modalities_of(golden)])
    np.testing.assert_allclose(volume, golden["volume"], atol=1e-10)
    own = torch.tensor(golden.get("ids_txt", golden["ids"])[:, None] == golden["ids"][None])  # texts x items
    if "gramian_value" in golden:
        assert volume.min(1).values.mean().item() == pytest.approx(golden["gramian_value"], abs=1e-10)
        assert volume.diagonal().mean().item() == pytest.approx(golden["mean_positive_volume"], abs=1e-10)
    for name, table, matched in (("t2d", volume, own), ("d2t", volume.T, own.T)):
        rank = (table < table.masked_fill(~matched, torch.inf).min(1, keepdim=True).values).sum(1)
        recall = [round(100 * (rank < k).double().mean().item(), 1) for k in (1, 5, 10)]
        np.testing.assert_allclose(recall, golden[name][:3], atol=0.05)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_volume_equals_the_determinant_of_every_pair(k):
    anchor, modalities = unit(5, 10, seed=1), tuples(k)
    torch.testing.assert_close(
        gram_volume(anchor, modalities), determinant_volume(anchor, modalities), rtol=0, atol=1e-12
    )
    anchor = modalities[0].roll(1, 0)
    torch.testing.assert_close(
        paired_volume(anchor, modalities), determinant_volume(anchor, modalities).diagonal()
    )


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("score", ["volume", "distance", "logvolume"])
def test_gradients_of_volumes_are_exact(k, score):
    mask = torch.ones(3, k, dtype=torch.bool)
    mask[0, 0] = k == 1
    inputs = [unit(4, 7, seed=1), *(x[:3] for x in tuples(k, d=7))]
    for x in inputs:
        x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, *ms: gram_volume(a, ms, mask, score, dim_norm=score == "volume"), inputs
    )
    assert torch.autograd.gradcheck(lambda a, *ms: paired_volume(a[:3], ms, mask, score), inputs)


def test_gradients_of_a_basis_are_exact():
    inputs = [x.requires_grad_() for x in tuples(3, n=2, d=5)]
    assert torch.autograd.gradcheck(lambda *ms: orthonormal_tuples(ms)[:2], inputs)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    assert torch.autograd.gradcheck(lambda *ms: orthonormal_tuples(ms, mask)[:2], inputs)


def test_basis_is_orthonormal_and_spans_the_tuple():
    modalities = tuples(3)
    basis = orthonormal_tuples(modalities).directions.transpose(0, 1)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(3, dtype=torch.float64).expand(6, 3, 3))
    x = torch.stack(modalities, 1)
    torch.testing.assert_close(x @ basis.mT @ basis, x)


def test_basis_of_nearly_parallel_vectors_is_orthonormal():
    x = unit(6, 32)
    for dtype, spread, error in ((torch.float64, 1e-7, 1e-14), (torch.float32, 1e-4, 1e-6)):
        basis = orthonormal_tuples(
            [x.to(dtype), (x + spread * unit(6, 32, seed=3)).to(dtype)]
        ).directions.transpose(0, 1)
        torch.testing.assert_close(
            basis @ basis.mT, torch.eye(2, dtype=dtype).expand(6, 2, 2), atol=error, rtol=0
        )


def test_order_of_modalities_and_rotations_leave_the_volume_alone():
    anchor, modalities = unit(5, 10, seed=1), tuples(3)
    volume = gram_volume(anchor, modalities)
    torch.testing.assert_close(gram_volume(anchor, modalities[::-1]), volume)
    rotation = torch.linalg.qr(
        torch.randn(10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    ).Q
    torch.testing.assert_close(gram_volume(anchor @ rotation, [x @ rotation for x in modalities]), volume)


def test_one_modality_gives_the_sine_and_volumes_of_unit_vectors_lie_between_zero_and_one():
    anchor, (x,) = unit(5, 10, seed=1), tuples(1)
    torch.testing.assert_close(gram_volume(anchor, [x]), (1 - (anchor @ x.T).square()).sqrt())
    assert ((gram_volume(anchor, tuples(4)) >= 0) & (gram_volume(anchor, tuples(4)) <= 1)).all()


def test_an_orthogonal_modality_changes_nothing_and_a_duplicate_gives_zero():
    anchor, x = F.pad(unit(5, 6, seed=1), (0, 1)), F.pad(unit(4, 6, seed=2), (0, 1))
    apart = F.one_hot(torch.full((4,), 6), 7).double()
    torch.testing.assert_close(gram_volume(anchor, [x, apart]), gram_volume(anchor, [x]))
    assert gram_volume(anchor, [x, x]).max() < 1e-12


def test_a_masked_modality_is_as_if_it_were_not_there():
    anchor, modalities = unit(5, 10, seed=1), tuples(3)
    mask = torch.tensor([True, False, True]).repeat(6, 1)
    for score in ("volume", "distance", "logvolume"):
        masked = gram_volume(anchor, modalities, mask, score, dim_norm=True)
        torch.testing.assert_close(
            masked, gram_volume(anchor, [modalities[0], modalities[2]], score=score, dim_norm=True)
        )


def test_a_tuple_without_any_modality_is_infinitely_far():
    mask = torch.ones(6, 2, dtype=torch.bool)
    mask[3] = False
    anchor = unit(6, 10, seed=1).requires_grad_()
    volume = gram_volume(anchor, tuples(2), mask)
    assert volume[:, 3].isposinf().all() and volume[:, :3].isfinite().all()
    assert paired_volume(anchor, tuples(2), mask).isinf().tolist() == [False] * 3 + [True] + [False] * 2
    volume[:, :3].sum().backward()
    assert anchor.grad.isfinite().all()


def test_scores_are_related_as_their_names_say():
    anchor, modalities = unit(5, 10, seed=1), tuples(2)
    volume = gram_volume(anchor, modalities)
    torch.testing.assert_close(gram_volume(anchor, modalities, score="logvolume"), volume.log())
    own = (1 - (modalities[0] * modalities[1]).sum(1).square()).sqrt()
    torch.testing.assert_close(gram_volume(anchor, modalities, score="distance") * own, volume)
    torch.testing.assert_close(gram_volume(anchor, modalities, dim_norm=True), volume.sqrt())


def test_chunk_size_has_no_effect():
    anchor, modalities = unit(9, 10, seed=1), tuples(2)
    torch.testing.assert_close(
        gram_volume(anchor, modalities, chunk=2),
        gram_volume(anchor, modalities, chunk=100),
        rtol=1e-14,
        atol=0,
    )


@pytest.mark.parametrize(
    "case", ["duplicate modalities", "anchor equals modality", "zero modality", "zero anchor", "opposite"]
)
@pytest.mark.parametrize("score", ["volume", "distance", "logvolume"])
def test_volumes_and_gradients_of_degenerate_vectors_are_finite(case, score):
    t, x, y = (
        unit(3, 8, seed=1, dtype=torch.float32),
        unit(3, 8, seed=2, dtype=torch.float32),
        unit(3, 8, seed=3, dtype=torch.float32),
    )
    t, x, y = {
        "duplicate modalities": (t, x, x.clone()),
        "anchor equals modality": (x.clone(), x, y),
        "zero modality": (t, torch.zeros_like(x), y),
        "zero anchor": (torch.zeros_like(t), x, y),
        "opposite": (-x, x, y),
    }[case]
    for function in (gram_volume, paired_volume):
        inputs = [v.clone().requires_grad_() for v in (t, x, y)]
        value = function(inputs[0], inputs[1:], score=score)
        value.sum().backward()
        assert value.isfinite().all() and all(v.grad.isfinite().all() for v in inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_lose_only_their_own_rounding_also_under_autocast(dtype):
    anchor, modalities = (
        unit(6, 32, seed=1),
        [unit(6, 32, seed=1) + 0.01 * unit(6, 32, seed=5), unit(6, 32, seed=7)],
    )
    rounded = [x.to(dtype) for x in (anchor, *modalities)]
    exact = gram_volume(rounded[0].double(), [x.double() for x in rounded[1:]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        volume = gram_volume(rounded[0], rounded[1:])
        paired = paired_volume(rounded[0], rounded[1:])
    assert volume.dtype == torch.float32
    torch.testing.assert_close(volume.double(), exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(paired.double(), exact.diagonal(), rtol=1e-6, atol=0)


def test_wrong_shapes_and_names_are_refused_by_name():
    anchor, x = unit(3, 8), unit(4, 8)
    with pytest.raises(ValueError, match="modalities is empty"):
        gram_volume(anchor, [])
    with pytest.raises(ValueError, match=r"modalities\[1\]"):
        gram_volume(anchor, [x, unit(5, 8)])
    with pytest.raises(ValueError, match="anchor has shape"):
        gram_volume(unit(3, 7), [x])
    with pytest.raises(ValueError, match="mask has shape"):
        gram_volume(anchor, [x], torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected one of volume"):
        gram_volume(anchor, [x], score="area")


def test_triangle_score_is_twice_the_squared_area():
    t, v, a = unit(4, 6, seed=1), unit(5, 6, seed=2), unit(5, 6, seed=3)
    score = triangle_score(t, v, a)
    for i in range(4):
        for j in range(5):
            u, w = v[j] - t[i], a[j] - t[i]
            area = 0.5 * (u.dot(u) * w.dot(w) - u.dot(w) ** 2).sqrt()
            assert score[i, j].item() == pytest.approx(2 * area.item() ** 2)


def test_multilinear_product_sums_products_over_the_width():
    t, v, a = unit(4, 6, seed=1), unit(5, 6, seed=2), unit(5, 6, seed=3)
    torch.testing.assert_close(multilinear_product(t, [v, a]), torch.einsum("id,jd,jd->ij", t, v, a))


def test_leading_components_are_those_of_the_singular_value_decomposition():
    vectors = torch.stack(tuples(3), 1)
    values, leading = leading_components(vectors)
    u, s, _ = torch.linalg.svd(vectors.mT)
    torch.testing.assert_close(values.flip(1), s)
    torch.testing.assert_close((leading * u[:, :, 0]).sum(1).abs(), torch.ones(6, dtype=torch.float64))
    assert ((leading * vectors.sum(1)).sum(1) > 0).all()


def test_gradients_of_leading_components_are_exact_and_finite_for_duplicates():
    vectors = torch.stack(tuples(3, n=3, d=5), 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: leading_components(x), [vectors])
    for same in (tuples(1)[0][:, None].repeat(1, 3, 1), torch.zeros(6, 3, 10), torch.eye(3).repeat(6, 1, 1)):
        same = same.clone().requires_grad_()
        sum(x.sum() for x in leading_components(same)).backward()
        assert same.grad.isfinite().all()


def test_eigen_score_is_one_for_equal_vectors_and_one_over_n_for_orthogonal_ones():
    torch.testing.assert_close(eigen_score(unit(4, 1, 6).repeat(1, 3, 1)), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(eigen_score(torch.eye(3).repeat(2, 1, 1)), torch.full((2,), 1 / 3))


def test_volumes_for_mining_agree_in_float32_where_they_are_not_tiny():
    torch.manual_seed(0)
    anchor, *modalities = (F.normalize(torch.randn(20, 16), dim=1) for _ in range(4))
    rough, exact = (gram_volume(anchor, modalities, exact=exact) for exact in (False, True))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=1e-4, atol=1e-4)
