"""Towers that give all tokens, by name."""

from __future__ import annotations

import pytest
import torch

from mmpt.backbones.tokens import token_tower

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def saved(folder, kind):
    """A tiny model of transformers on disk."""
    torch.manual_seed(0)
    if kind == "ast":
        config = transformers.ASTConfig(**SIZES, patch_size=8, frequency_stride=8, time_stride=8)
        config.num_mel_bins, config.max_length = 16, 32
        transformers.ASTModel(config).save_pretrained(folder)
        return folder
    vision = {**SIZES, "image_size": 16, "patch_size": 8}
    name = {"clip": "CLIP", "siglip": "Siglip"}[kind]
    text = {**SIZES, "vocab_size": 10, "max_position_embeddings": 8}
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision)
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "n_tokens", "summary"), [("clip", 5, "first"), ("siglip", 4, "mean")])
def test_an_image_model_of_transformers_gives_its_tokens(tmp_path, kind, n_tokens, summary):
    tower = token_tower(f"image:{saved(tmp_path, kind)}").eval()
    assert (tower.width, tower.image_size, tower.summary) == (16, 16, summary)
    assert tower(torch.randn(2, 3, 16, 16)).shape == (2, n_tokens, 16)


def test_an_audio_spectrogram_transformer_gives_its_tokens(tmp_path):
    tower = token_tower(f"audio:{saved(tmp_path, 'ast')}").eval()
    assert tower.width == 16 and tower.summary == "first"
    assert tower(torch.randn(2, 32, 16)).shape == (2, 10, 16)  # 4 by 2 patches behind two tokens of their own


def test_checkpointing_is_a_switch_of_towers_of_transformers(tmp_path):
    tower = token_tower(f"image:{saved(tmp_path, 'clip')}")
    tower.checkpointing = True
    assert tower.checkpointing
    tower.checkpointing = False
    assert not tower.checkpointing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "evaclip03"}, "unknown tower 'evaclip03'; known: evaclip01_giant, .*, beats, image:<"),
        (
            {"name": "beats", "layers": 2},
            "beats: unknown layers; sizes that can be changed: .*encoder_layers",
        ),
        ({"name": "image:x", "width": 3}, "image:x: weights and sizes come with that model; leave out width"),
    ],
)
def test_a_name_or_size_that_is_not_known_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        token_tower(**arguments)
