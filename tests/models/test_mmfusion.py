"""Behaviour of fusion models that no reference array shows."""

from __future__ import annotations

import pytest
import torch

from mmpt.models import build_model
from mmpt.utils.columns import filled_columns, labels_in_use
from tests.device_waits import NoReads


@pytest.fixture
def model(separate_config):
    torch.manual_seed(1)
    return build_model(separate_config).eval()


def test_one_modality_alone_equals_both_together(model, clips):
    with torch.no_grad():
        both = model(**clips)
        video = model.forward_video(
            clips["vfeats"], clips["vmasks"], clips["caps"][:, :2], clips["cmasks"][:, :2]
        )
        text = model.forward_text(clips["caps"], clips["cmasks"])
    assert torch.equal(video.pooled, both["pooled_video"]) and torch.equal(text.pooled, both["pooled_text"])


def test_padding_changes_no_pooled_vector(model, clips):
    one = {k: v[1:2] for k, v in clips.items()}  # 1 of 8 seconds is valid
    short = one | {"vfeats": one["vfeats"][:, :1], "vmasks": one["vmasks"][:, :1]}
    noisy = one | {"vfeats": one["vfeats"] + 5.0 * ~one["vmasks"][..., None]}
    with torch.no_grad():
        expected = model(**one)["pooled_video"]
        torch.testing.assert_close(model(**noisy)["pooled_video"], expected)
        encoded = model(**short)["pooled_video"]
    torch.testing.assert_close(encoded, expected, rtol=1e-4, atol=1e-5)


def test_every_model_of_clips_returns_the_same_keys_and_shapes(make_config, clips, separate_config):
    configs = [
        separate_config,
        make_config("MMFusionShare", mm_encoder_cls="MMBertForEncoder"),
        make_config("MMFusionJoint", {"num_iso_layer": 1}, mm_encoder_cls="MMBertForJoint"),
        make_config("MMFusionMTM", mm_encoder_cls="MMBertForMFMMLM"),
    ]
    shapes = [{k: tuple(v.shape) for k, v in build_model(config)(**clips).items()} for config in configs]
    assert shapes[0]["video_outputs"] == (3, 10, 32) and shapes[0]["text_mask_outputs"] == (3, 15)
    assert all(shape == shapes[0] for shape in shapes)


def test_isolated_layers_make_a_video_vector_independent_of_its_caption(make_config, clips):
    model = build_model(
        make_config("MMFusionJoint", {"num_iso_layer": 1}, mm_encoder_cls="MMBertForJoint")
    ).eval()
    other = clips | {"caps": clips["caps"].clone()}
    other["caps"][:, 2:5] = 7
    with torch.no_grad():
        first, second = model(**clips), model(**other)
    torch.testing.assert_close(first["pooled_video"], second["pooled_video"])
    assert not torch.allclose(first["pooled_text"], second["pooled_text"])


def test_too_many_isolated_layers_are_refused(make_config):
    with pytest.raises(ValueError, match="num_iso_layer=3 exceeds the 2 layers"):
        build_model(make_config("MMFusionJoint", {"num_iso_layer": 3}, mm_encoder_cls="MMBertForJoint"))


def test_joint_model_says_that_it_cannot_encode_one_modality(make_config, clips):
    model = build_model(make_config("MMFusionJoint", mm_encoder_cls="MMBertForJoint"))
    with pytest.raises(NotImplementedError, match="Separate or Share"):
        model.forward_text(clips["caps"], clips["cmasks"])


def test_windowed_models_take_one_video_per_batch(make_config):
    model = build_model(
        make_config(
            "MMFusionSeparateFullVideoBGRetrieval",
            video_encoder_cls="MMBertForEncoder",
            text_encoder_cls="BertModel",
        )
    )
    two = [
        torch.ones(2, 3, 16).long(),
        torch.ones(2, 3, 16).bool(),
        torch.ones(2, 4, 8, 24),
        torch.ones(2, 4, 8).bool(),
    ]
    with pytest.raises(ValueError, match="batch_size: 1"):
        model(*two)


def test_masked_modelling_gradients_reach_frames_words_and_head(make_config, clips):
    model = build_model(make_config("MMFusionMTM", mm_encoder_cls="MMBertForMFMMLM"))
    video_label = clips["vmasks"] & (torch.arange(8) % 2 == 0)
    text_label = torch.where(clips["cmasks"] & (torch.arange(16) == 2), clips["caps"], -100)
    output = model(**clips, video_label=video_label, text_label=text_label)
    (output["video_logits"].logsumexp(1).sum() + output["text_logits"].logsumexp(1).sum()).backward()
    encoder = model.mm_encoder
    for part in (
        encoder.videomlp.linear1,
        encoder.bert.encoder.layer[0].output.dense,
        encoder.head.transform.dense,
    ):
        assert part.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("model_cls", "encoder"),
    [("MMFusionMTM", "MMBertForMTM"), ("MMFusionMFMMLM", "MMBertForMFMMLM"), ("MMFusionNLG", "MMBertForNLG")],
)
def test_labels_that_were_counted_give_the_same_logits_and_no_wait_for_the_device(
    make_config, clips, model_cls, encoder
):
    model = build_model(make_config(model_cls, mm_encoder_cls=encoder)).eval()
    length = clips["caps"].shape[1] + clips["vfeats"].shape[1]
    labels = {
        "video_label": clips["vmasks"] & (torch.arange(8) % 2 == 0),
        "text_label": torch.where(clips["cmasks"] & (torch.arange(16) > 2), clips["caps"], -100),
        "attention_mask": torch.ones(len(clips["caps"]), length, length, dtype=torch.bool),
    }
    expected = model(**clips, **labels)
    counted = {key: labels_in_use(labels[key]) for key in ("video_label", "text_label")}
    lengths = {"vmasks": filled_columns(clips["vmasks"])}
    with NoReads():
        found = model(**clips, **labels, labelled=counted, lengths=lengths)
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def test_half_precision_model_gives_finite_half_precision_outputs(model, clips):
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in clips.items()}
    output = model.bfloat16()(**half)
    assert output["pooled_video"].dtype == torch.bfloat16 and output["pooled_video"].isfinite().all()


def test_captions_are_no_longer_than_configured(make_config, clips):
    model = build_model(make_config("MMFusionNLG", mm_encoder_cls="MMBertForNLG", max_decode_length=6)).eval()
    assert model.generate(clips["caps"], clips["vfeats"], clips["vmasks"]).shape[1] <= 6
    assert build_model(make_config("MMFusionNLG", mm_encoder_cls="MMBertForNLG")).longest_caption() == 13
