"""The field helper and the reader of sections, and sections that named classes add keys to."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import pytest

from mmpt.config import load_config
from mmpt.config.fields import ConfigError, Section, option, read_section
from mmpt.config.schema import Config, DatasetConfig, ModelConfig
from mmpt.config.shared import declared
from mmpt.losses import build_loss
from mmpt.registry import REGISTRIES


@dataclass(frozen=True, kw_only=True)
class Inner(Section):
    size: tuple[int, int] | None = option(None, "height and width")


@dataclass(frozen=True, kw_only=True)
class Outer(Section):
    rate: float = option(1.0, "per second", yaml="r", above=0)
    names: list[str] = option([], "names")
    layers: Mapping[str, int] | None = option(None, "of each")
    inner: Inner | None = option(None, "a section")
    entries: Mapping[str, Mapping] | None = option(None, "sections", holds=Inner)
    compat: bool = option(False, "as released", formerly=("asis", "names: null"))


def problems(tree: dict) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Outer.from_yaml(tree, "s")
    return str(caught.value).splitlines()


def test_a_section_is_read_in_yaml_spelling_with_the_types_of_its_annotations():
    read = Outer.from_yaml({"r": 2, "layers": {"video": 6}, "inner": {"size": [7, 7]}}, "s")
    assert read == Outer(rate=2.0, layers={"video": 6}, inner=Inner(size=(7, 7)))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"qqqq": 1}, "s.qqqq: unknown key. Known: r, names, layers, inner, entries, compat."),
        ({"r": float("nan")}, "s.r: expected a finite number and above 0, got nan."),
        ({"names": ["a", 1]}, 's.names[1]: expected text, got 1. Quote it: "1".'),
        ({"layers": {"video": "six"}}, "s.layers.video: expected a whole number, got 'six'."),
        ({"inner": {"size": [7]}}, "s.inner.size: expected a list of 2, got [7]."),
        ({"inner": 3}, "s.inner: expected `key: value` lines, got 3."),
        ({"asis": True}, "s.asis is now s.compat: true."),
        ({"names": None}, "s.names: null is now s.compat: true."),
        ({"entries": {"a": {"siz": 1}}}, "s.entries.a.siz: unknown key. Did you mean s.entries.a.size?"),
    ],
)
def test_what_is_wrong_has_its_place_at_every_depth(tree, message):
    assert problems(tree) == [message]


def test_null_of_a_loss_is_what_its_class_takes_it_for(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("loss: {loss_cls: MMContraLoss, fusion_weight: null}")
    assert build_loss(load_config(path).loss).config.fusion_weight is None


def test_values_given_in_python_are_checked_too():
    with pytest.raises(ConfigError, match=r"Outer\.r: expected a finite number and above 0, got 0"):
        Outer(rate=0)


def test_a_plain_dataclass_is_a_section_too():
    @dataclass
    class Plain:
        nodes: int = 1

    assert read_section(Plain, {"nodes": 2}, "x").nodes == 2
    with pytest.raises(ConfigError, match="x.node: unknown key. Did you mean x.nodes"):
        read_section(Plain, {"node": 2}, "x")


def test_named_classes_add_their_keys_as_fields():
    config = DatasetConfig(meta_processor="FewShotMetaProcessor")
    assert {"way", "shots"} <= {field.name for field in fields(config)}
    assert "way" not in {field.name for field in fields(DatasetConfig())}


def test_a_key_of_another_class_reads_as_its_default_and_can_be_given():
    assert DatasetConfig().sampler == "generator"
    assert DatasetConfig(way=5).way == 5
    with pytest.raises(AttributeError, match="no class declares a key 'wayy'"):
        _ = DatasetConfig().wayy
    with pytest.raises(TypeError, match="wayy"):
        DatasetConfig(wayy=5)


def test_a_copy_that_names_another_class_has_its_keys():
    copy = replace(DatasetConfig(max_len=9), aligner="GDTAligner", views=["orig"])
    assert (copy.max_len, copy.views, copy.text_reversal) == (9, ["orig"], "token")
    assert "text_reversal" in {field.name for field in fields(copy)}


def test_a_section_with_keys_of_classes_survives_pickling():
    config = Config(dataset=DatasetConfig(way=5), model=ModelConfig(model_cls="MMGram", contra_dim=8))
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize("section", ["", "dataset", "model", "eval"])
def test_a_key_has_one_meaning_whichever_class_declares_it(section):
    shared = {"": Config, "dataset": DatasetConfig, "model": ModelConfig}.get(section)
    for name in declared(section):
        configs = [
            e.config for r in REGISTRIES.values() if r.section == section for e in r.entries().values()
        ]
        found = {
            str(c.__dataclass_fields__[name].default) for c in configs if c and name in c.__dataclass_fields__
        }
        assert len(found) == 1, name
        assert shared is None or name not in shared.__dataclass_fields__, name
