"""Our BERT draws and computes what that of transformers does, and reads its files."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import save_file

from mmpt.models import build_model
from mmpt.models.bert import BertConfig, BertModel, read_bert_config
from mmpt.models.transformermodel import (
    MMBertForNLG,
    MMBertForTokenClassification,
    load_bert_weights,
    pretrained_bert,
)

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
}


def both(**changed):
    """(theirs, ours), each built from the same seed."""
    built = []
    for config, model in ((transformers.BertConfig, transformers.BertModel), (BertConfig, BertModel)):
        torch.manual_seed(3)
        built.append(model(config(**SIZES | changed)))
    return built


def texts():
    ids = torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(0))
    return ids, torch.arange(12) < torch.tensor([12, 5, 8, 3])[:, None]


def hidden_of_theirs(model, ids, mask, **options):
    return model(input_ids=ids, attention_mask=mask[:, None, None], **options)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu", "silu", "tanh"])
def test_hidden_states_and_gradients_are_theirs_bit_by_bit_with_dropout_on(act):
    ids, mask = texts()
    found = []
    for model, run in zip(both(hidden_act=act), (hidden_of_theirs, BertModel.forward), strict=True):
        torch.manual_seed(5)
        out = run(model.train(), ids, mask)
        hidden = out if isinstance(out, torch.Tensor) else out.last_hidden_state
        hidden.square().sum().backward()
        found.append((hidden, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (theirs, gradients), (ours, own_gradients) = found
    if act == "gelu_new":  # theirs spells the formula out
        assert torch.allclose(ours, theirs, rtol=0, atol=2e-6)
        return
    assert torch.equal(ours, theirs) and gradients.keys() == own_gradients.keys()
    assert all(torch.equal(own_gradients[name], gradient) for name, gradient in gradients.items())


def test_a_seed_draws_their_weights_under_their_names():
    theirs, ours = (model.state_dict() for model in both())
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert not ours["embeddings.word_embeddings.weight"][0].any()  # of [PAD]


def test_hidden_states_after_some_layers_are_theirs():
    theirs, ours = (model.eval() for model in both())
    ids, mask = texts()
    expected = hidden_of_theirs(theirs, ids, mask, output_hidden_states=True).hidden_states
    for n, hidden in enumerate(expected[:-1]):
        assert torch.equal(ours(ids, mask, n_layers=n), hidden)


def test_recomputed_activations_give_the_same_gradients():
    found, runs = [], []
    for again in (False, True):
        _, model = both()
        model.train().checkpointing = again
        model.encoder.layer[1].register_forward_pre_hook(lambda *_, again=again: runs.append(again))
        torch.manual_seed(5)
        model(*texts()).square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert runs == [False, True, True]
    assert all(torch.equal(found[1][name], gradient) for name, gradient in found[0].items())


def test_a_saved_config_is_read_by_transformers_and_by_us(tmp_path):
    config = BertConfig(**SIZES, hidden_act="relu", input_dim=7)
    config.save(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert isinstance(theirs, transformers.BertConfig)
    assert {name: getattr(theirs, name) for name in SIZES} == SIZES and theirs.hidden_act == "relu"
    assert read_bert_config(str(tmp_path)) == config


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"hidden_size": "768"}, "hidden_size is '768', expected int"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True, expected int"),
        ({"num_attention_heads": 0}, "num_attention_heads=0, expected at least 1"),
        ({"hidden_size": 30}, "hidden_size=30 is not divided by num_attention_heads=4"),
        ({"hidden_act": "gellu"}, "hidden_act='gellu'; expected one of gelu"),
        ({"model_type": "roberta"}, "model_type is .roberta., expected bert"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type is .relative_key., expected abs",
        ),
        ({"pad_token_id": 50}, "pad_token_id=50, expected 0 to 49"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob=1.5, expected 0 to 1"),
        ({"initializer_range": -0.1}, "initializer_range=-0.1, expected 0 to inf"),
    ],
)
def test_a_config_of_something_else_is_refused_by_file_and_entry(tmp_path, entries, said):
    (tmp_path / "config.json").write_text(json.dumps(SIZES | entries))
    with pytest.raises(ValueError, match=f"config.json: {said}"):
        read_bert_config(str(tmp_path))


def test_entries_without_a_value_and_names_of_older_files_are_read(tmp_path):
    entries = {"model_type": None, "pad_token_id": None, "hidden_act": "swish", "is_decoder": True}
    (tmp_path / "config.json").write_text("\ufeff" + json.dumps(SIZES | entries))
    assert isinstance(read_bert_config(str(tmp_path)).activation(), torch.nn.SiLU)


@pytest.fixture
def saved():
    torch.manual_seed(1)
    return transformers.BertForPreTraining(transformers.BertConfig(**SIZES))


@pytest.mark.parametrize(
    "options", [{}, {"max_shard_size": "20KB"}], ids=["one file", "several files and their index"]
)
def test_weights_that_transformers_saved_are_read_whole(tmp_path, saved, options):
    saved.save_pretrained(tmp_path, **options)
    assert (tmp_path / "model.safetensors").exists() != bool(options)
    state = pretrained_bert(str(tmp_path))
    expected = saved.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in state) and len(state) > 50


def test_weights_of_a_bert_without_heads_and_of_the_first_conversions_get_the_names_of_today(tmp_path, saved):
    renamed = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): tensor.clone()
        for name, tensor in saved.state_dict().items()
        if name.startswith("bert.")
    }
    save_file(renamed, tmp_path / "model.safetensors")
    state = pretrained_bert(str(tmp_path))
    assert "bert.embeddings.LayerNorm.weight" in state and len(state) == len(renamed)
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in state.items())


def test_weights_that_lack_a_part_are_refused_by_name(tmp_path, make_config, bert_folder, saved):
    shutil.copytree(bert_folder, tmp_path / "bert")
    BertConfig(**SIZES | {"max_position_embeddings": 64}).save(tmp_path / "bert")
    tensors = {name: tensor.clone() for name, tensor in saved.state_dict().items() if "query" not in name}
    save_file(tensors, tmp_path / "bert" / "model.safetensors")
    towers = {"video_encoder_cls": "MMBertForEncoder", "text_encoder_cls": "BertModel", "init": "pretrained"}
    with pytest.raises(ValueError, match=r"bert: 6 of .* tensors of MMBertForEncoder are not there.*query"):
        build_model(make_config("MMFusionSeparate", {"bert_name": str(tmp_path / "bert")}, **towers))


def test_a_prediction_head_that_is_not_in_the_file_is_not_drawn(tmp_path, make_config, bert_folder):
    shutil.copytree(bert_folder, tmp_path / "bert")
    theirs = transformers.BertModel(transformers.BertConfig.from_pretrained(bert_folder))
    theirs.save_pretrained(tmp_path / "bert")
    settings = {"mm_encoder_cls": "MMBertForMFMMLM", "init": "pretrained"}
    with pytest.raises(ValueError, match="tensors of MMBertForMFMMLM are not there, cls.predictions.bias"):
        build_model(make_config("MMFusionMFMMLM", {"bert_name": str(tmp_path / "bert")}, **settings))


@pytest.mark.parametrize("index", ["{", "{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index_of_several_files_is_named(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json: "):
        pretrained_bert(str(tmp_path))


def test_weights_of_other_sizes_than_the_config_are_refused_by_name(saved):
    encoder = BertModel(BertConfig(**SIZES | {"vocab_size": 60}))
    said = r"folder: embeddings.word_embeddings.weight has .* \(50, 32\) in the weights, and \(60, 32\) after"
    with pytest.raises(ValueError, match=said):
        load_bert_weights(encoder, saved.state_dict(), "folder")


def test_a_classifier_of_another_task_is_left_out():
    theirs = transformers.BertForTokenClassification(transformers.BertConfig(**SIZES, num_labels=779))
    encoder = MMBertForTokenClassification(BertConfig(**SIZES))
    drawn = encoder.classifier.weight.clone()
    load_bert_weights(encoder, theirs.state_dict(), "folder")
    assert torch.equal(encoder.classifier.weight, drawn)
    words = theirs.bert.embeddings.word_embeddings.weight
    assert torch.equal(encoder.bert.embeddings.word_embeddings.weight, words)


def test_a_tied_tensor_takes_its_first_name_in_the_file(saved):
    state = {name: tensor.clone() for name, tensor in saved.state_dict().items()}
    state["cls.predictions.decoder.weight"] = torch.zeros(50, 32)  # of a head that was trained apart
    bias = state.pop("cls.predictions.bias").fill_(3)
    state["cls.predictions.decoder.bias"] = bias
    encoder = MMBertForNLG(BertConfig(**SIZES))
    load_bert_weights(encoder, state, "folder")
    words = saved.bert.embeddings.word_embeddings.weight
    assert torch.equal(encoder.head.decoder.weight, words) and torch.equal(encoder.head.bias, bias)
