"""Models against reference outputs, with the reference's parameters loaded strictly."""

from __future__ import annotations

import pytest
import torch

from mmpt.losses import build_loss
from mmpt.models import build_model
from mmpt.models import sequence_layout as layout
from tests.conftest import golden_cases, load_golden

TOWERS = {"video_encoder_cls": "MMBertForEncoder", "text_encoder_cls": "BertModel"}


def build(config, arrays):
    """The model in eval mode with every `state.*` array, none missing, none left over."""
    model = build_model(config)
    state = {
        k.removeprefix("state."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("state.")
    }
    model.load_state_dict({k: v for k, v in state.items() if not k.endswith("position_ids")}, strict=True)
    return model.eval()


def group(arrays, prefix):
    return {k.removeprefix(prefix): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}


def assert_equal(got, expected, names=None):
    for name in names or expected:
        if expected[name].dtype == torch.bool:
            assert torch.equal(got[name], expected[name]), name
        else:
            torch.testing.assert_close(
                got[name], expected[name], rtol=2e-4, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}"
            )


@pytest.mark.parametrize("path", golden_cases("norton_model_separate*.npz"))
class TestSeparate:
    def test_golden_norton_model_separate_outputs(self, path, make_config):
        arrays = load_golden(path)
        model = build(make_config("MMFusionSeparate", **TOWERS), arrays)
        with torch.no_grad():
            got = model(**group(arrays, "in."))
        expected = group(arrays, "out.")
        assert_equal(got | {"hidden_video": got["video_outputs"]}, expected)

    def test_golden_norton_model_separate_localization(self, path, make_config):
        arrays = load_golden(path)
        model = build(make_config("MMFusionSeparateActionLocalization", **TOWERS), arrays)
        with torch.no_grad():
            assert_equal(model(**group(arrays, "localization_in.")), group(arrays, "localization_out."))

    def test_golden_norton_model_separate_fullvideo(self, path, make_config):
        arrays = load_golden(path)
        model = build(make_config("MMFusionSeparateFullVideoBGRetrieval", **TOWERS), arrays)
        with torch.no_grad():
            assert_equal(model(**group(arrays, "localization_in.")), group(arrays, "fullvideo_out."))


@pytest.mark.parametrize("path", golden_cases("norton_model_segmentation*.npz"))
def test_golden_norton_model_segmentation(path, make_config):
    arrays = load_golden(path)
    config = make_config(
        "MMFusionSeparateActionSegmentation",
        video_encoder_cls="MMBertForTokenClassification",
        num_hidden_video_layers=1,
    )
    with torch.no_grad():
        assert_equal(build(config, arrays)(**group(arrays, "in.")), group(arrays, "out."))


