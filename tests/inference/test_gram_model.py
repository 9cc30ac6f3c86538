"""MMGramModel: own files through models of N modalities, one modality at a time."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from mmpt.config import load_config
from mmpt.models import MMGramModel, build_model
from mmpt.ops.gram import gram_volume
from mmpt.synthetic.clips import write_clips
from tests.conftest import ROOT

RAW = "projects/toy/gram/raw.yaml"
STORED = ["dataset.modalities={video: {path: v, raw: null, width: 6}, audio: null}", "model.encoders=null"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder like the repository with clips, and an untrained model in the run folder."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "projects").symlink_to(ROOT / "projects")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_clips(root / "data/toy_clips", videos=8, seconds=2)
        torch.manual_seed(0)
        for name, overrides in (("checkpoint_best", []), ("stored", STORED)):
            model = build_model(load_config(RAW, overrides))
            (root / "runs/toy/gram_raw").mkdir(parents=True, exist_ok=True)
            state = {"model": {f"mmmodel.{key}": value for key, value in model.state_dict().items()}}
            torch.save(state, root / f"runs/toy/gram_raw/{name}.pt")
    return root


@pytest.fixture
def in_checkout(checkout, monkeypatch):
    monkeypatch.chdir(checkout)


def test_the_block_of_the_page_runs(in_checkout):
    page = (ROOT / "docs/modalities.md").read_text()
    (block,) = re.findall(r"```python\n(from mmpt.models import MMGramModel.*?)```", page, flags=re.DOTALL)
    names: dict = {}
    exec(compile(block, "docs/modalities.md", "exec"), names)
    rows = [names[name] for name in ("text", "video", "audio", "said")]
    assert all(row.shape == rows[0].shape and torch.allclose(row.norm(dim=1), torch.ones(2)) for row in rows)
    torch.testing.assert_close(names["volumes"], gram_volume(rows[0], rows[1:]))
    assert names["volumes"].shape == names["cosines"].shape == (2, 2)


def test_a_modality_alone_is_what_all_together_give(in_checkout):
    model = MMGramModel.from_pretrained(RAW)
    files = [f"data/toy_clips/val/val00{n}.mkv" for n in range(2)]
    heads = model._heads(2)
    batch: dict = {}
    for modality, items in zip(
        model.modalities.values(), (files, files, ["a tone", "it rises"]), strict=True
    ):
        ((_, part),) = model._batches(modality, items)
        batch |= part
    together = model.fusion.encode_items(*heads, **batch)
    for name, items in zip(model.modalities, (files, files, ["a tone", "it rises"]), strict=True):
        torch.testing.assert_close(model.encode(name, items), together[f"pooled_{name}"])


def test_stored_features_take_the_place_of_files_and_long_ones_are_thinned(in_checkout, tmp_path):
    model = MMGramModel.from_pretrained(RAW, "stored.pt", STORED)
    features = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    np.save(tmp_path / "v.npy", features)
    rows = model.encode_video([features, features[[1, 3, 5, 7]]])
    torch.testing.assert_close(model.encode_video(tmp_path / "v.npy"), rows[:1])
    torch.testing.assert_close(rows[0], rows[1])  # the middles of four chunks


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.encode("depth", ["x"]), "no modality 'depth'; the model has video"),
        (lambda model: model.encode_video("nowhere.mkv"), "nowhere.mkv: no such file"),
        (lambda model: model.encode_video(np.zeros((2, 6))), "expected a file, got an array"),
        (lambda model: model.encode_video([]), "no items"),
        (lambda model: model.encode_text([]), "no sentences"),
        (lambda model: model.encode_audio("data/toy_clips/val.json"), "val.json"),
    ],
)
def test_what_cannot_be_encoded_is_named(in_checkout, call, message):
    with pytest.raises(ValueError, match=message):
        call(MMGramModel.from_pretrained(RAW))


def test_a_project_of_two_sides_is_sent_to_its_own_class(in_checkout):
    with pytest.raises(ValueError, match="loaded by MMPTModel"):
        MMGramModel.from_pretrained("projects/retri/norton/how2_pretrain.yaml")
