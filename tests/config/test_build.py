"""Typed configurations: unknown keys, wrong types, all errors at once."""

from __future__ import annotations

import dataclasses

import pytest

from mmpt.config import Config, ConfigError, DatasetConfig, ModelConfig
from mmpt.config.build import build_config
from mmpt.config.fields import keys_of
from mmpt.config.load import load_config

KNOWN = f"Known: {', '.join(keys_of(Config))}."


def problems(tree: dict) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_config(tree, "x.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"dataset": {"clip_per_vide": 16}},
            "x.yaml: dataset.clip_per_vide: unknown key. Did you mean dataset.clip_per_video?",
        ),
        ({"clip_per_video": 16}, "x.yaml: clip_per_video: unknown key. Did you mean dataset.clip_per_video?"),
        ({"datset": {}}, "x.yaml: datset: unknown key. Did you mean dataset?"),
        ({"qqqqqq": 1}, "x.yaml: qqqqqq: unknown key. " + KNOWN),
        ({"source": "y"}, "x.yaml: source: unknown key. " + KNOWN),
        ({"dataset": {"max_len": "96"}}, "x.yaml: dataset.max_len: expected a whole number, got '96'."),
        ({"dataset": {"max_len": 96.0}}, "x.yaml: dataset.max_len: expected a whole number, got 96.0."),
        ({"dataset": {"max_len": True}}, "x.yaml: dataset.max_len: expected a whole number, got True."),
        ({"dataset": {"keep_prob": "high"}}, "x.yaml: dataset.keep_prob: expected a number, got 'high'."),
        (
            {"model": {"layernorm_only": "yes please"}},
            "x.yaml: model.layernorm_only: expected true or false, got 'yes please'.",
        ),
        ({"project_dir": 2024}, 'x.yaml: project_dir: expected text, got 2024. Quote it: "2024".'),
        ({"dataset": "data"}, "x.yaml: dataset: expected `key: value` lines, got 'data'."),
        ({"fairseq": {"common": 3}}, "x.yaml: fairseq.common: expected `key: value` lines, got 3."),
        (
            {"dataset": {"split": "tset"}},
            "x.yaml: dataset.split: expected one of train, valid, test, got 'tset'.",
        ),
        ({"run_task": "a.yaml"}, "x.yaml: run_task: expected a list, got 'a.yaml'."),
    ],
)
def test_what_is_wrong_is_named_with_file_key_expected_and_got(tree, message):
    assert problems(tree) == [message]


def test_all_errors_of_a_file_come_at_once():
    found = problems(
        {"tsk": "A", "dataset": {"max_len": "x", "vfeatdir": "y"}, "model": {"model_class": "z"}}
    )
    assert [line.split(": ")[1] for line in found] == [
        "tsk",
        "dataset.max_len",
        "dataset.vfeatdir",
        "model.model_class",
    ]


def test_the_file_that_sets_the_wrong_key_is_named_not_the_one_that_includes_it(tmp_path):
    (tmp_path / "base.yaml").write_text("dataset: {max_lenn: 3}\n")
    (tmp_path / "top.yaml").write_text("includes: base.yaml\ndataset: {max_len: x}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "top.yaml")
    wrong_key, wrong_type = str(caught.value).splitlines()
    assert wrong_key.startswith(str(tmp_path / "base.yaml"))
    assert wrong_type.startswith(str(tmp_path / "top.yaml"))


def test_keys_inside_task_groups_are_checked_too():
    tree = {
        "base_dir": "task",
        "project_dir": "p",
        "task_group": {"pretrain": {"task_list": ["a.yaml"], "dataset": {"max_lenn": 1}}},
    }
    place = "task_group.pretrain.dataset"
    assert problems(tree) == [f"x.yaml: {place}.max_lenn: unknown key. Did you mean {place}.max_len?"]


def test_a_task_list_must_be_a_list():
    assert problems({"task_group": {"a": {"task_list": "x.yaml"}}}) == [
        "x.yaml: task_group.a.task_list: expected a list of file names, got 'x.yaml'."
    ]


def test_whole_numbers_pass_for_numbers():
    keep_prob = build_config({"dataset": {"keep_prob": 1}}, "x.yaml").dataset.keep_prob
    assert isinstance(keep_prob, float)


def test_null_means_the_default():
    config = build_config(
        {"dataset": {"mm_prob": None, "max_len": None}, "model": None, "fairseq": {"common": None}}, "x.yaml"
    )
    assert config.dataset == DatasetConfig()
    assert config.model == ModelConfig()
    assert config.fairseq == {}


def test_null_takes_an_included_modality_out():
    modalities = {"video": {"path": "x"}, "audio": None, "subtitle": {}}
    assert list(build_config({"dataset": {"modalities": modalities}}, "x.yaml").dataset.modalities) == [
        "video",
        "subtitle",
    ]


def test_a_configuration_cannot_be_written_to():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().dataset.max_len = 3


def test_every_declared_key_says_what_it_means():
    for cls in (Config, *(type(getattr(Config(), name)) for name in ("dataset", "model", "eval"))):
        for name, key in keys_of(cls).items():
            assert len(key.field.metadata["help"]) > 3, f"{cls.__name__}.{name}"
