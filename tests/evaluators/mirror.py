"""A model whose outputs are its inputs, and batches for it: what reaches the metric is known."""

from types import SimpleNamespace

import torch
from torch import nn

from mmpt.config import Config, DatasetConfig
from mmpt.ops.windows import window_ranges

WINDOWS = Config(dataset=DatasetConfig(sliding_window=4, sliding_window_size=8, max_video_len=8))
D = 6


class Mirror(nn.Module):
    """Video tokens are the features; a text is the unit vector of its first id."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward_text(self, caps, cmasks):
        return SimpleNamespace(pooled=torch.eye(D)[caps[:, 0]])

    def forward_video(self, vfeats, vmasks, caps, cmasks):
        assert len(vfeats) == len(caps)
        edge = torch.zeros(len(vfeats), 1, D)
        return SimpleNamespace(outputs=torch.cat([edge, vfeats, edge], 1), pooled=vfeats.mean(1))

    def forward(self, caps, cmasks, vfeats, vmasks, **batch):
        if vfeats.ndim == 4:
            return {"logits": vfeats[0][vmasks[0]]}
        video = self.forward_video(vfeats, vmasks, caps, cmasks)
        return {
            "pooled_text": self.forward_text(caps, cmasks).pooled,
            "pooled_video": video.pooled,
            "video_outputs": video.outputs,
        }


def windowed(seconds):
    """A batch of one video of unit-vector seconds, cut as the aligners cut it."""
    video = torch.eye(D)[torch.tensor(seconds)]
    ranges = window_ranges(len(seconds), 8, 4)
    vfeats, vmasks = torch.zeros(1, len(ranges), 8, D), torch.zeros(1, len(ranges), 8, dtype=torch.bool)
    for row, (start, end) in enumerate(ranges):
        vfeats[0, row, : end - start], vmasks[0, row, : end - start] = video[start:end], True
    caps = torch.zeros(1, len(ranges), 4, dtype=torch.long)
    batch = {"vfeats": vfeats, "vmasks": vmasks, "caps": caps, "cmasks": caps > 0}
    return batch | {"video_len": torch.tensor([len(seconds)]), "video_id": ["v"]}


class Loader(list):
    """Batches with the data set that they come from."""

    dataset = None
