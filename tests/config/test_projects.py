"""The project files that are shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mmpt.config import load_config, recursive_config
from mmpt.config.catalogue import page, projects
from mmpt.config.load import leaves
from tests.conftest import GOLDEN, ROOT

RESOLVED_FILE = GOLDEN / "norton_resolved_configs.json"
RESOLVED = json.loads(RESOLVED_FILE.read_text()) if RESOLVED_FILE.exists() else {}
SWITCH = "compat"  # of the papers' files: what it switches to is what the released code did unasked
COMPARISONS = {
    str(path.relative_to(ROOT)) for path in (ROOT / "projects/toy").glob("compare*.yaml")
}  # of compare_losses: no projects
SHIPPED = sorted({str(path.relative_to(ROOT)) for path in (ROOT / "projects").rglob("*.yaml")} - COMPARISONS)


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", sorted(RESOLVED))
def test_golden_norton_resolved_configs_are_what_the_files_resolve_to(path):
    assert without_switches(recursive_config(path)) == RESOLVED[path]


def without_switches(tree):
    """A resolved file without the key that the releases did not know; every other key and value stays."""
    if not isinstance(tree, dict):
        return tree
    kept = {key: without_switches(value) for key, value in tree.items() if key != SWITCH}
    return {key: value for key, value in kept.items() if value != {} or tree[key] == {}}


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ("retri/norton/how2_pretrain.yaml", "loss.compat", True),
        ("retri/norton/test_vtt_zs.yaml", "eval.compat", True),
        ("retri/norton/test_youcook_fullvideo_bg_zs.yaml", "eval.compat", True),
        ("retri/tempclr/test_youcook_fullvideo_zs.yaml", "eval.compat", True),
        ("retri/milnce/how2.yaml", "loss.compat", True),
        ("retri/gdt/how2.yaml", "loss.compat", True),
        ("retri/gdt/raw_k400_av.yaml", "loss.compat", True),
        ("retri/stica/how2_maps.yaml", "model.crops.compat", True),
        ("retri/tempclr/crosstask.yaml", "loss.compat", True),
        ("retri/gram/vtt.yaml", "loss.gather", "detached"),
        ("mtm/vlm/how2.yaml", "loss.compat", True),
    ],
)
def test_a_papers_file_trains_and_evaluates_what_its_release_did(path, key, value):
    assert dict(leaves(recursive_config(f"projects/{path}")))[key] == value


def test_golden_norton_resolved_configs_load_through_the_schema_with_every_value_kept(tmp_path):
    for name, tree in RESOLVED.items():
        path = tmp_path / "x.yaml"
        path.write_text(json.dumps(tree))
        config = load_config(path)
        for section, values in tree.items():
            loaded = getattr(config, section)
            if section in ("dataset", "model", "eval"):
                assert {key: getattr(loaded, key) for key in values} == values, name
            else:
                assert loaded == values, name


@pytest.mark.parametrize("path", SHIPPED)
def test_every_shipped_file_loads_and_starts_by_saying_what_it_is_for(path):
    load_config(path)
    assert (ROOT / path).read_text().startswith("# ")


def test_the_index_of_project_files_is_what_they_say():
    written = (ROOT / "projects/README.md").read_text()
    assert written == page(), "run: python scripts/docs/projects.py"


@pytest.mark.parametrize("path", SHIPPED)
def test_includes_are_at_most_three_deep(path):
    depth = 0
    while included := (yaml.safe_load((ROOT / path).read_text()) or {}).get("includes"):
        depth, path = depth + 1, included
        if not (ROOT / path).is_file():  # derived: its template and the pipeline
            break
    assert depth <= 3


@pytest.mark.parametrize("path", [path for path in projects() if (ROOT / path).is_file()])
def test_names_of_project_files_say_whether_they_evaluate(path):
    tree = recursive_config(path)
    if "base_dir" not in tree and Path(path).name not in ("default.yaml", "ft.yaml", "test.yaml"):
        evaluates = tree.get("dataset", {}).get("split") == "test"
        assert evaluates == Path(path).name.startswith("test_")
        assert not path.endswith("_zs.yaml") or evaluates
