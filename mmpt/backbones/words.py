"""Order-free text encoder over a fixed word table, as in MIL-NCE and GDT.

Shape letters: B sentences, N words per sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

LOWER_CASE_WORDS = "lower"  # letters, digits and apostrophes of the lower-cased text (S3D)
CASED_WORDS = "cased"  # word characters and apostrophes, case kept (GDT)
_PATTERNS = {LOWER_CASE_WORDS: re.compile(r"[a-zA-Z0-9']+"), CASED_WORDS: re.compile(r"[\w']+")}


class Vocabulary:
    """Words -> ids; id = position in the list + 1, 0 is padding, unknown words are dropped.

    Args:
        words: the list, in the order of the word table's rows.
        max_words: columns of the id tensor.
        splitting: LOWER_CASE_WORDS or CASED_WORDS.
    """

    def __init__(self, words: Iterable[str], max_words: int, splitting: str = CASED_WORDS):
        self.ids = {str(word): index + 1 for index, word in enumerate(words)}
        self.max_words = max_words
        self.splitting = splitting

    @classmethod
    def from_file(cls, path: str | Path, max_words: int, splitting: str = CASED_WORDS) -> Vocabulary:
        """Reads a `.npy` array of words (`s3d_dict.npy`, `dict.npy`)."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no word list at {path}; it is published beside the weights and maps words to rows of "
                "their table."
            )
        return cls(np.load(path, allow_pickle=False), max_words, splitting)

    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> (B, max_words) int64, cut or padded with 0."""
        ids = torch.zeros(len(sentences), self.max_words, dtype=torch.long)
        for row, sentence in zip(ids, sentences, strict=True):
            text = sentence.lower() if self.splitting == LOWER_CASE_WORDS else sentence
            known = [self.ids[word] for word in _PATTERNS[self.splitting].findall(text) if word in self.ids][
                : self.max_words
            ]
            row[: len(known)] = torch.tensor(known, dtype=torch.long)
        return ids


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
