"""The N-modal predictor on the embedded world, with a model as initialised."""

import json

import pytest
import torch
from torch.utils.data import DataLoader

from mmpt.config import load_config
from mmpt.datasets import build_dataset
from mmpt.evaluators import Evaluator, GramPredictor
from mmpt.models import build_model
from mmpt_cli import predict
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def gallery(toy_world, tmp_path_factory):
    """Twelve clips with five captions each."""
    path = tmp_path_factory.mktemp("gallery") / "clips.json"
    path.write_text(json.dumps(json.loads((toy_world / "clips/test_captions.json").read_text())[:12]))
    return path


def settings(world, annotation):
    values = {
        "dataset.bert_name": world / "model",
        "dataset.test_path": annotation,
        "dataset.modalities.video.path": world / "videos",
        "dataset.modalities.audio.path": world / "audio",
        "fairseq.dataset.batch_size": 8,
        "eval.bootstrap": 0,
        "eval.rerank": 3,
    }
    return [f"{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def run(toy_world, gallery):
    """Config, model, loader and arrays of the gallery with five captions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = load_config("projects/toy/gram/test.yaml", settings(toy_world, gallery))
    torch.manual_seed(0)
    model = build_model(config)
    data = build_dataset(config, "test")
    loader = DataLoader(data, batch_size=8, collate_fn=data.collate)
    return config, model, loader, GramPredictor(config)(loader, model)


def test_every_caption_and_every_modality_is_embedded_once(run):
    config, model, loader, arrays = run
    n = len(loader.dataset)
    assert arrays["pooled_text"].shape == (5 * n, 128) and arrays["targets"].tolist() == [
        i for i in range(n) for _ in range(5)
    ]
    assert all(arrays[f"pooled_{name}"].shape == (n, 128) for name in ("video", "audio", "subtitle"))
    assert (
        arrays["modalities"] == ["video", "audio", "subtitle"]
        and arrays["present"][:, 0].all()
        and not arrays["present"].all()
    )
    assert len(arrays["item_ids"]) == n and len(arrays["texts"]) == 5 * n


def test_reranked_probabilities_are_those_of_the_matching_head_on_the_pairs(run):
    config, model, loader, arrays = run
    batch = next(iter(loader))
    with torch.inference_mode():
        streams = {name: value for name, value in batch.items() if name not in ("caps", "cmasks")}
        items = model.encode_items(batch["caps"][:, 0], batch["cmasks"][:, 0], **streams)
        query = next(q for q in range(40) if arrays["match_items"][q].min() < 8)
        item = int(arrays["match_items"][query].min())
        caps, cmasks = (
            batch["caps"].flatten(0, 1)[query : query + 1],
            batch["cmasks"].flatten(0, 1)[query : query + 1],
        )
        expected = model.match(
            caps, cmasks, items["condition"][item : item + 1], items["condition_mask"][item : item + 1]
        )
    found = arrays["match_items_prob"][query][arrays["match_items"][query] == item]
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert arrays["match_texts"].shape == (len(loader.dataset), 3)


def test_all_subsets_and_the_reranked_one_are_scored(run):
    config, model, loader, _ = run
    result, _ = Evaluator(config).evaluate(model, loader)
    measures = {name.rsplit("-", 1)[0] for name in result.values}
    assert {
        "tv-volume",
        "ta-distance-D2T",
        "tvas-cosine",
        "tvas-volume-rerank",
        "tvas-volume-rerank-D2T",
    } <= measures
    assert result.best_metric == "tvas-volume-rerank-R1"


def test_reranking_needs_a_matching_head(run):
    config, model, loader, _ = run
    model_without = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="eval.rerank needs model.matching_head: true"):
        GramPredictor(config)(loader, model_without)


def test_the_command_line_evaluates_chosen_subsets(toy_world, gallery, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = [word for setting in settings(toy_world, gallery) for word in ("--set", setting)]
    options = ["--untrained", "--modalities", "tv,tas", "--output", str(tmp_path), "--device", "cpu"]
    predict.main(["projects/toy/gram/test.yaml", *options, *words])
    report = json.loads((tmp_path / "untrained" / "results.json").read_text())
    assert report["best_metric"] == "tas-volume-rerank-R1" and "tv-volume-R1" in report["values"]
    assert report["facts"]["alignment tv"]["positive_volume"] > 0
    assert "tv-volume" in capsys.readouterr().out


def test_a_model_without_captions_is_tested_by_sound_against_sight(toy_world, gallery, monkeypatch):
    monkeypatch.chdir(ROOT)
    paths = [text for text in settings(toy_world, gallery) if "rerank" not in text]
    config = load_config("projects/toy/gram/test_gdt_av.yaml", paths)
    data = build_dataset(config, "test")
    result, arrays = Evaluator(config).evaluate(
        build_model(config), DataLoader(data, batch_size=8, collate_fn=data.collate)
    )
    assert "pooled_text" not in arrays and result.best_metric == "av-cosine-R1"
    assert {"va-cosine-R1", "av-cosine-D2T-R1"} <= set(result.values)
