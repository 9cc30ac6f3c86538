"""MMGram and its loss on two real gloo processes equal one process on the joined batch, though each reads
texts of its own length."""

from __future__ import annotations

import json

import pytest
import torch

from mmpt.config.schema import Config, DatasetConfig, ModelConfig
from mmpt.losses import build_loss
from mmpt.models import build_model
from mmpt.ops.distributed import rank, world_size
from tests.tiny_models import TINY_BERT
from tests.two_processes import WORLD, run_on_two_ranks

N = 2  # items on a rank
WORDS, SECONDS = (
    torch.tensor([3, 9, 1, 2]),
    torch.tensor([2, 3, 8, 1]),
)  # the second rank has the shorter texts and the longest video


def batch():
    """WORLD * N items."""
    draw = torch.Generator().manual_seed(0)
    columns = torch.arange(16)
    caps = torch.randint(3, 100, (WORLD * N, 16), generator=draw)
    caps[:, 0], caps[:, 1] = 1, 2
    cmasks, masks = columns < WORDS[:, None] + 3, columns[:8] < SECONDS[:, None]
    present = torch.tensor([[True, True], [True, False], [True, True], [False, True]])
    features = torch.randn(WORLD * N, 8, 24, generator=draw)
    texts = {"caps": caps, "cmasks": cmasks, "subtitle_caps": caps.flip(0), "subtitle_cmasks": cmasks.flip(0)}
    return {**texts, "video_feats": features, "video_masks": masks, "present": present}


def gradients(folder, rows):
    """Of every parameter, from the volume loss and the matching head's opinion on the own texts with every
    item."""
    (folder / "config.json").write_text(json.dumps(TINY_BERT))
    modalities = {"video": {"path": "x", "width": 24}, "subtitle": {"max_len": 16}}
    sizes = {"bert_name": str(folder), "max_video_len": 8, "max_len": 24, "modalities": modalities}
    keys = {
        "init": "random",
        "num_hidden_video_layers": 1,
        "contra_dim": 16,
        "learnable_temperature": True,
        "matching_head": True,
    }
    torch.manual_seed(0)
    model = build_model(
        Config(dataset=DatasetConfig(**sizes), model=ModelConfig(model_cls="MMGram", **keys))
    ).eval()
    output = model(**{name: value[rows] for name, value in batch().items()})
    n_own = WORLD * N // world_size()
    own = (torch.arange(n_own) + rank() * n_own).repeat_interleave(WORLD * N)
    matching = output["matcher"](own, torch.arange(WORLD * N).repeat(n_own))[:, 1]
    (
        build_loss({"loss_cls": "GRAMLoss", "cosine_weight": 0.5})(**output) + matching.square().mean()
    ).backward()
    return {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def on_rank(rank, folder):
    (folder / str(rank)).mkdir()
    torch.save(gradients(folder / str(rank), slice(rank * N, (rank + 1) * N)), folder / f"{rank}.pt")


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    run_on_two_ranks(on_rank, tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    expected = gradients(tmp_path, slice(None))
    assert {name.split(".")[0] for name in expected} >= {
        "text_encoder",
        "video_encoder",
        "projections",
        "matcher",
        "condition",
        "logit_scale",
    }
    for name, gradient in expected.items():
        torch.testing.assert_close(
            sum(of_rank[name] for of_rank in ranks) / WORLD, gradient, rtol=1e-3, atol=1e-5, msg=name
        )