@pytest.mark.parametrize("path", golden_cases("norton_model_share_joint*.npz"))
class TestShareAndJoint:
    def test_golden_norton_model_share_joint_share(self, path, make_config):
        arrays = load_golden(path)
        model = build(make_config("MMFusionShare", mm_encoder_cls="MMBertForEncoder"), arrays)
        with torch.no_grad():
            assert_equal(model(**group(arrays, "in.")), group(arrays, "share."))

    @pytest.mark.parametrize(
        "name", ["joint_iso0_train", "joint_iso1_train", "joint_iso2_train", "joint_iso2_test"]
    )
    def test_golden_norton_model_share_joint_joint(self, path, name, make_config):
        arrays = load_golden(path)
        n_isolated, batch, expected = int(name[9]), group(arrays, "in."), group(arrays, f"{name}.")
        model = build(
            make_config("MMFusionJoint", {"num_iso_layer": n_isolated}, mm_encoder_cls="MMBertForJoint"),
            arrays,
        )
        with torch.no_grad():
            assert_equal(model(**batch), expected, ["pooled_video", "pooled_text"])

    def test_golden_norton_model_share_joint_mask_without_isolation(self, path):
        arrays = load_golden(path)
        batch = group(arrays, "in.")
        assert torch.equal(
            layout.splice(batch["cmasks"], batch["vmasks"]),
            torch.from_numpy(arrays["joint_iso0_train.attention_mask"]),
        )

    @pytest.mark.parametrize("name", ["joint_iso1_train", "joint_iso2_train", "joint_iso2_test"])
    def test_golden_norton_model_share_joint_isolation_mask(self, path, name):
        arrays = load_golden(path)
        n_isolated, batch, expected = (
            int(name[9]),
            group(arrays, "in."),
            group(arrays, f"{name}.")["attention_mask"],
        )
        isolated = layout.isolated_mask(batch["cmasks"], batch["vmasks"])
        assert all(torch.equal(expected[:, layer], isolated) for layer in range(n_isolated))
        fused = layout.splice(batch["cmasks"], batch["vmasks"])[:, None, None].expand_as(
            expected[:, n_isolated:]
        )
        assert torch.equal(expected[:, n_isolated:], fused)

    @pytest.mark.parametrize("kind", ["joint", "share"])
    def test_golden_norton_model_share_joint_localization(self, path, kind, make_config):
        arrays = load_golden(path)
        cls = {"joint": "MMFusionActionLocalization", "share": "MMFusionShareActionLocalization"}[kind]
        model = build(make_config(cls, {"num_iso_layer": 2}, mm_encoder_cls="MMBertForJoint"), arrays)
        with torch.no_grad():
            assert_equal(model(**group(arrays, "localization_in.")), group(arrays, f"localization_{kind}."))


@pytest.mark.parametrize("path", golden_cases("norton_model_mtm*.npz"))
def test_golden_norton_model_mtm(path, make_config):
    arrays = load_golden(path)
    check_masked_modelling(
        build(make_config("MMFusionMTM", mm_encoder_cls="MMBertForMFMMLM"), arrays), arrays, "MTM"
    )


@pytest.mark.parametrize("path", golden_cases("norton_model_mfmmlm*.npz"))
def test_golden_norton_model_mfmmlm(path, make_config):
    arrays = load_golden(path)
    check_masked_modelling(
        build(make_config("MMFusionMFMMLM", mm_encoder_cls="MMBertForMFMMLM"), arrays), arrays, "MFMMLM"
    )


def check_masked_modelling(model, arrays, loss_cls):
    batch = group(arrays, "in.")
    features = batch["vfeats"].clone()
    with torch.no_grad():
        outputs = model(**batch)
        loss = build_loss({"loss_cls": loss_cls})(**{**batch, **outputs})
    assert_equal({**outputs, "loss": loss}, group(arrays, "out."), ["video_logits", "text_logits", "loss"])
    assert torch.equal(batch["vfeats"], features), "masking must not write into the batch"


@pytest.mark.parametrize("path", golden_cases("norton_model_nlg*.npz"))
class TestNLG:
    def build(self, path, make_config):
        arrays = load_golden(path)
        return build(make_config("MMFusionNLG", mm_encoder_cls="MMBertForNLG"), arrays), arrays

    def test_golden_norton_model_nlg_teacher_forcing(self, path, make_config):
        model, arrays = self.build(path, make_config)
        batch = {k: v for k, v in (group(arrays, "in.") | group(arrays, "tf.")).items() if k != "logits"}
        with torch.no_grad():
            assert_equal(model(**batch), {"logits": torch.from_numpy(arrays["tf.logits"])})

    @pytest.mark.parametrize(("name", "num_beams"), [("greedy", 1), ("beam3", 3)])
    def test_golden_norton_model_nlg_generation(self, path, name, num_beams, make_config):
        model, arrays = self.build(path, make_config)
        batch = group(arrays, "in.")
        prompt = torch.tensor([[1, 2]]).expand(len(batch["vfeats"]), 2)
        got = model.generate(prompt, batch["vfeats"], batch["vmasks"], num_beams=num_beams, max_length=12)
        assert got.tolist() == arrays[name].tolist()

    def test_golden_norton_model_nlg_mask(self, path):
        batch = group(load_golden(path), "in.")
        mask = layout.generation_mask(batch["vmasks"], 16)
        assert torch.equal(mask, batch["attention_mask"])
