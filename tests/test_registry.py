"""Names in YAML files find classes."""

from __future__ import annotations

import sys

import pytest

from mmpt.registry import Registry, UnknownName, load_plugins


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
