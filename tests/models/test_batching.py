"""Less memory, same gradients."""

import dataclasses
import functools

import pytest
import torch

from mmpt.config import load_config
from mmpt.losses import MMContraLoss
from mmpt.models import build_model
from mmpt.models.batching import (
    check_towers_read_alone,
    checkpoint_activations,
    compile_towers,
    forward_by_length,
    forward_in_parts,
)
from mmpt.utils.columns import LENGTHS, filled_columns
from mmpt.utils.seed import set_seed
from tests.conftest import ROOT
from tests.device_waits import NoCopies, NoLiterals
from tests.two_processes import WORLD, run_on_two_ranks

B = 6


@pytest.fixture
def config(toy_world):
    config = load_config(ROOT / "projects/toy/norton.yaml", [f"dataset.bert_name={toy_world}/model"])
    return dataclasses.replace(config, model=dataclasses.replace(config.model, learnable_temperature=True))


def batch():
    generator = torch.Generator().manual_seed(1)
    return {
        "caps": torch.randint(5, 90, (B, 32), generator=generator),
        "cmasks": torch.ones(B, 32, dtype=torch.bool),
        "vfeats": torch.randn(B, 16, 512, generator=generator),
        "vmasks": torch.ones(B, 16, dtype=torch.bool),
        "video_id": ["a"] * B,
    }


def batch_of_all_lengths():
    """Clips of 0 to 16 seconds and captions of 0 to 29 words."""
    whole = batch()
    seconds, columns = torch.tensor([0, 16, 3, 9, 16, 1]), torch.tensor([3, 32, 7, 20, 5, 4])
    return whole | {
        "vmasks": torch.arange(16) < seconds[:, None],
        "cmasks": torch.arange(32) < columns[:, None],
    }


def gradients(
    config, prepare=lambda model: None, forward=lambda model, b: model(**b), training=False, batch=batch
):
    set_seed(0)
    model = build_model(config).train(training)
    prepare(model)
    out = forward(model, batch())
    loss = torch.nn.functional.cross_entropy(
        out["pooled_text"] @ out["pooled_video"].T * out["logit_scale"].exp() * 0.01, torch.arange(B)
    )
    set_seed(5)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_a_batch_in_parts_keeps_all_negatives_and_gives_the_gradient_of_the_whole(config, size):
    loss, expected = gradients(config)
    loss_in_parts, found = gradients(config, forward=lambda model, b: forward_in_parts(model, size, b))
    torch.testing.assert_close(loss_in_parts, loss)
    assert found.keys() == expected.keys() and "logit_scale" in found
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_recomputed_activations_give_the_same_gradients_with_dropout_on(config):
    loss, expected = gradients(config, training=True)
    loss_again, found = gradients(config, prepare=checkpoint_activations, training=True)
    assert torch.equal(loss, loss_again)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-7, msg=name)


def test_parts_hold_fewer_activations_than_the_whole(config):
    def kept(forward):
        model, sizes = build_model(config), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            forward(model, batch())
        return sum(sizes)

    assert kept(lambda model, b: forward_in_parts(model, 2, b)) < kept(lambda model, b: model(**b)) / 5


