"""Building models: starting weights, frozen parameters, errors at the door."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForPreTraining

from mmpt.models import build_model
from mmpt.models.build import freeze_all_but_layernorm
from mmpt.ops.logit_scale import INITIAL_LOGIT_SCALE


@pytest.fixture
def pretrained_folder(bert_folder, tmp_path):
    """A model folder with weights."""
    torch.manual_seed(5)
    BertForPreTraining(BertConfig.from_pretrained(bert_folder)).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def two_towers(make_config, folder, **model):
    towers = {
        "video_encoder_cls": "MMBertForEncoder",
        "text_encoder_cls": "BertModel",
        "num_hidden_video_layers": 1,
    }
    return make_config("MMFusionSeparate", {"bert_name": str(folder)}, **(towers | model))


def test_pretrained_towers_start_from_the_folder_and_the_video_tower_from_its_first_layers(
    make_config, pretrained_folder
):
    source = BertForPreTraining.from_pretrained(pretrained_folder).state_dict()
    model = build_model(two_towers(make_config, pretrained_folder, init="pretrained"))
    for name, tensor in model.text_encoder.state_dict().items():
        assert torch.equal(tensor, source[f"bert.{name}"]), name
    for name, tensor in model.video_encoder.bert.state_dict().items():
        assert torch.equal(tensor, source[f"bert.{name}"]), name
    assert len(model.video_encoder.bert.encoder.layer) == 1 and len(model.text_encoder.encoder.layer) == 2


def test_pretrained_prediction_head_is_loaded(make_config, pretrained_folder):
    source = BertForPreTraining.from_pretrained(pretrained_folder).state_dict()
    config = make_config(
        "MMFusionMFMMLM",
        {"bert_name": str(pretrained_folder)},
        mm_encoder_cls="MMBertForMFMMLM",
        init="pretrained",
    )
    state = build_model(config).mm_encoder.cls.state_dict()
    assert all(torch.equal(tensor, source[f"cls.{name}"]) for name, tensor in state.items())


def test_random_init_ignores_weights(make_config, pretrained_folder):
    model = build_model(two_towers(make_config, pretrained_folder, init="random"))
    source = BertForPreTraining.from_pretrained(pretrained_folder).state_dict()
    assert not torch.equal(model.text_encoder.pooler.dense.weight, source["bert.pooler.dense.weight"])


def test_pretrained_init_from_a_folder_without_weights_names_the_cure(make_config, bert_folder):
    with pytest.raises(FileNotFoundError, match="model.init: random"):
        build_model(two_towers(make_config, bert_folder, init="pretrained"))


def test_unknown_bert_name_is_explained(make_config, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="dataset.bert_name=.*config.json"):
        build_model(two_towers(make_config, tmp_path / "absent"))


def test_missing_key_is_named(make_config):
    with pytest.raises(ValueError, match="model.video_encoder_cls is not set, but MMFusionSeparate needs it"):
        build_model(make_config("MMFusionSeparate", text_encoder_cls="BertModel"))


def test_model_class_must_be_named(make_config):
    with pytest.raises(ValueError, match="model.model_cls is not set.*MMFusionSeparate"):
        build_model(make_config(None))


def test_sequences_beyond_the_position_table_are_refused(make_config, bert_folder):
    config = make_config(
        "MMFusionSeparate",
        {"max_len": 65},
        video_encoder_cls="MMBertForEncoder",
        text_encoder_cls="BertModel",
    )
    with pytest.raises(ValueError, match="max_len=65 exceeds the 64 positions"):
        build_model(config)


def test_layernorm_only_trains_layernorms_and_the_temperature(make_config, bert_folder):
    config = two_towers(make_config, bert_folder, layernorm_only=True, learnable_temperature=True)
    trainable = {name for name, p in build_model(config).named_parameters() if p.requires_grad}
    assert "logit_scale" in trainable and "video_encoder.videomlp.LayerNorm.weight" in trainable
    assert all(name.split(".")[-2] == "LayerNorm" for name in trainable - {"logit_scale"})
    assert len(trainable) == 1 + 2 * (1 + 1 + 2 * 1 + 1 + 2 * 2)  # video MLP, two embeddings, two per layer


def test_only_modules_called_exactly_layernorm_stay_trainable():
    model = nn.ModuleDict(
        {name: nn.LayerNorm(2) for name in ("LayerNorm", "LayerNorm2", "norm", "MyLayerNorm")}
    )
    freeze_all_but_layernorm(model)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "LayerNorm.weight",
        "LayerNorm.bias",
    ]


def test_checkpoint_weights_reach_the_model(make_config, separate_config, tmp_path):
    source = build_model(separate_config)
    torch.save(
        {"model": {f"mmmodel.{k}": v.half() for k, v in source.state_dict().items()}}, tmp_path / "c.pt"
    )
    loaded = build_model(separate_config, tmp_path / "c.pt")
    for name, tensor in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name


def test_with_a_checkpoint_the_weights_of_bert_are_not_needed(make_config, bert_folder, tmp_path):
    source = build_model(two_towers(make_config, bert_folder)).state_dict()
    torch.save(source, tmp_path / "c.pt")
    loaded = build_model(
        two_towers(make_config, bert_folder, init="pretrained"), tmp_path / "c.pt"
    ).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in source.items())


def test_seg_embeddings_of_vlm_checkpoints_have_a_place(make_config):
    model = build_model(make_config("MMFusionJoint", mm_encoder_cls="MMBertForJoint", use_seg_emb=True))
    assert model.mm_encoder.bert.embeddings.seg_embeddings.weight.shape == (256, 32)


def test_learnable_temperature_is_in_the_outputs(make_config, bert_folder, clips):
    output = build_model(two_towers(make_config, bert_folder, learnable_temperature=True))(**clips)
    assert (
        output["logit_scale"].item() == pytest.approx(INITIAL_LOGIT_SCALE)
        and output["logit_scale"].requires_grad
    )


def test_bert_base_sizes_are_those_of_the_published_model(make_config, tmp_path, bert_folder):
    shutil.copytree(bert_folder, tmp_path / "base")
    BertConfig().save_pretrained(tmp_path / "base")
    with torch.device("meta"):
        model = build_model(
            two_towers(make_config, tmp_path / "base", num_hidden_video_layers=6, layernorm_only=True)
        )
    count = lambda parameters: sum(p.numel() for p in parameters)  # noqa: E731
    assert count(model.text_encoder.parameters()) == 109_482_240
    assert count(model.video_encoder.bert.parameters()) == 66_955_008
    assert count(model.video_encoder.videomlp.parameters()) == 986_112
    assert count(p for p in model.parameters() if p.requires_grad) == 59_904
