"""Names in YAML files find classes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmpt.config.fields import keys_of
from mmpt.registry import REGISTRIES, Entry, Registry, UnknownName, add_plugins, load_plugins
from tests.conftest import ROOT


@pytest.fixture
def registry():
    registry = Registry("loss", "json")

    @registry.register()
    class MMContraLoss:
        pass

    return registry


def test_a_class_is_found_under_its_own_name(registry):
    assert registry.get("MMContraLoss").__name__ == "MMContraLoss"


def test_a_class_can_be_registered_under_another_name(registry):
    cls = registry.register("Other")(type("Hidden", (), {}))
    assert registry.get("Other") is cls
    assert registry.names() == ["MMContraLoss", "Other"]


def test_the_same_name_for_two_classes_is_refused(registry):
    with pytest.raises(ValueError, match="loss 'MMContraLoss' is already registered by .*needs another name"):
        registry.register("MMContraLoss")(type("Another", (), {}))


def test_registering_a_class_again_changes_nothing(registry):
    cls = registry.get("MMContraLoss")
    assert registry.register()(cls) is cls


def test_an_unknown_name_lists_near_ones(registry):
    with pytest.raises(UnknownName) as caught:
        registry.get("MMContrastLoss")
    assert str(caught.value) == "unknown loss 'MMContrastLoss'. Did you mean MMContraLoss?"


def test_capitals_do_not_hide_the_nearest_name(registry):
    for name in ("SigLIPLoss", "SymileLoss"):
        registry.register(name)(type(name, (), {}))
    with pytest.raises(UnknownName, match="Did you mean SigLIPLoss"):
        registry.get("SiglipLoss")


def test_an_unknown_name_says_where_it_stands(registry):
    with pytest.raises(UnknownName, match="^mine.yaml: loss.loss_cls: unknown loss 'zzz'"):
        registry.get("zzz", "mine.yaml: loss.loss_cls")


def test_an_unknown_name_with_nothing_near_lists_all(registry):
    with pytest.raises(UnknownName, match="Known: MMContraLoss"):
        registry.get("zzz")


def test_the_first_look_up_imports_the_package(tmp_path, monkeypatch):
    (tmp_path / "late_package.py").write_text("IMPORTED = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    Registry("thing", "late_package").names()
    assert sys.modules.pop("late_package").IMPORTED


def test_plugins_are_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / "exp_plugin.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins(["exp_plugin"])
    assert sys.modules.pop("exp_plugin").LOADED


def keys(config: type | None) -> list[tuple]:
    """All that a dataclass says of its keys; of sections that it holds likewise."""

    def plain(metadata: dict) -> dict:
        return {**metadata, "holds": metadata.get("holds") and keys(metadata["holds"])}

    found = keys_of(config) if config else {}
    return [
        (name, str(key.hint).replace("mmpt.", ""), str(key.field.default), str(plain(key.field.metadata)))
        for name, key in found.items()
    ]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_the_index_says_what_the_classes_say(kind):
    registry = REGISTRIES[kind]
    entries = registry.entries()
    assert sorted(entries) == registry.names()
    for name, entry in entries.items():
        cls = registry.get(name)
        assert entry.class_name in ("", cls.__name__)
        if entry.class_name:
            assert entry.summary == Entry(name, live=cls).summary
            assert keys(entry.config) == keys(getattr(cls, "Config", None)), name
            assert kind != "LOSSES" or entry.reads == Entry(name, live=cls).reads, name


def test_the_index_is_made_without_importing_anything():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'transformers', 'fairseq')));"
        "from mmpt.registry import REGISTRIES;"
        "assert all(e.summary or not e.class_name for r in REGISTRIES.values() for e in r.entries().values())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_plugin_file_is_imported_once_under_its_own_name(tmp_path):
    path = tmp_path / "plugin_of_a_test.py"
    path.write_text("LOADED = []\n")
    load_plugins([str(path)])
    load_plugins([str(path)])
    sys.path.remove(str(tmp_path))
    assert sys.modules.pop("plugin_of_a_test").LOADED == []


def test_a_plugin_that_is_not_there_is_named():
    with pytest.raises(ImportError, match=r"plugins: no/where\.py: no such file"):
        add_plugins(["no/where.py"])
    with pytest.raises(ImportError, match=r"plugins: no\.where: no such module"):
        add_plugins(["no.where"])
