"""Losses of VLM and of captioning: masked frames, masked tokens, generated tokens.

Shapes: m masked frames, w labelled tokens, n candidate frames, C vocabulary. Models give logits of the masked
positions only; labels come whole, with -100 at the other positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmpt.losses.classification import IGNORED, mean_cross_entropy
from mmpt.losses.loss import Loss, LossConfig, option
from mmpt.ops.precision import full_precision
from mmpt.registry import LOSSES

VLM = "Xu et al., VLM, Findings of ACL 2021, [arXiv 2105.09996](https://arxiv.org/abs/2105.09996)"


def labelled(text_label: Tensor, text_logits: Tensor) -> Tensor:
    """Token ids at the positions that carry a label, in the order of the logits.

    Sorted to the front, not selected: a selection would have to wait for the device to learn how many there
    are.
    """
    flat = text_label.flatten()
    return flat[(flat == IGNORED).to(torch.uint8).argsort(stable=True)[: len(text_logits)]]


def own_frame(video_logits: Tensor) -> Tensor:
    """Class 0 for each masked frame: its own features lead its candidates."""
    return torch.zeros(len(video_logits), dtype=torch.long, device=video_logits.device)


@LOSSES.register()
class MFMMLM(Loss[LossConfig]):
    """Pulls each masked frame to its own features among the frames of the batch, each masked token to its
    word.

    Reads `video_logits` (m, 1 + n), own frame first, `text_logits` (w, C), and `text_label` with w labels
    other than -100. The sum of two means; a modality without masked positions counts 0.
    """

    family = "Masked and generated tokens"
    formula = "CE(frames) + CE(words)"
    paper = VLM
    cost = "linear in the logits."
    from_model = ("video_logits", "text_logits")

    def forward(
        self, *, video_logits: Tensor, text_logits: Tensor, text_label: Tensor, **batch: Any
    ) -> Tensor:
        mfm = mean_cross_entropy(video_logits, own_frame(video_logits))
        mlm = mean_cross_entropy(text_logits, labelled(text_label, text_logits))
        self.record(mfm=mfm, mlm=mlm)
        return mfm + mlm


@dataclass(frozen=True, kw_only=True)
class MTMConfig(LossConfig):
    """Keys of masked token modelling."""

    compat: bool = option(False, "text rows get one more candidate of logit 0, as in the released code")


@LOSSES.register()
class MTM(Loss[MTMConfig]):
    """Pulls masked frames and masked tokens to their own frame or word, with the frames and words of both
    modalities as candidates.

    Reads `video_logits` (m, 1 + n + C): own frame, other frames, words; `text_logits` (w, C + n): words,
    frames; `text_label` with w labels other than -100. One mean over all m + w rows; without any row it is 0.

    Departs from the released code: text rows are one column shorter than video rows, and the release fills
    it with a candidate of logit 0, which `compat: true` brings back.
    """

    Config = MTMConfig
    family = "Masked and generated tokens"
    formula = "one cross entropy over masked frames and words, candidates of both modalities"
    paper = VLM
    cost = "linear in the logits."
    from_model = ("video_logits", "text_logits")

    def forward(
        self, *, video_logits: Tensor, text_logits: Tensor, text_label: Tensor, **batch: Any
    ) -> Tensor:
        video_logits, text_logits = full_precision(video_logits), full_precision(text_logits)
        if self.config.compat:
            text_logits = F.pad(text_logits, (0, 1))
        video = F.cross_entropy(video_logits, own_frame(video_logits), reduction="sum")
        text = F.cross_entropy(text_logits, labelled(text_label, text_logits), reduction="sum")
        loss = (video + text) / max(1, len(video_logits) + len(text_logits))
        self.record(mtm=loss)
        return loss


@LOSSES.register()
class NLGLoss(Loss[LossConfig]):
    """Pulls the logits (w, C) of the labelled positions to the next word: teacher forcing for captioning."""

    family = "Masked and generated tokens"
    formula = "CE of the next word"
    paper = VLM
    cost = "linear in the logits."
    from_model = ("logits",)

    def forward(self, *, logits: Tensor, text_label: Tensor, **batch: Any) -> Tensor:
        loss = mean_cross_entropy(logits, labelled(text_label, logits))
        self.record(nlg=loss)
        return loss
