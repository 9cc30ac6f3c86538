"""BEATs computes what the released one computes, under the released names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmpt.backbones import audio_backbone
from mmpt.backbones.beats import Beats, BeatsConfig, beats_of_file, relative_bucket
from mmpt.backbones.tokens import token_tower
from tests.conftest import golden_cases, load_golden
from tests.golden_modules import arrays_below, assert_equal_up_to_rounding, assert_gradients, settings

TINY = BeatsConfig(
    input_patch_size=4,
    embed_dim=8,
    encoder_layers=2,
    encoder_embed_dim=12,
    encoder_ffn_embed_dim=16,
    encoder_attention_heads=2,
    conv_pos=4,
    conv_pos_groups=2,
    num_buckets=8,
    max_distance=10,
)


@pytest.mark.parametrize("case", golden_cases("release_beats_*.npz"))
def test_golden_release_beats_and_its_gradients(case):
    golden = load_golden(case)
    network = Beats(BeatsConfig.from_file(settings(golden))).double().eval()
    network.load_state_dict(arrays_below(golden, "state"))
    fbank = torch.from_numpy(golden["in.fbank"]).requires_grad_()
    tokens = network(fbank)
    assert_equal_up_to_rounding(tokens, golden["out.tokens"])
    (tokens * torch.from_numpy(golden["weight"])).sum().backward()
    assert_equal_up_to_rounding(fbank.grad, golden["grad.fbank"])
    assert_gradients(network, arrays_below(golden, "grad_param"))


@pytest.mark.parametrize("case", golden_cases("release_fbank*.npz") + golden_cases("release_beats_*.npz"))
def test_golden_release_beats_and_fbank_buckets_of_distances(case):
    golden = load_golden(case)
    if "rel_bucket" in golden:
        cfg = settings(golden)
        tables = {
            (cfg["num_buckets"], cfg["max_distance"]): (golden["rel_bucket_positions"], golden["rel_bucket"])
        }
    else:
        named = [key for key in golden if key.startswith("bucket_") and key != "bucket_positions"]
        tables = {
            tuple(map(int, key.split("_")[1:])): (golden["bucket_positions"], golden[key]) for key in named
        }
    for (n_buckets, max_distance), (distances, expected) in tables.items():
        assert (
            relative_bucket(torch.from_numpy(distances), n_buckets, max_distance).numpy() == expected
        ).all()


def test_the_released_sizes_are_the_defaults():
    with torch.device("meta"):
        network = Beats(BeatsConfig())
    assert len(network.state_dict()) == 250
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(90.3e6, rel=1e-3)


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_a_layer_left_out_still_gives_every_parameter_a_gradient(drop):
    torch.manual_seed(0)
    network = Beats(BeatsConfig(**{**vars(TINY), "encoder_layerdrop": drop}))
    network(torch.randn(2, 16, 8)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert (network.encoder.layers[0].fc1.weight.grad == 0).all() == bool(drop)


def test_checkpointing_leaves_gradients_as_they_are():
    torch.manual_seed(0)
    network, fbank = Beats(TINY).eval(), torch.randn(2, 16, 8)
    gradients = []
    for network.checkpointing in (False, True):
        network.zero_grad()
        network(fbank).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_half_precision_runs_through():
    network = Beats(TINY).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(1, 16, 8)).isfinite().all()
    assert network.bfloat16()(torch.randn(1, 16, 8).bfloat16()).dtype == torch.bfloat16


def test_another_activation_is_refused_by_name():
    with pytest.raises(ValueError, match="activation_fn='relu'"):
        BeatsConfig.from_file({"activation_fn": "relu"})


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    tower = Beats(replace(TINY, max_distance=20))
    cfg = {**vars(tower.config), "mask_prob": 0.8}
    torch.save({"cfg": cfg, "model": tower.state_dict()}, tmp_path / "beats.pt")
    return tmp_path / "beats.pt"


def test_a_file_of_the_tower_says_its_sizes(file):
    tower = token_tower("beats", str(file))
    assert tower.config.max_distance == 20 and tower.config == beats_of_file(file).config


def test_features_are_the_mean_token_over_a_window(file):
    backbone = audio_backbone("beats", file, normalize=False)
    assert backbone.passport["window_seconds"] == 10 and backbone.passport["mel_filters"] == 128
    fbank = torch.randn(2, 98, 128)
    torch.testing.assert_close(backbone.network(fbank), beats_of_file(file).eval()(fbank).mean(1))


def test_another_kind_of_file_is_refused(tmp_path):
    torch.save({"model": {"weight": torch.ones(1)}}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="x.pt is no file of BEATs: expected a dict with cfg and model"):
        beats_of_file(tmp_path / "x.pt")
