"""Views of a clip for GDT: in its own order, reversed in time, from another moment of the same video, and
both.

Letters: S views of an item, T text positions, F video positions, D feature width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mmpt.config.fields import Section, option
from mmpt.config.schema import DatasetConfig
from mmpt.processors.aligners import OverlappedAligner
from mmpt.processors.base import bare_id, needed
from mmpt.processors.captions.captions import Captions
from mmpt.processors.tokens import SPECIAL_TOKENS_PER_CAPTION, SpecialIds
from mmpt.registry import ALIGNERS
from mmpt.utils.seed import ItemRandom

VIEWS = ("orig", "rev", "shift", "shiftrev")
CANDIDATES = 16  # clips among which the shifted one is looked for


@dataclass(frozen=True, kw_only=True)
class Reversal(Section):
    """How reversed views come about."""

    reversal: str = option(
        "sequence",
        "GDT: features of a reversed view: flipped in time (sequence), or of frames played backwards, "
        "files <id>_rev.npy (precomputed)",
        one_of=("sequence", "precomputed"),
    )


@dataclass(frozen=True, kw_only=True)
class Views(Reversal):
    """Views of a clip."""

    views: list | None = option(
        None,
        "GDT views of a clip, some of orig, rev, shift, shiftrev in this order; subsampling states their "
        "number",
    )
    min_shift: int | None = option(
        None,
        "GDT: least seconds between a clip and its shifted view; null: max_video_len (of raw clips: any "
        "distance)",
        least=1,
    )


def checked_views(config: DatasetConfig, by_loss: bool = False) -> list[str]:
    """`dataset.views`.

    Args:
        config: of the data.
        by_loss: `loss.hypothesis` decides the views; null then is the clip as it is.

    Raises:
        ValueError: no such views, or `dataset.subsampling` says another number.
    """
    views = list(config.views or VIEWS[:by_loss])
    if views != [view for view in VIEWS if view in views] or views[:1] != ["orig"]:
        raise ValueError(
            f"dataset.views={views}: expected some of {', '.join(VIEWS)}, in this order, orig first."
        )
    if (config.subsampling or 1) != len(views):
        cure = ", or leave both out: loss.hypothesis decides them" if by_loss else ""
        raise ValueError(
            f"dataset.subsampling={config.subsampling}, but dataset.views lists {len(views)}: use that "
            f"number{cure}."
        )
    return views


def alone(item: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The item without its first axis where there is one view."""
    n_views = len(next(iter(item.values())))
    return {key: value[0] for key, value in item.items()} if n_views == 1 else dict(item)


@ALIGNERS.register()
class GDTAligner(OverlappedAligner):
    """One clip of a video in the views that `dataset.views` lists, in the order orig, rev, shift, shiftrev.

    The shifted clip is drawn like the first one and starts at least `dataset.min_shift` seconds from it, or
    as far as the drawn candidates allow; where that is nowhere else, `view_valid` is false. Reversal flips
    the valid features (each still shows forward motion of its own second: only the coarse order is reversed)
    and, as `dataset.text_reversal` says, the words (`token`) or the order of the captions, whose words keep
    theirs (`sentence`; a clip with a single caption then has no reversed view); `none` keeps the text.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(OverlappedAligner.Config, Views):
        """Views, and clips as OverlappedAligner draws them."""

        text_reversal: str = option(
            "token",
            "GDT: text of a reversed view: words reversed (token), order of captions reversed (sentence), as "
            "it is (none)",
            one_of=("token", "sentence", "none"),
        )

    def __init__(self, config: DatasetConfig, special: SpecialIds | None = None):
        views = checked_views(config)
        if config.reversal != "sequence":
            raise ValueError(
                "dataset.reversal: precomputed needs a file per video and modality: use ModalityViewAligner."
            )
        n_clips = CANDIDATES if any(view.startswith("shift") for view in views) else 1
        super().__init__(replace(config, clip_per_video=n_clips), special)
        self.views = views

    def __call__(
        self, video_id: Any, video_feature: np.ndarray, text_feature: Any, rng: ItemRandom | None = None
    ) -> dict[str, Any]:
        """caps, cmasks (S, T), vfeats (S, F, D), vmasks (S, F), starts and ends (S), view_valid (S),
        video_id; without S if it is 1."""
        name = bare_id(video_id)
        clips = self.align([name], [video_feature], [text_feature], rng)
        order = needed(rng, self).numpy.permutation(self.clips_per_video)  # they may come sorted by time
        own, other = order[self.pair(clips["video_start"].numpy()[order])].tolist()
        shifted = [view.startswith("shift") for view in self.views]
        rows = torch.tensor([other if is_shifted else own for is_shifted in shifted])
        item = {key: value[rows] for key, value in clips.items()}
        item["view_valid"] = torch.tensor([own != other or not is_shifted for is_shifted in shifted])
        counts = Captions.of(text_feature).counts
        for row, view in enumerate(self.views):
            if view.endswith("rev"):
                self.reverse(item, row, counts[item["text_start"][row] : item["text_end"][row]])
        return {**alone(item), "video_id": name}

    def pair(self, starts: np.ndarray) -> list[int]:
        """The first candidate and one that starts far enough away; itself where all start together."""
        distance = np.abs(starts - starts[0])
        enough = np.flatnonzero(distance >= max(1, self.config.min_shift or self.max_video_len))
        other = enough[0] if len(enough) else int(distance.argmax())
        return [0, int(other) if distance[other] else 0]

    def reverse(self, item: dict[str, torch.Tensor], row: int, counts: np.ndarray) -> None:
        """Flips one view in time; padding stays at the end, special tokens where they are. counts: words of
        each caption of the clip."""
        seconds = int(item["vmasks"][row].sum())
        item["vfeats"][row, :seconds] = item["vfeats"][row, :seconds].flip(0)
        n_words = int(item["cmasks"][row].sum()) - SPECIAL_TOKENS_PER_CAPTION  # a long text was cut
        words = item["caps"][row, 2 : 2 + n_words]  # a view
        if self.config.text_reversal == "token":
            words.copy_(words.flip(0))
        if self.config.text_reversal == "sentence":
            ends = np.minimum(np.cumsum(counts), n_words)
            captions = [part for part in words.tensor_split(ends[:-1].tolist()) if len(part)]
            item["view_valid"][row] &= len(captions) > 1
            words.copy_(torch.cat(captions[::-1]) if captions else words)
