"""Order-free text encoder over a fixed word table, as in MIL-NCE and GDT.

Shape letters: B sentences, N words per sentence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WordEncoder(nn.Module):
    """Fixed word vectors, a linear layer, ReLU, maximum over words, and optionally a second linear layer.

    Args:
        n_words: rows of the table, row 0 is padding.
        word_dim: width of a word vector.
        hidden_dim: width behind the first layer.
        output_dim: width behind the second layer; None: there is no second layer.
        mask_padding: leave padding out of the maximum. Off by default, as in the published models, where
            padding takes part.
    """

    def __init__(
        self,
        n_words: int,
        word_dim: int = 300,
        hidden_dim: int = 2048,
        output_dim: int | None = None,
        mask_padding: bool = False,
    ):
        super().__init__()
        self.mask_padding = mask_padding
        self.word_embd = nn.Embedding(n_words, word_dim)
        self.word_embd.weight.requires_grad_(False)
        self.fc1 = nn.Linear(word_dim, hidden_dim)
        if output_dim is not None:
            self.fc2 = nn.Linear(hidden_dim, output_dim)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, N) word ids -> (B, hidden_dim or output_dim)."""
        hidden = torch.relu(self.fc1(self.word_embd(ids)))
        if self.mask_padding:
            hidden = hidden.masked_fill((ids == 0)[..., None], 0)  # ReLU leaves nothing below 0
        pooled = hidden.amax(dim=1)
        return self.fc2(pooled) if hasattr(self, "fc2") else pooled
