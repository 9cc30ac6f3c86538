"""Parts that several end tasks share: one caption per video, windows over long videos, caption generation.

Letters: T text positions, F video positions, W windows, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmpt.config import required
from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.ops.windows import window_ranges
from mmpt.processors.base import Aligner, TextProcessor, check_feature, check_finite, pack_videos
from mmpt.processors.masking import MMAttentionMask2DProcessor, TextGenerationProcessor
from mmpt.processors.tokens import SPECIAL_TOKENS_PER_CAPTION, SpecialIds, load_tokenizer
from mmpt.registry import ALIGNERS, TEXT_PROCESSORS
from mmpt.utils.seed import ItemRandom


@ALIGNERS.register()
class DSAligner(Aligner):
    """One caption and the first F seconds of its video: caps, cmasks, vfeats, vmasks, video_id."""


@TEXT_PROCESSORS.register()
class MetaTextBinarizer(TextProcessor):
    """Tokenises the text that the meta processor gives."""


class WindowAligner(Aligner):
    """Base of aligners that cut a long video into windows (dataset.sliding_window,
    dataset.sliding_window_size)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """Windows over a long video."""

        sliding_window: int | None = option(None, "stride of windows over a long video, seconds", least=1)
        sliding_window_size: int | None = option(None, "length of such a window, seconds", least=1)

    def __init__(self, config: DatasetConfig, special: SpecialIds | None = None):
        super().__init__(config, special)
        self.stride: int = required(config, "sliding_window")
        self.size: int = required(config, "sliding_window_size")
        if not self.stride >= 1 or not 1 <= self.size <= self.max_video_len:
            raise ValueError(
                f"dataset.sliding_window={self.stride} must be at least 1 and "
                f"dataset.sliding_window_size={self.size} "
                f"between 1 and dataset.max_video_len={self.max_video_len}."
            )

    def windows(self, feature: np.ndarray, video_id: Any) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """vfeats (W, F, D), vmasks (W, F), and the seconds [start, end) of each window, (W, 2)."""
        feature = check_feature(feature, video_id)
        ranges = np.array(window_ranges(len(feature), self.size, self.stride))
        vfeats, vmasks = pack_videos([feature], np.zeros(len(ranges), np.int64), ranges, self.max_video_len)
        return check_finite(vfeats, [video_id]), vmasks, ranges


@TEXT_PROCESSORS.register()
class NLGTextProcessor(TextProcessor):
    """A caption to be generated: (token ids, the text itself)."""

    def __call__(self, text_id: str, rng: ItemRandom | None = None) -> tuple[list[int], str]:
        return self.tokenize(text_id), text_id


@ALIGNERS.register()
class DSNLGAligner(Aligner):
    """Captioning: adds text_label (T) and attention_mask (L, L); in training the caption shifted by one, else
    the prompt alone and `ref`.

    The [CLS] token doubles as begin, [SEP] as end of sentence.
    """

    def __init__(self, config: DatasetConfig, special: SpecialIds | None = None, tokenizer: Any = None):
        super().__init__(config, special)
        self.tokenizer = tokenizer
        self.attention = MMAttentionMask2DProcessor()

    def __call__(
        self,
        video_id: Any,
        video_feature: np.ndarray,
        text_feature: tuple[Sequence[int], str],
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        ids, _ = text_feature
        item = super().__call__(video_id, video_feature, ids, rng)
        if self.config.split in ("train", "valid"):
            caps, text_label = TextGenerationProcessor(self.special)(item["caps"])
            return {
                **item,
                "caps": caps,
                "text_label": text_label,
                "attention_mask": self.attention(item["vmasks"], item["cmasks"], "textgen"),
            }
        cmasks = torch.ones_like(item["cmasks"])
        prompt = torch.tensor([self.special.cls, self.special.sep, self.special.cls])
        return {
            **item,
            "caps": prompt,
            "cmasks": cmasks,
            "text_label": item["caps"],
            "attention_mask": self.attention(item["vmasks"], cmasks, "textgen"),
            "ref": self.reference(ids),
        }

    def reference(self, ids: Sequence[int]) -> str:
        """What a perfect model could say: the caption cut to the room there is, through the tokenizer and
        back."""
        tokenizer = self.tokenizer or load_tokenizer(self.config.bert_name, self.config.use_fast)
        return tokenizer.decode(
            list(ids)[: self.max_text_len - SPECIAL_TOKENS_PER_CAPTION], skip_special_tokens=True
        )
