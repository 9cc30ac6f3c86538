"""EVA-CLIP's vision towers compute what the released ones compute, under the released names."""

from __future__ import annotations

import json

import pytest
import torch

from mmpt.backbones import video_backbone
from mmpt.backbones.eva_clip import (
    EVA_CLIP,
    EvaConfig,
    EvaVision,
    eva_config,
    is_rotary_table,
    resize_grid,
    resize_patches,
    tower_state,
)
from mmpt.media.frames import model_pixels
from tests.conftest import GOLDEN, golden_cases, load_golden
from tests.golden_modules import arrays_below, assert_equal_up_to_rounding, assert_gradients, settings

RELEASED_KEYS = {
    "image_size": "image_size",
    "layers": "layers",
    "width": "width",
    "patch_size": "patch_size",
    "head_width": "head_width",
    "mlp_ratio": "mlp_ratio",
    "embed_dim": "embed_dim",
    "drop_path_rate": "drop_path",
    "ls_init_value": "layer_scale",
    "rope": "rotary",
    "pt_hw_seq_len": "rotary_grid",
    "naiveswiglu": "swiglu",
    "subln": "sub_norm",
    "postnorm": "post_norm",
}
TINY = EvaConfig(image_size=8, patch_size=4, width=16, layers=2, head_width=8, mlp_ratio=2.0, embed_dim=4)


def released_config(stored: dict) -> EvaConfig:
    """The release's settings of a tower; its class default of the MLP ratio is 4."""
    return EvaConfig(
        **{
            "mlp_ratio": 4.0,
            **{RELEASED_KEYS[key]: value for key, value in stored.items() if key in RELEASED_KEYS},
        }
    )


@pytest.mark.parametrize("case", golden_cases("release_eva_*.npz"))
def test_golden_release_eva_tower_and_its_gradients(case):
    golden = load_golden(case)
    tower = EvaVision(released_config(settings(golden))).double().eval()
    tower.load_state_dict(tower_state(arrays_below(golden, "state"), tower.config))
    pixels = torch.from_numpy(golden["in.pixels"]).requires_grad_()
    tokens = tower(pixels)
    assert_equal_up_to_rounding(tokens, golden["out.tokens"])
    assert_equal_up_to_rounding(tower.embed(pixels), golden["out.head"])
    (tokens * torch.from_numpy(golden["weight"])).sum().backward()
    assert_equal_up_to_rounding(pixels.grad, golden["grad.pixels"])
    assert_gradients(tower, arrays_below(golden, "grad_param"))


@pytest.mark.parametrize("case", golden_cases("release_eva_rope*.npz"))
def test_golden_release_eva_rotary_tables_are_computed_as_stored(case):
    golden = load_golden(case)
    tower = EvaVision(released_config(settings(golden)))
    assert torch.equal(tower.rope.freqs_cos.double(), torch.from_numpy(golden["state.rope.freqs_cos"]))
    assert torch.equal(
        tower.rope.freqs_sin.double(), torch.from_numpy(golden["state.blocks.1.attn.rope.freqs_sin"])
    )


def test_golden_release_gram_state_names_of_smaller_towers():
    listed = json.loads((GOLDEN / "release_gram_state_names.json").read_text())["vision_tower"]
    for name, entries in listed.items():
        with torch.device("meta"):
            own = {key: list(value.shape) for key, value in EvaVision(eva_config(name)).state_dict().items()}
        assert own == {
            key.removeprefix("visual."): shape for key, shape in entries if not is_rotary_table(key)
        }


@pytest.mark.parametrize("case", golden_cases("release_posembed*.npz"))
def test_golden_release_posembed_of_towers_and_models(case):
    golden = load_golden(case)
    for i in range(int(golden["n_cases"])):
        table = torch.from_numpy(golden[f"c{i}.in.vision_encoder.visual.pos_embed"])
        expected = golden[f"c{i}.out.vision_encoder.visual.pos_embed"]
        assert_equal_up_to_rounding(resize_grid(table, int(golden[f"c{i}.new_grid"])), expected, 1e-7)
    for name in {key.split(".")[0] for key in golden if key.startswith("bicubic")}:
        table, weight = (torch.from_numpy(golden[f"{name}.{key}"]) for key in ("in", "in_patch"))
        assert_equal_up_to_rounding(
            resize_grid(table, int(golden[f"{name}.new_grid"]), "bicubic"), golden[f"{name}.out"], 1e-7
        )
        assert_equal_up_to_rounding(
            resize_patches(weight, golden[f"{name}.out_patch"].shape[-1]), golden[f"{name}.out_patch"], 1e-7
        )


