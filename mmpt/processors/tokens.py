"""Token ids and THE layout of a caption.

    caps     [CLS] [SEP] w1 ... wn [SEP] [PAD] ...      (T,) int64
    cmasks    true  true true  ... true   false ...     (T,) bool

The first [SEP] ends the video segment: single-encoder models splice the F video tokens between positions 0
and 1, two-tower models drop it. T = max_len - max_video_len, so at most T - 3 words fit.

Letters: B clips, T text positions, n words of a clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mmpt.utils.optional import optional_import, pretrained

SPECIAL_TOKENS_PER_CAPTION = 3  # [CLS] [SEP] ... [SEP]
NO_LIMIT = (
    10**9
)  # of what a tokenizer takes without a warning: `pack_captions` cuts what is too long for the model


@dataclass(frozen=True)
class SpecialIds:
    """The ids a tokenizer gives to its special tokens."""

    cls: int
    sep: int
    pad: int
    mask: int
    vocab_size: int

    @classmethod
    def of(cls, tokenizer: Any) -> SpecialIds:
        """Read them off a transformers tokenizer."""
        return cls(
            cls=tokenizer.cls_token_id,
            sep=tokenizer.sep_token_id,
            pad=tokenizer.pad_token_id,
            mask=tokenizer.mask_token_id,
            vocab_size=len(tokenizer),
        )


@lru_cache(maxsize=4)
def load_tokenizer(bert_name: str | None, use_fast: bool | None = None) -> Any:
    """The tokenizer of `dataset.bert_name`: a hub name, or a local folder with config.json and vocab.txt.

    Raises:
        FileNotFoundError: neither, or it has no vocabulary.
    """
    if bert_name is None:
        raise ValueError(
            "dataset.bert_name is not set; give a tokenizer: a hub name, or a folder with config.json and "
            "vocab.txt."
        )
    options = {"model_max_length": NO_LIMIT} | ({} if use_fast is None else {"use_fast": use_fast})
    return read_tokenizer(bert_name, **options)


def read_tokenizer(bert_name: str, **options: Any) -> Any:
    """A tokenizer as transformers reads it; errors as of `load_tokenizer`."""
    transformers = optional_import("transformers")  # takes seconds to import, and only text needs it
    needed = "config.json and vocab.txt"
    tokenizer = pretrained(transformers.AutoTokenizer, bert_name, "dataset.bert_name", needed, **options)
    # beside a config.json alone transformers makes one, to which every word is unknown
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise FileNotFoundError(
            f"dataset.bert_name={bert_name!r} has no vocabulary. Put the vocab.txt or tokenizer.json of its "
            "tokenizer beside its config.json."
        )
    return tokenizer


def pack_captions(
    words: np.ndarray, first: np.ndarray, count: np.ndarray, length: int, special: SpecialIds
) -> tuple[np.ndarray, np.ndarray]:
    """Lay out B captions that are stretches of one flat array of word ids.

    Args:
        words: (total,) word ids, no padding.
        first: (B,) where each caption starts in `words`.
        count: (B,) its number of words; what does not fit is cut.
        length: T.
        special: ids of [CLS], [SEP], [PAD].

    Returns:
        caps (B, T) int64, cmasks (B, T) bool.
    """
    room = length - SPECIAL_TOKENS_PER_CAPTION
    if room < 1:
        raise ValueError(
            f"dataset.max_len - dataset.max_video_len is {length}; a caption needs at least "
            f"{SPECIAL_TOKENS_PER_CAPTION + 1} positions."
        )
    count = np.minimum(count, room)[:, None]
    column = np.arange(room)
    if len(words):
        gathered = words[np.minimum(np.asarray(first)[:, None] + column, len(words) - 1)]  # (B, T - 3)
    else:
        gathered = np.full((len(count), room), special.pad)
    caps = np.full((len(count), length), special.pad, dtype=np.int64)
    caps[:, 0] = special.cls
    caps[:, 1] = special.sep
    caps[:, 2:-1] = np.where(column < count, gathered, special.pad)
    np.put_along_axis(caps, count + 2, special.sep, axis=1)
    return caps, np.arange(length) < count + SPECIAL_TOKENS_PER_CAPTION
