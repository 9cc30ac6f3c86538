"""Smallest parts that a project file can name: items whose caption id is the index of their video, and a
model that may know it."""

import torch
from torch import nn

from mmpt.processors import MetaProcessor
from mmpt.registry import ALIGNERS, META_PROCESSORS, MODELS, TEXT_PROCESSORS, VIDEO_PROCESSORS

N_ITEMS = 12


class Words:
    """A tokenizer with one word per id."""

    def batch_decode(self, rows, skip_special_tokens=True):
        return [" ".join(f"word{token}" for token in row if token) for row in rows]


@META_PROCESSORS.register()
class ToyMeta(MetaProcessor):
    """Twelve clips of four videos."""

    def __init__(self, config):
        super().__init__(config)
        self.missing = {"without features": ["lost"]}

    def __len__(self):
        return N_ITEMS

    def __getitem__(self, index):
        return (f"video{index // 3}", index, index + 1), index


@VIDEO_PROCESSORS.register()
class ToyVideo:
    def __init__(self, config):
        pass

    def __call__(self, video_id):
        return torch.eye(N_ITEMS)[video_id[1]]


@TEXT_PROCESSORS.register()
class ToyText:
    tokenizer = Words()

    def __init__(self, config):
        pass

    def __call__(self, text_id, rng=None):
        return text_id


@ALIGNERS.register()
class ToyAligner:
    def __init__(self, config):
        pass

    def __call__(self, video_id, feature, text, rng):
        return {"caps": torch.tensor([text, 0]), "vfeats": feature[None], "video_id": video_id}


@MODELS.register()
class ToyTowers(nn.Module):
    """Scores caption i and clip j by weight[i, j]."""

    def __init__(self, config):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(N_ITEMS, N_ITEMS))

    def forward(self, caps, vfeats, **batch):
        return {"pooled_text": self.table[caps[:, 0]], "pooled_video": vfeats[:, 0]}


@MODELS.register()
class ToyTowersWithHead(ToyTowers):
    """Has a weight that older checkpoints lack."""

    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Parameter(torch.zeros(1))