def _gradients_on_rank(rank, folder):
    model_config = load_config(
        ROOT / "projects/toy/norton.yaml", [f"dataset.bert_name={(folder / 'bert').read_text()}"]
    )
    clips = batch_of_all_lengths() | {"clips_per_video": 1}
    loss = MMContraLoss({"global_negatives": True})

    def step(forward, clips, loss):
        set_seed(0)
        model = build_model(model_config).eval()
        value = loss(**clips, **forward(model, {k: v for k, v in clips.items() if k != "clips_per_video"}))
        value.backward()
        return value.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    def in_parts(model, clips):
        return forward_in_parts(functools.partial(forward_by_length, model, 2), 2, clips)

    expected_value, expected = step(lambda model, clips: model(**clips), clips, MMContraLoss({}))
    mine = {
        name: value.chunk(WORLD)[rank] if isinstance(value, torch.Tensor) else value
        for name, value in clips.items()
    }
    value, found = step(in_parts, mine, loss)
    torch.testing.assert_close(value, expected_value)
    for name, gradient in found.items():
        torch.distributed.all_reduce(gradient)  # data-parallel training averages over ranks
        torch.testing.assert_close(gradient / WORLD, expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_two_ranks_that_read_their_clips_in_parts_give_the_gradient_of_one_process_with_all_of_them(
    toy_world, tmp_path
):
    (tmp_path / "bert").write_text(str(toy_world / "model"))
    run_on_two_ranks(_gradients_on_rank, tmp_path)


@pytest.mark.parametrize("buckets", [1, 2, 4, 6, 100])
def test_clips_read_by_length_come_out_as_in_one_padded_batch(config, buckets):
    set_seed(0)
    model, clips = build_model(config).eval(), batch_of_all_lengths()
    expected, found = model(**clips), forward_by_length(model, buckets, **clips)
    assert found.keys() == expected.keys()
    for name in ("pooled_video", "pooled_text", "video_mask_outputs", "text_mask_outputs", "logit_scale"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)
    for side in ("video", "text"):
        kept = expected[f"{side}_mask_outputs"]
        torch.testing.assert_close(
            found[f"{side}_outputs"][kept], expected[f"{side}_outputs"][kept], rtol=1e-4, atol=1e-5
        )
        assert found[f"{side}_outputs"].shape == expected[f"{side}_outputs"].shape


def test_reading_by_length_never_waits_for_the_device(config):
    model, clips = build_model(config).to("meta"), batch_of_all_lengths()
    clips[LENGTHS] = {key: filled_columns(clips[key]) for key in ("vmasks", "cmasks")}
    clips = {k: x.to("meta") if isinstance(x, torch.Tensor) else x for k, x in clips.items()}
    with NoCopies(), NoLiterals():
        outputs = forward_by_length(model, 3, **clips)
        (outputs["pooled_video"].sum() + outputs["text_outputs"].sum()).backward()


@pytest.mark.parametrize("size", [None, 4])
def test_clips_read_by_length_give_the_gradient_of_the_padded_batch_also_in_parts(config, size):
    def by_length(model, clips):
        encode = functools.partial(forward_by_length, model, 3)
        return forward_in_parts(encode, size, clips) if size else encode(**clips)

    loss, expected = gradients(config, batch=batch_of_all_lengths)
    loss_by_length, found = gradients(config, forward=by_length, batch=batch_of_all_lengths)
    torch.testing.assert_close(loss_by_length, loss)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_several_captions_of_a_clip_are_read_by_length_too(config):
    model, clips = build_model(config).eval(), batch_of_all_lengths()
    clips |= {"vfeats": clips["vfeats"][:3], "vmasks": clips["vmasks"][:3]}
    expected, found = model(**clips), forward_by_length(model, 2, **clips)
    for name in ("pooled_video", "pooled_text"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_reading_by_length_leaves_padding_out_of_the_towers(config):
    model, widths = build_model(config).eval(), []
    for tower in (model.video_encoder.bert, model.text_encoder):
        tower.encoder.layer[0].register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[:2]))
    forward_by_length(model, 3, **batch_of_all_lengths())
    assert widths == [(2, 1 + 2), (2, 9 + 2), (2, 16 + 2), (2, 4 - 1), (2, 7 - 1), (2, 32 - 1)]


def test_a_model_that_reads_both_modalities_together_is_not_read_by_length(config):
    joint = dataclasses.replace(config.model, model_cls="MMFusionJoint", mm_encoder_cls="MMBertForJoint")
    with pytest.raises(ValueError, match="length_buckets .* MMFusionJoint has no towers that read alone"):
        check_towers_read_alone(build_model(dataclasses.replace(config, model=joint)), "model.length_buckets")


@pytest.mark.parametrize("switch", [checkpoint_activations, compile_towers])
def test_a_key_that_no_tower_heeds_is_refused(switch):
    with pytest.raises(ValueError, match=r"model\.\w+: Linear has no tower .* Leave the key out"):
        switch(torch.nn.Linear(2, 2))


@pytest.mark.slow
def test_compiled_towers_give_the_same_loss_and_gradients_under_the_same_names(config):
    loss, expected = gradients(config)
    loss_compiled, found = gradients(config, prepare=compile_towers)
    torch.testing.assert_close(loss_compiled, loss)
    unused = found.keys() - expected.keys()  # BERT's pooler, which no loss reads: zeros instead of nothing
    assert expected.keys() <= found.keys() and all(
        "pooler" in name and not found[name].any() for name in unused
    )
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6, msg=name)
