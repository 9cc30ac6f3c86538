"""A number that two lists of tensors share if, for all practical purposes, all their bits are equal."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an element
_BITS = 2**64


def fingerprint(tensors: Iterable[Tensor | None]) -> str:
    """16 hexadecimal digits: the sum over tensors of an odd key times the sum of the tensor's words, modulo
    2^64.

    Sums of integers do not depend on their order, so the value is that of the bits alone, on any device. A
    single flipped bit changes it. Moving words within one tensor does not: this finds differences that
    happen, not those that somebody contrives.

    Args:
        tensors: of any shape and dtype; None counts as an empty one.
    """
    sums = [None if x is None or x.numel() == 0 else _sum_of_words(x) for x in tensors]
    total, key = 0, 1
    values = iter(_on_host([x for x in sums if x is not None]))
    for found in sums:
        key = (key * 6364136223846793005 + 1442695040888963407) % _BITS  # Knuth's MMIX generator
        if found is not None:
            total = (total + (key | 1) * next(values)) % _BITS
    return f"{total:016x}"


def _sum_of_words(x: Tensor) -> Tensor:
    """() int64, modulo 2^64."""
    x = x.detach().contiguous().view(-1)
    size = x.element_size()
    if size < 8 and len(x) * size % 8 == 0:  # words of 8 bytes are summed without a conversion
        size, x = 8, x if x.storage_offset() * size % 8 == 0 else x.clone()
    words = x.view(_WORDS[size])
    return words.sum(dtype=torch.int64)


def _on_host(sums: list[Tensor]) -> list[int]:
    """Read all at once: the host waits for the device a single time."""
    return torch.stack(sums).tolist() if sums else []
