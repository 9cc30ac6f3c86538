"""Bits of tensors as one number."""

import pytest
import torch

from mmpt.ops.fingerprint import fingerprint


def some(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, generator=generator).to(dtype) for n in (1, 4, 7)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_equal_bits_give_one_number_and_any_flipped_bit_another(dtype):
    tensors = some(dtype)
    whole = fingerprint(tensors)
    assert fingerprint([x.clone() for x in tensors]) == whole and len(whole) == 16
    for x in tensors:
        words = x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])
        for bit in (0, 8 * x.element_size() - 1):
            flip = torch.tensor(1).bitwise_left_shift(bit).to(words.dtype)
            words[0, 0] ^= flip
            assert fingerprint(tensors) != whole
            words[0, 0] ^= flip


def test_the_order_of_tensors_counts_and_so_does_one_that_is_missing():
    first, second, third = some()
    numbers = {
        fingerprint(x)
        for x in (
            [first, second, third],
            [second, first, third],
            [None, first, second, third],
            [first, second],
        )
    }
    assert len(numbers) == 4
    assert fingerprint([None, torch.zeros(0)]) == fingerprint([])


def test_a_view_that_is_not_contiguous_counts_by_its_values():
    x = torch.arange(24.0).view(4, 6)
    assert fingerprint([x.T]) == fingerprint([x.T.clone(memory_format=torch.contiguous_format)])
    assert fingerprint([x.view(-1)[1:5]]) == fingerprint([x.view(-1)[1:5].clone()])
