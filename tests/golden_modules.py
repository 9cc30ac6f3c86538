"""Networks of the releases, run at tiny sizes: how their golden files are read and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.config.schema import Config, DatasetConfig, EvalConfig, ModelConfig

NAMES = {"v": "video", "a": "audio", "s": "subtitle", "d": "depth"}
ROUNDING = 1e-11  # of float64 sums, relative to the largest entry


def arrays_below(golden: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    """`prefix.name` -> tensor, under the plain names."""
    return {
        k.removeprefix(f"{prefix}."): torch.from_numpy(v)
        for k, v in golden.items()
        if k.startswith(f"{prefix}.")
    }


def settings(golden: Mapping[str, np.ndarray]) -> dict[str, object]:
    """`cfg.name` -> plain value."""
    return {
        name.removeprefix("cfg."): value.item()
        for name, value in golden.items()
        if name.startswith("cfg.") and value.ndim == 0
    }


def assert_equal_up_to_rounding(
    actual: Tensor | np.ndarray, expected: Tensor | np.ndarray, tolerance: float = ROUNDING
) -> None:
    """Largest difference relative to the largest expected entry."""
    actual, expected = (torch.as_tensor(x).detach() for x in (actual, expected))
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    error = float((actual - expected).abs().max() / scale)
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}"


def assert_gradients(module: nn.Module, expected: Mapping[str, Tensor], noise: float = 1e-13) -> None:
    """Gradients of parameters; an expected one of rounding size alone stands for zero (a bias of keys shifts
    all scores alike).
    """
    for name, gradient in expected.items():
        actual = module.get_parameter(name).grad
        if gradient.abs().max() < noise:
            assert actual.abs().max() < noise, name
        else:
            assert_equal_up_to_rounding(actual, gradient)


def tiny_config(folder: Path, state: dict[str, Tensor], letters: str, **model) -> Config:
    """The sizes of a golden file, as a project file would state them."""
    word, layers = (
        "multimodal_encoder.bert.embeddings.word_embeddings.weight",
        "multimodal_encoder.bert.encoder.layer.",
    )
    bert = {
        "model_type": "bert",
        "vocab_size": state[word].shape[0],
        "hidden_size": state[word].shape[1],
        "num_hidden_layers": len({name.split(".")[4] for name in state if name.startswith(layers)}),
        "num_attention_heads": 3,
        "intermediate_size": state[f"{layers}0.intermediate.dense.bias"].shape[0],
        "max_position_embeddings": state[
            "multimodal_encoder.bert.embeddings.position_embeddings.weight"
        ].shape[0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    (folder / "config.json").write_text(json.dumps(bert))
    vision = {
        "image_size": 8,
        "patch_size": 4,
        "width": 16,
        "head_width": 8,
        "layers": 1,
        "mlp_ratio": 2.5,
        "embed_dim": 10,
    }
    audio = {
        "input_patch_size": 4,
        "embed_dim": 8,
        "encoder_layers": 2,
        "encoder_embed_dim": 12,
        "encoder_ffn_embed_dim": 16,
    }
    audio |= {
        "encoder_attention_heads": 2,
        "conv_pos": 4,
        "conv_pos_groups": 2,
        "num_buckets": 8,
        "max_distance": 10,
    }
    audio["layer_wise_gradient_decay_ratio"] = 1.0  # of the golden run
    lengths = {
        "v": state["vision_frame_embedding"].shape[1],
        "a": state["audio_frame_embedding"].shape[1],
        "s": 10,
        "d": 2,
    }
    modalities = {NAMES[x]: {"max_len": lengths[x]} | ({} if x == "s" else {"path": "x"}) for x in letters}
    encoders = {"video": {"name": "evaclip01_giant", **vision}, "audio": {"name": "beats", **audio}}
    options = {
        "contra_dim": state["contra_head_t.linear.weight"].shape[0],
        "matching_head": True,
        "learnable_temperature": True,
        "init": "random",
        "encoders": encoders,
    }
    return Config(
        dataset=DatasetConfig(bert_name=str(folder), modalities=modalities, max_video_len=2),
        model=ModelConfig(model_cls="GRAM", **(options | model)),
        eval=EvalConfig(),
    )
