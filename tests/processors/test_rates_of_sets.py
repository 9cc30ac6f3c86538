"""Features of two rows a second through the data of every end task: the items are those of one a second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.config import load_config
from mmpt.datasets import build_dataset
from tests.conftest import ROOT

OWN_RATE = ("modalities", "raw", "fewshot")  # N modalities, files, and frames spread over whole videos


def files_with_rows():
    """Toy tests on single feature files."""
    found = []
    for path in sorted((ROOT / "projects/toy").glob("test_*.yaml")):
        dataset = load_config(path).dataset
        reads_rows = dataset.vfeat_dir is not None and not any(word in path.name for word in OWN_RATE)
        if reads_rows:
            found.append(pytest.param(path, id=path.stem))
    return found


def doubled(folder: Path, out: Path) -> Path:
    """The features with every row twice, and a passport that says so."""
    for path in folder.glob("*.npy"):
        out.mkdir(parents=True, exist_ok=True)
        np.save(out / path.name, np.repeat(np.load(path), 2, axis=0))
    (out / "passport.json").write_text(json.dumps({"seconds_per_feature": 0.5}))
    return out


@pytest.mark.parametrize("path", files_with_rows())
def test_items_are_those_of_one_row_a_second(toy_world, path, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/toy").symlink_to(toy_world)
    monkeypatch.chdir(tmp_path)
    plain = load_config(path)
    folder = doubled(Path(plain.dataset.vfeat_dir), tmp_path / "twice")
    expected = build_dataset(plain, "test")[0]
    found = build_dataset(load_config(path, [f"dataset.vfeat_dir={folder}"]), "test")[0]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3)
        elif isinstance(value, torch.Tensor):
            assert torch.equal(found[name], value), name
