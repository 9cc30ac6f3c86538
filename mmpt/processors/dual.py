"""Words for the dual encoders of transformers (CLIP, SigLIP, X-CLIP, CLAP): their own tokenizer, laid out as
they were trained.

    caps     prefix w1 ... wn suffix [PAD] ...      (T,) int64, such as <s> ... </s>, or ... </s>
    cmasks    true true ... true  true  false ...    (T,) bool

Letters: B captions, T text positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from mmpt.config import required
from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import Aligner
from mmpt.processors.tokens import load_tokenizer
from mmpt.registry import ALIGNERS
from mmpt.utils.optional import optional_import

LONGEST = 77  # tokens, as CLIP reads; CLAP was trained on as many
PROBE = "a"
LIKE_ROBERTA = ("clap_text_model", "altclip_text_model")  # which count positions from the id of padding on


@dataclass(frozen=True)
class TextLayout:
    """Where words go.

    Attributes:
        prefix, suffix: ids round the words.
        pad: id of padding.
        columns: T.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pad: int
    columns: int

    def pack(self, captions: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """caps (B, T) and cmasks (B, T) of B lists of token ids; what does not fit is cut."""
        room = self.columns - len(self.prefix) - len(self.suffix)
        rows = [[*self.prefix, *list(ids)[:room], *self.suffix] for ids in captions]
        counts = torch.tensor([len(row) for row in rows])
        caps = torch.tensor([row + [self.pad] * (self.columns - len(row)) for row in rows])
        return caps, torch.arange(self.columns) < counts[:, None]


@lru_cache(maxsize=4)
def text_layout(source: str) -> TextLayout:
    """The layout that a tokenizer and a model agree on.

    Args:
        source: hub id or folder.
    """
    transformers = optional_import("transformers")
    config = transformers.AutoConfig.from_pretrained(source).get_text_config()
    tokenizer = load_tokenizer(source)
    bare = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    whole = tokenizer(PROBE)["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    first = config.pad_token_id + 1 if config.model_type in LIKE_ROBERTA else 0
    columns = min(config.max_position_embeddings - first, LONGEST)
    return TextLayout(tuple(whole[:start]), tuple(whole[start + len(bare) :]), pad, columns)


@ALIGNERS.register()
class DualEncoderAligner(Aligner):
    """One caption and the first F seconds of its video, the caption as the model named in `dataset.bert_name`
    reads it: caps, cmasks (T), vfeats, vmasks, video_id."""

    def __init__(self, config: DatasetConfig):
        self.config = config
        self.max_video_len: int = required(config, "max_video_len")

    @cached_property
    def layout(self) -> TextLayout:
        return text_layout(required(self.config, "bert_name"))

    @property
    def max_text_len(self) -> int:  # type: ignore[override]  # the model is read when it is asked for
        return self.layout.columns

    def pack(self, captions: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layout.pack(captions)
