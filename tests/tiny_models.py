"""A tiny BERT folder and configs on it."""

from __future__ import annotations

import json

import pytest
import torch

from mmpt.config.schema import Config, DatasetConfig, EvalConfig, ModelConfig

TINY_BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "vocab_size": 100,
    "max_position_embeddings": 64,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "input_dim": 24,
}


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """Local model folder with a config and no weights."""
    folder = tmp_path_factory.mktemp("tiny_bert")
    (folder / "config.json").write_text(json.dumps(TINY_BERT))
    return folder


@pytest.fixture
def make_config(bert_folder):
    """`make_config(model_cls, dataset={...}, **model keys)`: a config with V = 8, max_len = 24."""

    def make(model_cls, dataset=(), **model):
        sizes = {"bert_name": str(bert_folder), "max_video_len": 8, "max_len": 24}
        return Config(
            dataset=DatasetConfig(**(sizes | dict(dataset))),
            model=ModelConfig(model_cls=model_cls, **({"init": "random"} | model)),
            eval=EvalConfig(),
        )

    return make


@pytest.fixture
def separate_config(make_config):
    """Two towers, the video tower with one layer."""
    return make_config(
        "MMFusionSeparate",
        video_encoder_cls="MMBertForEncoder",
        text_encoder_cls="BertModel",
        num_hidden_video_layers=1,
    )


@pytest.fixture
def clips():
    """Three random clips: caps, cmasks, vfeats, vmasks."""
    rng = torch.Generator().manual_seed(0)
    n_words, n_seconds = torch.tensor([3, 13, 1]), torch.tensor([8, 1, 5])
    columns = torch.arange(16)
    caps = torch.randint(3, 100, (3, 16), generator=rng)
    caps[:, 0], caps[:, 1] = 1, 2
    caps[columns == n_words[:, None] + 2] = 2
    cmasks = columns < n_words[:, None] + 3
    vmasks = torch.arange(8) < n_seconds[:, None]
    vfeats = torch.randn(3, 8, 24, generator=rng) * vmasks[..., None]
    return {"caps": caps * cmasks, "cmasks": cmasks, "vfeats": vfeats, "vmasks": vmasks}
