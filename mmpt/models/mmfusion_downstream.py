"""Models of end tasks over long videos cut into windows: segmentation, step localisation, full-video
retrieval.

A batch holds one video: windows `vfeats` (1, W, F, features) and captions `caps` (1, N, T), the leading 1 is
dropped. Shape letters: W windows, F seconds per window, N captions or steps, T caption columns, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmpt.models import sequence_layout as layout
from mmpt.models.mmfusion import MMFusion, MMFusionSeparate, MMFusionShare, VideoTower
from mmpt.models.mmfusion_joint import MMFusionJoint
from mmpt.modules.layers import masked_mean
from mmpt.registry import MODELS


def one_video(*tensors: Tensor) -> list[Tensor]:
    """Merges the batch dimension, which must be 1, into the windows: (1, W, ...) -> (W, ...)."""
    if any(tensor.shape[0] != 1 for tensor in tensors):
        n_videos = max(tensor.shape[0] for tensor in tensors)
        raise ValueError(
            f"models of windowed videos take one video per batch, got {n_videos}; set "
            "fairseq.dataset.batch_size: 1."
        )
    return [tensor[0] for tensor in tensors]


@MODELS.register()
class MMFusionActionSegmentation(MMFusionJoint):
    """Labels every second of every window: logits (W, F, labels)."""

    returns = frozenset({"logits"})

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch
    ) -> dict[str, Tensor]:
        caps, cmasks, vfeats, vmasks = one_video(caps, cmasks, vfeats, vmasks)
        hidden = self.joint_hidden(caps, cmasks, vfeats, vmasks)
        return {"logits": self.mm_encoder.classifier(layout.video_tokens(hidden, vfeats.shape[1]))}


@MODELS.register()
class MMFusionSeparateActionSegmentation(VideoTower):
    """Labels every second of every window with the video tower: logits (W, F, labels). There is no text
    tower."""

    returns = frozenset({"logits"})

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch
    ) -> dict[str, Tensor]:
        caps, cmasks, vfeats, vmasks = one_video(caps, cmasks, vfeats, vmasks)
        hidden = self.forward_video(vfeats, vmasks, caps, cmasks).outputs
        return {"logits": self.video_encoder.classifier(layout.video_tokens(hidden, vfeats.shape[1]))}


class WindowedVideo(MMFusion):
    """Encodes windows without a caption of their own and, apart from them, captions."""

    def encode_windows(self, vfeats: Tensor, vmasks: Tensor, caps: Tensor):
        """Windows (W, F, features) beside the dummy caption."""
        ids, mask = layout.dummy_caption(caps, vfeats.shape[0])
        return self.forward_video(vfeats, vmasks, ids, mask)


class ActionLocalization(WindowedVideo):
    """Scores every valid second against every step of the task: logits (seconds, N), dot products."""

    returns = frozenset({"logits", "pooled_text", "video_seq"})

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch
    ) -> dict[str, Tensor]:
        caps, cmasks, vfeats, vmasks = one_video(caps, cmasks, vfeats, vmasks)
        windows = self.encode_windows(vfeats, vmasks, caps).outputs
        seconds = layout.video_tokens(windows, vfeats.shape[1])[vmasks]
        steps = self.forward_text(caps, cmasks).pooled
        return {"logits": seconds @ steps.T, "pooled_text": steps, "video_seq": seconds}


@MODELS.register()
class MMFusionSeparateActionLocalization(ActionLocalization, MMFusionSeparate):
    """Step localisation with two towers."""


@MODELS.register()
class MMFusionShareActionLocalization(ActionLocalization, MMFusionShare):
    """Step localisation with one encoder run per modality."""


@MODELS.register()
class MMFusionActionLocalization(MMFusionJoint):
    """Step localisation with one joint encoder: windows beside the dummy caption, steps beside one masked
    zero frame."""

    returns = ActionLocalization.returns

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch
    ) -> dict[str, Tensor]:
        caps, cmasks, vfeats, vmasks = one_video(caps, cmasks, vfeats, vmasks)
        dummy = layout.dummy_caption(caps, vfeats.shape[0])
        windows = self.joint_hidden(*dummy, vfeats, vmasks)
        seconds = layout.video_tokens(windows, vfeats.shape[1])[vmasks]
        no_video = vfeats.new_zeros(len(caps), 1, vfeats.shape[-1])
        hidden = self.joint_hidden(caps, cmasks, no_video, torch.zeros_like(cmasks[:, :1]))
        steps = masked_mean(layout.split(hidden, 1)[1], layout.text_segment(caps, cmasks).pool)
        return {"logits": seconds @ steps.T, "pooled_text": steps, "video_seq": seconds}


@MODELS.register()
class MMFusionSeparateFullVideoBGRetrieval(WindowedVideo, MMFusionSeparate):
    """Long videos with their background kept: `pooled_video` per window (W, D), `pooled_text` per caption (N,
    D)."""

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch
    ) -> dict[str, Tensor]:
        caps, cmasks, vfeats, vmasks = one_video(caps, cmasks, vfeats, vmasks)
        return self.outputs(self.encode_windows(vfeats, vmasks, caps), self.forward_text(caps, cmasks))
