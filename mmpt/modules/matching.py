"""Does this text belong to that item? The matching head of GRAM and what feeds it.

Shapes: B items on this rank, R ranks, n pairs, S text tokens, L condition tokens, H hidden width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmpt.ops.distributed import all_gather
from mmpt.ops.precision import under_autocast

NORM_EPS = 1e-12


class GramMatchHead(nn.Module):
    """Linear, exact GELU, LayerNorm, Linear to two logits: (mismatched, matched).

    Args:
        hidden: width H of the fused representation.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.linear1 = nn.Linear(hidden, hidden)
        self.layernorm = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.linear2 = nn.Linear(hidden, 2)

    def forward(self, fused: Tensor) -> Tensor:
        """(n, H) -> (n, 2)."""
        return self.linear2(self.layernorm(nn.functional.gelu(self.linear1(fused))))

    def score(self, fused: Tensor) -> Tensor:
        """Probability (n,) that a pair matches."""
        return self(fused).softmax(1)[:, 1]


class PairMatcher(nn.Module):
    """A fusion encoder with the matching head, bound to a batch for `GRAMLoss`.

    Args:
        fusion: module (token ids (n, S), token mask (n, S), condition (n, L, H), condition mask (n, L)) ->
            fused (n, H); usually the text encoder with cross-attention to the condition, first position.
        hidden: width H.
    """

    def __init__(self, fusion: nn.Module, hidden: int):
        super().__init__()
        self.fusion = fusion
        self.head = GramMatchHead(hidden)

    def forward(self, ids: Tensor, mask: Tensor, condition: Tensor, condition_mask: Tensor) -> Tensor:
        """Logits (n, 2) of n pairs of a text and a condition sequence."""
        return self.head(self.fusion(ids, mask, condition, condition_mask))

    def bind(
        self, ids: Tensor, mask: Tensor, condition: Tensor, condition_mask: Tensor | None = None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """What the model returns as `matcher`; see `bind_matcher`."""
        return bind_matcher(self, ids, mask, condition, condition_mask)


def bind_matcher(
    score: Callable[..., Tensor],
    ids: Tensor,
    mask: Tensor,
    condition: Tensor,
    condition_mask: Tensor | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """What a model returns as `matcher`: (text index (n,), condition index (n,)) over all ranks -> logits
    (n, 2).

    Conditions are gathered with gradient, texts are ids.

    Args:
        score: (ids, mask, condition, condition mask) of n pairs -> logits (n, 2).
        ids, mask: (B, S) token ids and mask of the texts.
        condition: (B, L, H) tokens of the other modalities.
        condition_mask: (B, L) bool, true = real; None: all are.
    """
    if condition_mask is None:
        condition_mask = torch.ones_like(condition[..., 0], dtype=torch.bool)
    ids, mask, condition_mask = (all_gather(x, with_grad=False) for x in (ids, mask, condition_mask))
    condition = all_gather(condition)
    score = under_autocast(score, condition)

    def match(text: Tensor, item: Tensor) -> Tensor:
        return score(ids[text], mask[text], condition[item], condition_mask[item])

    return match
