"""Towers that compute no padding give what padded ones give."""

import dataclasses

import pytest
import torch

from mmpt.config import load_config
from mmpt.models import build_model
from mmpt.models.batching import checkpoint_activations, forward_in_parts, pack_towers
from mmpt.models.bert import BertModel
from mmpt.models.packing import Packing
from mmpt.utils.columns import LENGTHS, filled_columns
from mmpt.utils.seed import set_seed
from tests.conftest import ROOT
from tests.device_waits import NoCopies, NoLiterals

B, SECONDS, COLUMNS = 6, [0, 16, 3, 9, 16, 1], [3, 32, 7, 20, 5, 4]


def batch(dtype=torch.float64):
    """Clips of 0 to 16 seconds and captions of 0 to 29 words."""
    generator = torch.Generator().manual_seed(1)
    return {
        "caps": torch.randint(5, 90, (B, 32), generator=generator),
        "cmasks": torch.arange(32) < torch.tensor(COLUMNS)[:, None],
        "vfeats": torch.randn(B, 16, 512, generator=generator, dtype=dtype),
        "vmasks": torch.arange(16) < torch.tensor(SECONDS)[:, None],
        LENGTHS: {"vmasks": SECONDS, "cmasks": COLUMNS},
    }


@pytest.fixture(params=["MMFusionSeparate", "MMFusionShare"])
def build(toy_world, request):
    """A model with dropout off, in training."""
    config = load_config(ROOT / "projects/toy/norton.yaml", [f"dataset.bert_name={toy_world}/model"])
    names = {"model_cls": request.param, "mm_encoder_cls": "MMBertForJoint"}
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **names))

    def model(*prepare, dtype=torch.float64):
        set_seed(0)
        model = build_model(config).to(dtype).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for change in prepare:
            change(model)
        return model

    return model


def outputs_and_gradients(model, clips, forward=lambda model, clips: model(**clips)):
    out = forward(model, clips)
    tokens = [out[f"{side}_outputs"] * out[f"{side}_mask_outputs"][..., None] for side in ("video", "text")]
    (sum(x.square().mean() for x in tokens) + (out["pooled_text"] * out["pooled_video"]).mean()).backward()
    return out, tokens, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_same(found, expected, close):
    for name in ("pooled_video", "pooled_text"):
        close(found[0][name], expected[0][name])
    for x, y in zip(found[1], expected[1], strict=True):
        close(x, y)
    assert found[2].keys() == expected[2].keys()
    for name, gradient in expected[2].items():
        close(found[2][name], gradient)


def relative(bound):
    def close(found, expected):
        error, scale = (found - expected).abs().max(), expected.abs().max()
        assert error <= bound * scale.clamp(min=1e-3), f"{error} of {scale}"

    return close


@pytest.mark.parametrize(("dtype", "values"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_packed_towers_give_values_and_gradients_of_padded_ones(build, dtype, values):
    padded = outputs_and_gradients(build(dtype=dtype), batch(dtype))
    packed = outputs_and_gradients(build(pack_towers, dtype=dtype), batch(dtype))
    assert_same(packed, padded, relative(values if dtype == torch.float64 else 1e-5))
    for name in ("pooled_video", "pooled_text"):
        relative(values)(packed[0][name], padded[0][name])


def test_packed_towers_compute_the_read_positions_alone(build):
    model, widths = build(pack_towers), []
    for module in model.modules():
        if isinstance(module, BertModel):
            first = module.encoder.layer[0]
            first.register_forward_pre_hook(lambda module, args: widths.append(len(args[0])))
    model(**batch())
    assert widths == [sum(SECONDS) + 2 * B, sum(COLUMNS) - B]


def test_padding_comes_out_as_zeros_and_its_contents_change_nothing(build):
    model, clips = build(pack_towers), batch()
    expected = model(**clips)
    clips["vfeats"] = clips["vfeats"].masked_fill(~clips["vmasks"][..., None], 1e4)
    clips["caps"] = clips["caps"].masked_fill(~clips["cmasks"], 3)
    found = model(**clips)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert not found["text_outputs"][0, 2:].any() and not found["video_outputs"][0, 1:-1].any()


def test_packed_towers_in_parts_and_with_recomputed_activations_give_the_same(build):
    padded = outputs_and_gradients(build(), batch())
    model = build(pack_towers, checkpoint_activations)
    packed = outputs_and_gradients(model, batch(), lambda model, clips: forward_in_parts(model, 4, clips))
    assert_same(packed, padded, relative(1e-12))


def test_nested_tensors_which_a_gpu_would_read_give_the_same(build, monkeypatch):
    padded = outputs_and_gradients(build(), batch())
    monkeypatch.setattr(Packing, "for_attention", Packing.nested)
    assert_same(outputs_and_gradients(build(pack_towers), batch()), padded, relative(1e-12))


def test_several_captions_of_a_clip_are_packed_too(build):
    clips = batch()
    clips |= {"vfeats": clips["vfeats"][:3], "vmasks": clips["vmasks"][:3]}
    clips[LENGTHS] = {"vmasks": SECONDS[:3], "cmasks": COLUMNS}
    expected, found = build()(**clips), build(pack_towers)(**clips)
    for name in ("pooled_video", "pooled_text"):
        relative(1e-12)(found[name], expected[name])


def test_a_packed_step_never_waits_for_the_device(build):
    model = build(pack_towers).to("meta")
    clips = {k: x.to("meta") if isinstance(x, torch.Tensor) else x for k, x in batch().items()}
    with NoCopies(), NoLiterals():
        outputs_and_gradients(model, clips)


def test_lengths_of_another_batch_are_refused(build):
    clips = batch()
    clips[LENGTHS] = {name: lengths[:-1] for name, lengths in clips[LENGTHS].items()}
    with pytest.raises(ValueError, match=r"cmasks: 5 lengths in the batch, and 6 rows"):
        build(pack_towers)(**clips)


def test_masks_with_gaps_are_refused_with_the_keys_to_leave_out(build):
    clips = batch()
    del clips[LENGTHS]
    clips["vmasks"][1, 3] = False
    assert filled_columns(clips["vmasks"]) is None
    with pytest.raises(ValueError, match=r"vmasks: lengths .* without a gap.* model.packed"):
        build(pack_towers)(**clips)