def test_a_tower_file_fills_a_tower_of_another_image_size():
    stored = EvaVision(TINY)
    state = {f"visual.{name}": value for name, value in stored.state_dict().items()}
    state |= {"text.ln_final.weight": torch.ones(3), "logit_scale": torch.zeros(())}
    larger = EvaVision(EvaConfig(**{**vars(TINY), "image_size": 12}))
    larger.load_state_dict(tower_state(state, larger.config))
    assert torch.equal(larger.pos_embed[:, 0], stored.pos_embed[:, 0])
    assert torch.equal(larger.patch_embed.proj.weight, stored.patch_embed.proj.weight)


def test_checkpointing_leaves_outputs_and_gradients_as_they_are():
    torch.manual_seed(0)
    tower, pixels = EvaVision(TINY), torch.randn(2, 3, 8, 8)
    gradients = []
    for tower.checkpointing in (False, True):
        tower.zero_grad()
        tower(pixels).square().sum().backward()
        gradients.append([p.grad.clone() for p in tower.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_half_precision_keeps_rotary_towers_in_half():
    tower = EvaVision(EvaConfig(**{**vars(TINY), "rotary": True, "sub_norm": True, "swiglu": True}))
    with torch.autocast("cpu", torch.bfloat16):
        assert tower(torch.randn(1, 3, 8, 8)).isfinite().all()
    assert tower.bfloat16()(torch.randn(1, 3, 8, 8).bfloat16()).dtype == torch.bfloat16


def test_drop_path_leaves_out_whole_samples_in_training_only():
    torch.manual_seed(0)
    block = EvaVision(EvaConfig(**{**vars(TINY), "drop_path": 0.5})).blocks[-1]
    x = torch.randn(64, 5, 16)
    untouched = (block(x, None) == x).all(2).all(1)
    assert 0 < untouched.sum() < 64
    assert not (block.eval()(x, None) == x).all(2).all(1).any()


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(N, 3, 8, 8\), got \(1, 3, 12, 12\)"):
        EvaVision(TINY)(torch.zeros(1, 3, 12, 12))


def test_an_unknown_tower_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="evaclip01_giant.*EVA02-CLIP-L-14"):
        eva_config("evaclip03")


def test_a_tower_by_name_extracts_features_from_its_file(tmp_path, monkeypatch):
    monkeypatch.setitem(EVA_CLIP, "tiny", TINY)
    torch.manual_seed(0)
    tower = EvaVision(TINY)
    torch.save(
        {f"visual.{name}": tensor.half() for name, tensor in tower.state_dict().items()}, tmp_path / "eva.pt"
    )
    backbone = video_backbone("eva_clip:tiny", tmp_path / "eva.pt")
    assert (backbone.passport["pixels"], backbone.passport["frames_per_second"]) == (8, 1)
    frames = torch.randint(0, 256, (2, 1, 8, 8, 3), dtype=torch.uint8)
    pixels = torch.from_numpy(model_pixels(frames[:, 0].numpy(), 8))
    tower.load_state_dict({name: tensor.half().float() for name, tensor in tower.state_dict().items()})
    expected = torch.nn.functional.normalize(tower.embed(pixels), dim=-1)
    torch.testing.assert_close(backbone.network(frames), expected.detach())


def test_a_file_without_a_tensor_of_the_tower_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(EVA_CLIP, "tiny", TINY)
    state = EvaVision(TINY).state_dict()
    del state["norm.weight"]
    torch.save(state, tmp_path / "eva.pt")
    with pytest.raises(ValueError, match="norm.weight"):
        video_backbone("eva_clip:tiny", tmp_path / "eva.pt")
