"""Aligners of pre-training: draw K clips from a video and pad them.

    FixedLenAligner    text fills the caption tensor, video = the seconds its captions span
    VariedLenAligner   the same with a drawn text budget
    StartClipAligner   always from the first caption
    OverlappedAligner  text with a drawn budget; video of a drawn length round a second inside the text's span
    (VideoCLIP) VideoRetri...      the same for a group of videos at once (retrieval-augmented batches)

The K clips of a video come sorted by time (dataset.sort_clips), so that runs of them are sequences for the
paragraph loss.

Letters: m videos of a group, K clips per video, B = m K, T text positions, F video positions, D feature
    width.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from mmpt.config import required
from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import (
    NAMED,
    Aligner,
    MissingData,
    bare_id,
    check_feature,
    check_finite,
    needed,
    pack_videos,
)
from mmpt.processors.captions.captions import Captions
from mmpt.processors.sampling import (
    TextClipSamplingProcessor,
    VideoClipSamplingProcessor,
    text_ranges,
    video_ranges,
)
from mmpt.processors.tokens import SPECIAL_TOKENS_PER_CAPTION, SpecialIds, pack_captions
from mmpt.registry import ALIGNERS
from mmpt.utils.seed import ItemRandom

logger = logging.getLogger(__name__)

Budget = int | tuple[int, int]  # fixed, or drawn from an inclusive range


@dataclass
class Clips:
    """B drawn clips. Captions are numbered over all videos of the group, [text_start, text_end); seconds are
    [video_start, video_end)."""

    video: np.ndarray
    text_start: np.ndarray
    text_end: np.ndarray
    video_start: np.ndarray
    video_end: np.ndarray

    def sorted(self) -> Clips:
        """By time within each video: text start, video start, text end, video end."""
        return self.take(
            np.lexsort((self.video_end, self.text_end, self.video_start, self.text_start, self.video))
        )

    def take(self, order: np.ndarray) -> Clips:
        """The clips in another order."""
        return Clips(*(getattr(self, field.name)[order] for field in fields(self)))


class ClipAligner(Aligner):
    """Common part: K clips per video, sampled by the default sampler or by replaying Python's `random`
    (dataset.sampler).

    Sub-classes set the class attributes and the budgets.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """How clips are drawn."""

        sampler: str = option(
            "generator",
            "generator: per-item random streams; python: replay the historic stream of Python's random",
            one_of=("generator", "python"),
        )
        sort_clips: bool = option(
            True, "order the clips of a video by time, which the paragraph loss needs; false: as drawn"
        )
        keep_prob: float = option(
            1.0, "probability of keeping the neighbouring caption while a clip grows", least=0, most=1
        )
        caption_times: str = option(
            "error",
            "captions out of order, or that end before they start: error (named), or sort: put in order, "
            "without those that cannot be (counted)",
            one_of=("error", "sort"),
        )

    from_first_clip = False
    allows_holes = False

    def __init__(self, config: DatasetConfig, special: SpecialIds | None = None):
        super().__init__(config, special)
        self.clips_per_video = config.clip_per_video or config.subsampling or 0
        if self.clips_per_video < 1:
            raise ValueError(
                f"{type(self).__name__} needs dataset.clip_per_video or dataset.subsampling to be at least 1."
            )
        # skipping captions leaves holes, which ranges cannot express; MFMMLMAligner draws such clips one by
        # one
        if config.keep_prob != 1.0 and not self.allows_holes:
            raise ValueError(
                f"dataset.keep_prob={config.keep_prob} has no effect with {type(self).__name__}; leave it "
                "at 1."
            )
        self.text_budget: Budget = self.max_text_len - SPECIAL_TOKENS_PER_CAPTION
        self.video_budget: Budget | None = None  # None: the seconds that the captions span
        self.short_videos: set[Any] = set()  # with captions behind the end of their features; in this process
        self.sorted_videos: set[Any] = set()  # whose captions were put in order; in this process

    def __call__(
        self, video_id: Any, video_feature: np.ndarray, text_feature: Any, rng: ItemRandom | None = None
    ) -> dict[str, Any]:
        """caps, cmasks (K, T), vfeats (K, F, D), vmasks (K, F), video_start, video_end, text_start, text_end
        (K), video_id."""
        name = bare_id(video_id)
        return {**self.align([name], [video_feature], [text_feature], rng), "video_id": name}

    def align(
        self,
        video_ids: Sequence[Any],
        features: Sequence[np.ndarray],
        texts: Sequence[Mapping[str, Any]],
        rng: ItemRandom | None,
    ) -> dict[str, torch.Tensor]:
        """Clips of m videos, video by video: tensors of the single form with m K in place of K."""
        streams = needed(rng, self)
        features = [
            check_feature(feature, video_id) for feature, video_id in zip(features, video_ids, strict=True)
        ]
        parts = [
            self.usable(Captions.of(text), len(feature), name)
            for text, feature, name in zip(texts, features, video_ids, strict=True)
        ]
        base = np.cumsum([0, *map(len, parts)])  # (m + 1,) first caption of each video
        lengths = np.array([len(feature) for feature in features])
        captions = Captions.join(parts)
        self.check_times(captions, base, video_ids)
        draw = self.draw_replayed if self.config.sampler == "python" else self.draw
        clips = draw(captions, base, lengths, streams)
        if self.config.sort_clips:
            clips = clips.sorted()
        return self.pack_clips(video_ids, features, captions, base, clips)

    def usable(self, captions: Captions, seconds: int, video_id: Any) -> Captions:
        """The captions to draw from: those that begin before the features end (all of them when replaying the
        historic sampler).

        Raises:
            MissingData: none is left, or some lie behind the features and dataset.on_missing is error.
        """
        if self.config.caption_times == "sort":
            captions = self.in_order(captions, video_id)
        kept = captions if self.config.sampler == "python" else captions.until(seconds)
        if not len(kept):
            raise MissingData(f"video {video_id!r} has no captions within its {seconds} seconds of features.")
        if len(kept) < len(captions):
            text = (
                f"video {video_id!r}: {len(captions) - len(kept)} of {len(captions)} captions begin "
                f"after its {seconds} seconds of features"
            )
            if self.config.on_missing == "error":
                raise MissingData(f"{text}. Extract the whole video, or set dataset.on_missing: skip.")
            if video_id not in self.short_videos:
                self.short_videos.add(video_id)
                level = (
                    logging.WARNING if len(self.short_videos) <= NAMED else logging.DEBUG
                )  # name some, do not flood the log
                logger.log(
                    level, "%s; these are not drawn (video %d of this kind)", text, len(self.short_videos)
                )
        return kept

    def in_order(self, captions: Captions, video_id: Any) -> Captions:
        """The captions by their start, without impossible ones; named and counted where that changes them."""
        kept = captions.in_order()
        if kept is not captions and video_id not in self.sorted_videos:
            self.sorted_videos.add(video_id)
            logger.log(
                logging.WARNING if len(self.sorted_videos) <= NAMED else logging.DEBUG,
                "video %r: captions out of order or with impossible times; put in order, %d of %d left out "
                "(video %d of this kind)",
                video_id,
                len(captions) - len(kept),
                len(captions),
                len(self.sorted_videos),
            )
        return kept

    def check_times(self, captions: Captions, base: np.ndarray, video_ids: Sequence[Any]) -> None:
        """Refuse captions out of order, or that end before they start.

        Raises:
            ValueError: names the video and the caption.
        """
        wrong = captions.first_wrong(base)
        if wrong >= 0:
            video = int(np.searchsorted(base, wrong, side="right")) - 1
            raise ValueError(
                f"video {video_ids[video]!r}: caption {wrong - base[video]} runs from "
                f"{captions.start_s[wrong]:g} to {captions.end_s[wrong]:g} s, out of order or impossible. "
                "Make the captions again (mmpt captions), or set dataset.caption_times: sort."
            )

    def draw(self, captions: Captions, base: np.ndarray, lengths: np.ndarray, rng: ItemRandom) -> Clips:
        """All clips of the group at once."""
        random = rng.numpy
        video = np.repeat(np.arange(len(lengths)), self.clips_per_video)
        lowest, highest, length = base[video], base[video + 1], lengths[video]
        centre = lowest if self.from_first_clip else random.integers(lowest, highest)
        text_start, text_end = text_ranges(
            captions, lowest, highest, centre, _drawn(self.text_budget, len(video), random), random
        )
        low, high = np.floor(captions.start_s[text_start]), np.ceil(captions.end_s[text_end - 1])
        if self.video_budget is None:
            start, end = inside(low, high, length)
        else:
            low, high = np.where(low < high, (low, high), (low + high) // 2).astype(np.int64)
            second = np.clip(random.integers(low, high + 1), 0, length - 1)
            start, end = video_ranges(length, _drawn(self.video_budget, len(video), random), second, random)
        return Clips(video, text_start, text_end, start, end)

    def draw_replayed(
        self, captions: Captions, base: np.ndarray, lengths: np.ndarray, rng: ItemRandom
    ) -> Clips:
        """The same law, one draw after the other in the historic order."""
        rows = []
        for video, length in enumerate(lengths.tolist()):
            own = _part(captions, base[video], base[video + 1])
            for _ in range(self.clips_per_video):
                chosen, start, end = self.draw_one(own, length, rng)
                rows.append((video, base[video] + chosen[0], base[video] + chosen[-1] + 1, start, end))
        return Clips(*np.array(rows).T)

    def draw_one(self, captions: Captions, length: int, rng: ItemRandom) -> tuple[list[int], int, int]:
        """Captions and seconds [start, end) of one clip, from the stream of Python's `random`."""
        random = rng.python
        centre = 0 if self.from_first_clip else random.randint(0, len(captions) - 1)
        budget = _draw_one(self.text_budget, random)
        chosen = TextClipSamplingProcessor(budget, self.config.keep_prob)(captions, random, centre)
        low, high = np.floor(captions.start_s[chosen[0]]), np.ceil(captions.end_s[chosen[-1]])
        if self.video_budget is None:
            start, end = inside(low, high, length)
            return chosen, int(start), int(end)
        second = random.randint(int(low), int(high)) if low < high else int(low + high) // 2
        second = min(max(second, 0), length - 1)
        start, end = VideoClipSamplingProcessor()(
            length, _draw_one(self.video_budget, random), second, random
        )
        return chosen, start, end

    def pack_clips(
        self,
        video_ids: Sequence[Any],
        features: Sequence[np.ndarray],
        captions: Captions,
        base: np.ndarray,
        clips: Clips,
    ) -> dict[str, torch.Tensor]:
        """Padded tensors of the drawn clips, in their order."""
        first = captions.offsets[clips.text_start]
        caps, cmasks = pack_captions(
            captions.words, first, captions.offsets[clips.text_end] - first, self.max_text_len, self.special
        )
        ranges = np.stack([clips.video_start, clips.video_end], axis=1)
        vfeats, vmasks = pack_videos(features, clips.video, ranges, self.max_video_len, self.as_stored)
        return {
            "caps": torch.from_numpy(caps),
            "cmasks": torch.from_numpy(cmasks),
            "vfeats": check_finite(vfeats, video_ids),
            "vmasks": vmasks,
            "video_start": torch.from_numpy(clips.video_start),
            "video_end": torch.from_numpy(clips.video_end),
            "text_start": torch.from_numpy(clips.text_start - base[clips.video]),
            "text_end": torch.from_numpy(clips.text_end - base[clips.video]),
        }


@ALIGNERS.register()
class FixedLenAligner(ClipAligner):
    """Text fills the caption tensor; the video is what its captions span."""


@ALIGNERS.register()
class StartClipAligner(FixedLenAligner):
    """FixedLenAligner that always starts from the first caption."""

    from_first_clip = True


@ALIGNERS.register()
class VariedLenAligner(ClipAligner):
    """Text budget drawn from [sampled_min_len, sampled_max_len]."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ClipAligner.Config):
        """Ranges of lengths."""

        sampled_min_len: int | None = option(None, "smallest text-token budget of a clip, inclusive", least=1)
        sampled_max_len: int | None = option(None, "largest text-token budget of a clip, inclusive", least=1)
        sampled_video_min_len: int | None = option(
            None, "smallest clip length in seconds, inclusive", least=1
        )
        sampled_video_max_len: int | None = option(None, "largest clip length in seconds, inclusive", least=1)

    def __init__(self, config: DatasetConfig, special: SpecialIds | None = None):
        super().__init__(config, special)
        self.text_budget = budget_range(config, "sampled_min_len", "sampled_max_len")


@ALIGNERS.register()
class OverlappedAligner(VariedLenAligner):
    """Video and text overlap, but neither fixes the other's extent: VideoCLIP's positive pairs (section 3.2
    of its paper)."""

    def __init__(self, config: DatasetConfig, special: SpecialIds | None = None):
        super().__init__(config, special)
        self.video_budget = budget_range(config, "sampled_video_min_len", "sampled_video_max_len")


class GroupAligner(ClipAligner):
    """Mix-in: one item is a group of m videos; every tensor gets a leading m and `video_id` is a list."""

    def __call__(
        self,
        video_id: Sequence[Any],
        video_feature: Sequence[np.ndarray],
        text_feature: Any,
        rng: ItemRandom | None = None,
    ) -> dict[str, Any]:
        """caps, cmasks (m, K, T), vfeats (m, K, F, D), vmasks (m, K, F), starts and ends (m, K), video_id
        (list of m)."""
        names = [bare_id(name) for name in video_id]
        batch = self.align(names, video_feature, text_feature, rng)  # (m K, ...)
        grouped = {
            key: value.view(len(names), self.clips_per_video, *value.shape[1:])
            for key, value in batch.items()
        }
        return {**grouped, "video_id": names}


@ALIGNERS.register()
class VideoRetriAligner(GroupAligner, VariedLenAligner):
    """VariedLenAligner for a group of videos."""


@ALIGNERS.register()
class VideoRetriOverlappedAligner(GroupAligner, OverlappedAligner):
    """OverlappedAligner for a group of videos."""


@ALIGNERS.register()
class How2MILNCEAligner(ClipAligner):
    """MIL-NCE's clips: 3.2 seconds of video and 4 neighbouring captions that may describe them.

    caps and cmasks are (K, 4, T). Draws come from the stream of Python's `random` in both samplers.
    """

    N_CANDIDATES = 4
    MIN_SECONDS = 5.0
    CLIP_SECONDS = 3.2

    def __call__(
        self, video_id: Any, video_feature: np.ndarray, text_feature: Any, rng: ItemRandom | None = None
    ) -> dict[str, Any]:
        feature = check_feature(video_feature, video_id)
        video_id = bare_id(video_id)
        captions = self.usable(Captions.of(text_feature), len(feature), video_id)
        self.check_times(captions, np.array([0, len(captions)]), [video_id])
        words: list[list[int]] = []
        ranges: list[tuple[int, int]] = []
        streams = needed(rng, self)
        for _ in range(self.clips_per_video):
            streams.python.randint(0, len(captions) - 1)  # the historic stream holds a draw that nothing uses
            centre = streams.python.randint(0, len(captions) - 1)
            words.extend(captions.ids(clip) for clip in self.candidates(captions, centre))
            start_s, end_s = captions.start_s[centre], captions.end_s[centre]
            ranges.append(self.seconds(start_s, end_s, len(feature), streams))
        caps, cmasks = self.pack(words)  # (K * 4, T)
        vfeats, vmasks = pack_videos(
            [feature], np.zeros(len(ranges), np.int64), np.array(ranges), self.max_video_len, self.as_stored
        )
        shape = (self.clips_per_video, self.N_CANDIDATES, self.max_text_len)
        return {
            "caps": caps.view(shape),
            "cmasks": cmasks.view(shape),
            "vfeats": check_finite(vfeats, [video_id]),
            "vmasks": vmasks,
            "video_id": video_id,
        }

    def candidates(self, captions: Captions, centre: int) -> list[int]:
        """Four captions round `centre`, each time adding the neighbour that keeps the time span smaller;
        short videos repeat the last."""
        first = last = centre
        while last - first + 1 < min(self.N_CANDIDATES, len(captions)):
            if first == 0:
                last += 1
            elif last == len(captions) - 1 or (
                captions.end_s[last] - captions.start_s[first - 1]
                < captions.end_s[last + 1] - captions.start_s[first]
            ):
                first -= 1
            else:
                last += 1
        return [min(clip, last) for clip in range(first, first + self.N_CANDIDATES)]

    def seconds(self, start_s: float, end_s: float, length: int, rng: ItemRandom) -> tuple[int, int]:
        """Seconds [start, end) of a 3.2 s stretch inside the caption, which is first widened to 5 s."""
        missing = self.MIN_SECONDS - (end_s - start_s)
        if missing > 0:
            start_s = max(0.0, start_s - missing / 2)
            end_s = start_s + self.MIN_SECONDS
        first = int(start_s)
        start = rng.python.randint(first, int(max(first, int(end_s) - self.CLIP_SECONDS)))
        start, end = inside(start, int(start + self.CLIP_SECONDS), length)
        return int(start), int(end)


def inside(low: Any, high: Any, length: Any) -> tuple[np.ndarray, np.ndarray]:
    """Seconds [low, high) moved into a video of `length` seconds, at least one of them."""
    start = np.clip(low, 0, length - 1).astype(np.int64)
    return start, np.clip(high, start + 1, length).astype(np.int64)


def _part(captions: Captions, first: int, behind: int) -> Captions:
    """The captions of one video of a group; `words` stay shared, so offsets do not start at 0."""
    return Captions(
        captions.start_s[first:behind],
        captions.end_s[first:behind],
        captions.words,
        captions.offsets[first : behind + 1],
    )


def budget_range(config: DatasetConfig, low: str, high: str) -> tuple[int, int]:
    """An inclusive range of lengths from two keys."""
    bounds = required(config, low), required(config, high)
    if not 1 <= bounds[0] <= bounds[1]:
        raise ValueError(
            f"dataset.{low}={bounds[0]} and dataset.{high}={bounds[1]} are not a range of positive lengths."
        )
    return bounds


def _drawn(budget: Budget, count: int, random: np.random.Generator) -> np.ndarray:
    return (
        np.full(count, budget)
        if isinstance(budget, int)
        else random.integers(*budget, size=count, endpoint=True)
    )


def _draw_one(budget: Budget, random: Any) -> int:
    return budget if isinstance(budget, int) else random.randint(*budget)
