"""Masking of frames and words for VLM (masked frame and masked language modelling), and 2-D attention masks.

Letters: F video positions, T text positions, L = T + F (joint sequence [CLS] video [SEP] text [SEP]).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmpt.config.fields import option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.aligners import ClipAligner, VariedLenAligner, budget_range
from mmpt.processors.base import bare_id, check_feature, needed
from mmpt.processors.captions.captions import Captions
from mmpt.processors.tokens import SpecialIds
from mmpt.registry import ALIGNERS
from mmpt.utils.seed import ItemRandom

IGNORED = -100  # label of a position that no loss reads


def mask_rate(mode: str | None, rate: float) -> float:
    """Probability that a position is masked: None or "mask" the given rate, "full" 1, "no" 0, "inverse" 1 -
    rate."""
    rates = {None: rate, "mask": rate, "full": 1.0, "no": 0.0, "inverse": 1 - rate}
    if mode not in rates:
        raise ValueError(f"mask mode {mode!r}, expected one of {list(rates)}.")
    return rates[mode]


def mask_written(
    rows: Sequence[Sequence[int]], rate: float, special: SpecialIds, rng: random.Random
) -> tuple[list[list[int]], list[list[int]]]:
    """Texts that a model is to write, with some words masked: those of VAST and GRAM.

    Every position but the first is chosen with probability `rate`, the closing [SEP] among them, and a row
    again until it has one. Of the chosen ones 80 % become [MASK], 10 % a random word, 10 % stay.

    Args:
        rows: texts [CLS] words [SEP] without padding.
        rate: published 0.6 for captions, 0.99 for answers.
        special: ids; words are what comes behind them.
        rng: draws one number for each position, row by row, then one or two for each chosen position, as the
            released code draws from Python's `random`.

    Returns:
        Masked rows, and labels: the id at chosen positions, -100 elsewhere.
    """
    words = range(1 + max(special.cls, special.sep, special.pad, special.mask), special.vocab_size)
    chosen = []
    for row in rows:
        places: list[int] = []
        while not places and len(row) > 1:
            places = [place for place in range(1, len(row)) if rng.random() < rate]
        chosen.append(places)
    masked, labels = [list(row) for row in rows], [[IGNORED] * len(row) for row in rows]
    for row, places, inputs, label in zip(rows, chosen, masked, labels, strict=True):
        for place in places:
            label[place] = row[place]
            draw = rng.random()
            if draw < 0.8:
                inputs[place] = special.mask
            elif draw < 0.9:
                inputs[place] = rng.choice(words)
    return masked, labels


class FrameMaskingProcessor:
    """Chooses frames to be predicted (dataset.mfm_probability, 0.15)."""

    def __init__(self, config: DatasetConfig):
        self.rate = config.mfm_probability

    def __call__(
        self,
        vmasks: torch.Tensor,
        generator: torch.Generator,
        mode: str | None = None,
        vfeats: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Label (F) bool, true = to be predicted; those rows of `vfeats`, where given, are zeroed in
        place."""
        rates = torch.full(vmasks.shape, mask_rate(mode, self.rate)).masked_fill_(~vmasks, 0.0)
        label = torch.bernoulli(rates, generator=generator).bool()
        if vfeats is not None:
            vfeats[label] = 0.0
        return label


