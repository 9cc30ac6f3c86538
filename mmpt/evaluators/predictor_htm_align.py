"""Similarity of every sentence of a narration with every second of its video (HTM-Align). One video per
batch.

Letters: N sentences, T text columns, W windows, F seconds per window, D feature width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from mmpt.evaluators.predictor import Arrays, Predictor, item_name
from mmpt.evaluators.tasks.htm_align import average_windows, window_sentences
from mmpt.registry import PREDICTORS


@PREDICTORS.register()
class HTMAlignPredictor(Predictor):
    """`similarity` (N, seconds) and `annotations` (N, 3) of each video.

    A batch holds the whole video: vfeats (1, seconds, D) without padding, caps and cmasks (1, N, T),
    `annotations` (1, N, 3) with alignable 0/1, start_s, end_s. Every window is encoded once, whatever the
    number of sentences.
    """

    def predict(self, batch: Mapping[str, Any], model: nn.Module) -> Arrays:
        caps, cmasks, video = batch["caps"][0], batch["cmasks"][0], batch["vfeats"][0]
        annotations = batch["annotations"][0].cpu().numpy()
        windows = window_sentences(annotations, len(video), self.config.dataset.max_video_len)
        text = normalize(model.forward_text(caps, cmasks).pooled.float(), dim=-1)  # (N, D)
        cosines = []
        if windows:
            vfeats, vmasks = cut_windows(
                video, [start for start, _ in windows], self.config.dataset.max_video_len
            )
            repeated = (
                part[:1].expand(len(vfeats), -1) for part in (caps, cmasks)
            )  # the video side reads [CLS] [SEP] alone
            seconds = normalize(
                model.forward_video(vfeats, vmasks, *repeated).outputs[:, 1:-1].float(), dim=-1
            )  # (W, F, D)
            products = (text @ seconds.transpose(1, 2)).cpu().numpy()  # (W, N, F)
            cosines = [product[:, : int(mask.sum())] for product, mask in zip(products, vmasks, strict=True)]
        return {
            "similarity": [average_windows(windows, cosines, len(caps), len(video))],
            "annotations": [annotations],
            "ids": [item_name(video_id) for video_id in batch["video_id"]],
        }


def cut_windows(video: Tensor, starts: list[int], size: int) -> tuple[Tensor, Tensor]:
    """Windows (W, F, D) of a video (seconds, D), zero padded, and their masks (W, F)."""
    parts = [video[start : start + size] for start in starts]
    vfeats = torch.stack([pad(part, (0, 0, 0, size - len(part))) for part in parts])
    lengths = torch.tensor([len(part) for part in parts], device=video.device)
    return vfeats, torch.arange(size, device=video.device) < lengths[:, None]
