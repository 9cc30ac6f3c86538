"""`mmpt search` with an index that stays on disk."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from mmpt.config import load_config
from mmpt.inference.search import search
from mmpt.models import MMPTModel, build_model
from mmpt.processors import load_tokenizer
from mmpt.registry import ALIGNERS
from mmpt_cli.search import main
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def toy(toy_world, tmp_path_factory):
    """A model folder with random weights, and a folder of features."""
    config = load_config(ROOT / "projects/toy/videoclip.yaml", [f"dataset.bert_name={toy_world}/model"])
    torch.manual_seed(0)
    tokenizer, aligner = load_tokenizer(config.dataset.bert_name), ALIGNERS.get("Aligner")(config.dataset)
    root = tmp_path_factory.mktemp("store")
    MMPTModel(build_model(config), tokenizer, aligner).save_pretrained(root / "model")
    (root / "features").mkdir()
    for path in sorted((toy_world / "videos").glob("*.npy"))[:6]:
        shutil.copy(path, root / "features")
    return root


def test_an_index_finds_what_comparing_everything_finds_and_follows_its_folder(toy, tmp_path, capsys):
    features = shutil.copytree(toy / "features", tmp_path / "features")
    words = [str(features), "--model", str(toy / "model"), "--window", "8"]
    main(["build", *words, "--index", str(tmp_path / "index")])
    assert "6 videos; 6 came, 0 went" in capsys.readouterr().out
    sentence = "chop the onion"
    found, _ = search(tmp_path / "index", [sentence], k=5)
    model, _, _ = MMPTModel.from_pretrained(toy / "model", video_encoder=None)
    in_memory = model.search(model.index(features, window_s=8), sentence, k=5)
    assert [m.score for m in found[sentence]] == pytest.approx([m.score for m in in_memory], rel=5e-3)
    gone, changed, *_, last = sorted(features.glob("*.npy"))
    gone.unlink()
    np.save(features / "new.npy", np.load(last)[::-1])
    np.save(changed, np.load(last)[:9])
    main(["build", *words, "--index", str(tmp_path / "index")])
    assert "6 videos; 2 came, 1 went" in capsys.readouterr().out
    main(["query", sentence, "--index", str(tmp_path / "index"), "-k", "99"])
    shown = capsys.readouterr().out
    assert gone.stem not in shown and "new" in shown and shown.count(changed.stem) == 2
    with pytest.raises(ValueError, match="an index of another window"):
        main(["build", *words[:-1], "4", "--index", str(tmp_path / "index")])


def test_an_index_on_disk_is_found_by_its_model_from_another_folder(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(toy)
    main(["build", "features", "--model", "model", "--index", str(tmp_path / "index")])
    monkeypatch.chdir(tmp_path)
    assert search(tmp_path / "index", ["chop the onion"], k=1)[0]["chop the onion"]