class TextGenerationProcessor:
    """Shifts a caption for left-to-right prediction."""

    def __init__(self, special: SpecialIds):
        self.special = special

    def __call__(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels, each (T).

        [CLS] [SEP] w1 ... wn [SEP] pad becomes [CLS] [SEP] [BOS] w1 ... wn pad; the labels are w1 to the last
        [SEP], where they stood.
        """
        padding = ids == self.special.pad
        labels = ids.masked_fill(padding, IGNORED)
        labels[:2] = IGNORED
        inputs = ids.clone()
        inputs[3:] = ids[2:-1]
        inputs[2] = self.special.cls  # [BOS]
        return inputs.masked_fill(padding, self.special.pad), labels


class TextMaskingProcessor:
    """BERT's masking (dataset.mlm_probability, 0.15): of the chosen words 80 % become [MASK], 10 % a random
    word, 10 % stay."""

    def __init__(self, config: DatasetConfig, special: SpecialIds):
        self.rate = config.mlm_probability
        self.special = special
        self.shift = TextGenerationProcessor(special)

    def __call__(
        self, ids: torch.Tensor, generator: torch.Generator, mode: str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels, each (T).

        Args:
            ids: (T) a packed caption.
            generator: of the draws.
            mode: None, "no", "full", "inverse"; "mask" masks without labels; "textgen" shifts for generation,
                "textgenmask" masks as well.
        """
        if mode is not None and mode.startswith("textgen"):
            inputs, labels = self.shift(ids)
            if mode != "textgen":
                inputs, _ = self.mask(inputs, generator, mode.removeprefix("textgen"))
            return inputs, labels
        inputs, labels = self.mask(ids, generator, mode)
        return inputs, torch.full_like(labels, IGNORED) if mode == "mask" else labels

    def mask(
        self, ids: torch.Tensor, generator: torch.Generator, mode: str | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masked ids and labels; every draw covers all T positions, so that the stream does not depend on the
        words."""

        def coin(rate: float) -> torch.Tensor:
            return torch.bernoulli(torch.full(ids.shape, rate), generator=generator).bool()

        special = sum(ids == token for token in (self.special.cls, self.special.sep, self.special.pad)).bool()
        rates = torch.full(ids.shape, mask_rate(mode, self.rate)).masked_fill_(special, 0.0)
        chosen = torch.bernoulli(rates, generator=generator).bool()
        masked = coin(0.8) & chosen
        replaced = coin(0.5) & chosen & ~masked
        words = torch.randint(self.special.vocab_size, ids.shape, generator=generator, dtype=torch.long)
        inputs = torch.where(replaced, words, ids.masked_fill(masked, self.special.mask))
        return inputs, ids.masked_fill(~chosen, IGNORED)


class MMAttentionMask2DProcessor:
    """Which position sees which, (L, L) bool, rows looking at columns."""

    def __call__(self, vmask: torch.Tensor, cmask: torch.Tensor, mode: str | None = None) -> torch.Tensor:
        """Mask of one item.

        Args:
            vmask: (F) valid frames.
            cmask: (T) valid text positions, [CLS] and the video's [SEP] first.
            mode: "textgen": text sees the video and the text before it, video sees itself; "videogen" the
                other way round; else every position sees all valid ones.
        """
        visible = torch.cat([cmask[:1], vmask, cmask[1:]])  # (L)
        position = torch.arange(len(visible))
        is_text = position > len(vmask) + 1
        if mode == "textgen":
            generated = is_text
        elif mode == "videogen":
            generated = (position > 0) & ~is_text  # frames and the [SEP] behind them
        else:
            return visible.expand(len(visible), -1).clone()
        before = torch.ones(len(visible), len(visible), dtype=torch.bool).tril()
        generates = (generated & visible)[:, None]  # rows
        return (visible & ~generated) | (generates & before & generated & visible)


@ALIGNERS.register()
class MFMMLMAligner(ClipAligner):
    """VLM's items: clips with a drawn text budget, some of each masked; now and then a whole modality is
    masked (dataset.mm_prob).

    Adds video_label (K, F) bool and text_label (K, T) int64, with mm_type "textgen" also attention_mask (K,
    L, L). Clips are drawn one by one from the stream of Python's `random` in both samplers, masks from torch.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(VariedLenAligner.Config):
        """What is masked, and the range of text lengths."""

        mlm_probability: float = option(0.15, "share of text tokens masked", least=0, most=1)
        mfm_probability: float = option(0.15, "share of video tokens masked", least=0, most=1)
        mm_prob: float = option(0.0, "probability of masking a whole modality", least=0, most=1)
        mm_type: str = option(
            "full",
            "text mode of whole-text masking",
            one_of=("full", "inverse", "mask", "textgen", "textgenmask"),
        )
        lazy_vfeat_mask: bool = option(False, "leave zeroing masked frames to the model")

    allows_holes = True

    def __init__(self, config: DatasetConfig, special: SpecialIds | None = None):
        super().__init__(config, special)
        self.text_budget = budget_range(config, "sampled_min_len", "sampled_max_len")
        self.mask_frames = FrameMaskingProcessor(config)
        self.attention = MMAttentionMask2DProcessor()

    def __call__(
        self, video_id: Any, video_feature: np.ndarray, text_feature: Any, rng: ItemRandom | None = None
    ) -> dict[str, Any]:
        feature = check_feature(video_feature, video_id)
        video_id = bare_id(video_id)
        captions = self.usable(Captions.of(text_feature), len(feature), video_id)
        streams = needed(rng, self)
        clips = [self.draw_clip(feature, captions, video_id, streams) for _ in range(self.clips_per_video)]
        if self.config.sort_clips:
            clips.sort(
                key=lambda clip: [
                    clip[name] for name in ("text_start", "video_start", "text_end", "video_end")
                ]
            )
        return {
            **{name: torch.stack([torch.as_tensor(clip[name]) for clip in clips]) for name in clips[0]},
            "video_id": video_id,
        }

    def draw_clip(
        self, feature: np.ndarray, captions: Captions, video_id: Any, rng: ItemRandom
    ) -> dict[str, Any]:
        """One masked clip."""
        chosen, start, end = self.draw_one(captions, len(feature), rng)
        words = [token for clip in chosen for token in captions.ids(clip)]
        caps, cmasks = self.build_text(words)
        vfeats, vmasks = self.build_video(feature, video_id, start, end)
        text_mode, video_mode = self.draw_modes(rng)
        zeroed = None if self.config.lazy_vfeat_mask else vfeats
        video_label = self.mask_frames(vmasks, rng.torch, video_mode, zeroed)
        caps, text_label = TextMaskingProcessor(self.config, self.special)(caps, rng.torch, text_mode)
        clip = {
            "caps": caps,
            "cmasks": cmasks,
            "vfeats": vfeats,
            "vmasks": vmasks,
            "video_label": video_label,
            "text_label": text_label,
            "video_start": start,
            "video_end": end,
            "text_start": chosen[0],
            "text_end": chosen[-1] + 1,
        }
        if self.config.mm_type == "textgen":
            clip["attention_mask"] = self.attention(vmasks, cmasks, text_mode)
        return clip

    def draw_modes(self, rng: ItemRandom) -> tuple[str | None, str | None]:
        """Mask modes of text and video; None is the ordinary rate."""
        if rng.python.random() >= self.config.mm_prob:
            return None, None
        if rng.python.random() > 0.5:
            return self.config.mm_type, "no"
        return "no", "full"
