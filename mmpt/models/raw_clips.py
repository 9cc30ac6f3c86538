"""GDT trained on raw clips, as a project file names it.

Shape letters: B items, S views, T frames, H, W pixels, M mel filters, A spectrogram frames, D = 256.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmpt.config.fields import Section, option
from mmpt.config.schema import Config
from mmpt.models.gdt import AVGDT
from mmpt.registry import MODELS


@MODELS.register()
class RawAVGDT(AVGDT):
    """Frames and sound of a clip in one space; its checkpoints carry the names of the published ones."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """Depths of the networks."""

        video_depth: int = option(18, "RawAVGDT: layers of the video network, 18 or 34", one_of=(18, 34))
        audio_depth: int = option(9, "RawAVGDT: layers of the audio network, 9 or 18", one_of=(9, 18))

    returns = frozenset({"pooled_video", "pooled_audio"})

    def __init__(self, config: Config):
        super().__init__(config.model.video_depth, config.model.audio_depth)

    def forward(
        self, video: Tensor, audio: Tensor, clips_per_video: int | None = None, **batch: Any
    ) -> dict[str, Tensor]:
        """Embeds each view by itself, so that its BatchNorm sees no other view, as published.

        Args:
            video: (B S, 3, T, H, W) clips, the S views of an item side by side.
            audio: (B S, 1, M, A) spectrograms.
            clips_per_video: S; None: 1.
            **batch: whatever else the batch holds.

        Returns:
            `pooled_video`, `pooled_audio` (B S, D) unit rows in the same order.
        """
        n_views = clips_per_video or 1
        outputs = [
            super(RawAVGDT, self).forward(video[view::n_views], audio[view::n_views])
            for view in range(n_views)
        ]
        return {
            name: torch.stack([output[name] for output in outputs], dim=1).flatten(0, 1)
            for name in outputs[0]
        }
