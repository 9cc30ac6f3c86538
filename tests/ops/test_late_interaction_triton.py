from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from mmpt.ops.late_interaction import _packing, token_similarity
from tests.ops.kernels import DEVICE, KERNELS

pytestmark = KERNELS


class Clips(NamedTuple):
    text: Tensor
    video: Tensor
    text_mask: Tensor
    video_mask: Tensor


def clips(a=12, t=31, b=15, f=18, d=40, seed=0):
    """Ragged clips, two of them empty, one full, one token zero; videos resemble texts."""
    torch.manual_seed(seed)
    text = torch.randn(a, t, d)
    video = torch.randn(b, f, d) + text.flatten(0, 1).repeat(99, 1)[: b * f].view(b, f, d)
    text_mask, video_mask = (torch.rand(n, m) < 0.2 + 0.8 * torch.rand(n, 1) for n, m in ((a, t), (b, f)))
    text_mask[3], video_mask[7 % b], video_mask[0], text[1, 2] = False, False, True, 0.0
    return Clips(text, video, text_mask, video_mask)


def both(given, dtype=torch.float32, like=None, **options):
    """Similarities and gradients of a weighted sum: of the kernels, and of float64 torch."""
    weights = torch.randn(2, len(given.text), len(given.video), generator=torch.Generator().manual_seed(9))

    def run(kind, device, **how):
        sides = [x.to(device, kind).requires_grad_() for x in given[:2]]
        out = torch.stack(token_similarity(*sides, *(x.to(device) for x in given[2:]), **how))
        grads = torch.autograd.grad((out * weights.to(out)).sum(), sides)
        return [x.detach().cpu().double() for x in (out, *grads)]

    rounded = given._replace(text=given.text.to(dtype), video=given.video.to(dtype))
    found = run(dtype, DEVICE, backend="triton", **options)
    options.pop("precision", None)
    given = rounded
    return found, run(torch.float64, "cpu", **options)


def error(found, exact):
    return [float((x - y).norm() / y.norm()) for x, y in zip(found, exact, strict=True)]


@pytest.mark.parametrize("alpha", [1.0, 0.04, None])
def test_kernels_give_values_and_gradients_of_float64_on_ragged_and_empty_clips(alpha):
    value, *gradients = error(*both(clips(a=8, b=9), alpha=alpha))
    assert value < 2e-6 and max(gradients) < 5e-6


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-3), (torch.bfloat16, 5e-3)])
def test_half_precision_factors_keep_three_digits_of_the_gradient(dtype, bound):
    value, *gradients = error(*both(clips(), dtype, precision="bf16"))
    assert value < 5e-6 and max(gradients) < bound  # gradients have the dtype of the tokens


def test_the_longer_side_may_be_the_video_and_historic_padding_is_added():
    value, *gradients = error(*both(clips(t=5, f=70, d=64), compat=True))
    assert value < 2e-6 and max(gradients) < 5e-6


def test_a_scratch_matrix_smaller_than_the_problem_changes_nothing(monkeypatch):
    given = clips(a=10, b=14, d=16)
    whole, _ = both(given)
    small = {key: tile._replace(chunk=(tile.rows, tile.columns)) for key, tile in _packing.TILES.items()}
    monkeypatch.setattr(_packing, "TILES", small)
    pieces, exact = both(given)
    assert torch.equal(pieces[0], whole[0]) and max(error(pieces, exact)) < 5e-6


def test_results_of_the_kernels_are_repeatable_to_the_bit():
    first, _ = both(clips(), precision="bf16")
    again, _ = both(clips(), precision="bf16")
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))


def test_a_loss_without_any_valid_token_is_zero_and_passes_zero():
    given = clips(a=4, b=4, d=16)
    none = [torch.zeros_like(mask) for mask in given[2:]]
    found, _ = both(Clips(*given[:2], *none), precision="bf16")
    assert not any(x.any() for x in found)


def test_large_gradients_stay_finite_in_half_precision():
    given = clips(a=4, b=4, d=16)
    sides = [x.to(DEVICE).requires_grad_() for x in given[:2]]
    masks = [x.to(DEVICE) for x in given[2:]]
    to_video, to_text = token_similarity(*sides, *masks, precision="bf16", backend="triton")
    (1e6 * (to_video + to_text).sum()).backward()
    assert all(torch.isfinite(x.grad).all() and x.grad.any() for x in sides)


@pytest.mark.parametrize(
    ("n", "width", "slots", "clips"), [(50, 31, 128, 16), (40, 3, 16, 16), (9, 1, 16, 4)]
)
def test_packing_fills_blocks_with_whole_clips_in_order(n, width, slots, clips):
    torch.manual_seed(n)
    mask = torch.rand(n, width) < torch.rand(n, 1)
    mask[3], mask[4] = False, True
    first, filled, held = [0], 0, 0
    for clip, length in enumerate(mask.sum(1).tolist()):
        if filled + length > slots or held == clips:
            first, filled, held = [*first, clip], 0, 0
        filled, held = filled + length, held + 1
    packing = _packing.pack(mask, slots, clips)
    assert int(packing.used) == len(first) and packing.first[: len(first)].tolist() == first
    place = (packing.token >= 0).nonzero()[:, 0]
    assert torch.equal(packing.token[place].long(), mask.flatten().nonzero()[:, 0])
    assert torch.equal(packing.clip[place].long(), packing.token[place].long() // width)
    block = place // slots
    assert (
        (packing.first[block] <= packing.clip[place]) & (packing.clip[place] < packing.first[block + 1])
    ).all()


def test_what_the_kernels_cannot_do_is_named():
    given = clips(b=8, t=5, f=140, d=8)
    with pytest.raises(ValueError, match="at most 128 tokens on one side and 64 on the other"):
        token_similarity(*given, backend="triton")
    with pytest.raises(ValueError, match="alpha is at least 0.025"):
        token_similarity(*clips(), alpha=0.01, backend="triton")
    given = [x.double() for x in clips()]
    with pytest.raises(ValueError, match="the input is float64"):
        token_similarity(*given, backend="triton")


def test_packing_never_reads_a_value_on_the_host():
    packing = _packing.pack(torch.empty(9, 31, dtype=torch.bool, device="meta"), 128, 16)  # has none to read
    assert packing.token.shape == (3 * 128,) and packing.first.shape == (4,)
