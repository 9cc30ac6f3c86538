"""Words -> rows of a fixed word table, as S3D, MIL-NCE and GDT read text.

Shape letters: B sentences, N words per sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmpt.utils.shardedtensor import open_npy

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
        try:
            words = open_npy(path)
        except ValueError as error:
            raise ValueError(f"{path}: not a whole .npy file of words ({error}). Fetch it again.") from error
        if words.ndim != 1 or words.dtype.kind != "U":
            raise ValueError(f"{path}: {words.dtype} of shape {words.shape}, expected a list of words.")
        return cls(words, max_words, splitting)

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
