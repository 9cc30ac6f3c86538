"""Calibrated alignments: coverage, false discovery, and what is kept with a model."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.calibration import aligned, video_of
from mmpt.calibration import Calibration, calibrate
from mmpt.calibration.conformal import adjusted, group_p_values, group_quantile, risk_controlled_rate
from mmpt.calibration.ordered import ENTER, LEAVE_OUT, THRESHOLD, ordered_posterior
from mmpt.calibration.rehearsal import rehearse
from mmpt.config import load_config
from mmpt.inference.calibrate import read_truth
from mmpt.models import MMPTModel, build_model
from mmpt.processors import load_tokenizer
from mmpt.registry import ALIGNERS
from mmpt_cli.calibrate import main
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def videos():
    """Of a world in which a third of the sentences are not shown."""
    rng = np.random.default_rng(3)
    found = []
    for number in range(90):
        found.append(aligned(str(number), *video_of("crosstask", rng), ["dtw"])["dtw"])
    return found


def test_spans_cover_what_is_promised_and_false_discoveries_stay_below(videos):
    tested = np.array(rehearse(videos, 0.9, 0.1, splits=40))
    coverage, width, fixed_coverage, fixed_width, wrong, power = tested.mean(0)
    # 22 held-out videos promise between 0.9 and 0.9 + 1 / 23
    assert 0.88 < coverage < 0.955 and 0.88 < fixed_coverage < 0.955
    assert width < 0.8 * fixed_width
    assert wrong < 0.115 and power > 0.3


def test_every_group_weighs_the_same_and_an_unseen_one_may_be_anything():
    scores, groups = np.array([1.0, 2.0, 3.0, 9.0]), np.array([0, 0, 0, 1])
    assert group_quantile(scores, groups, 0.3) == 3.0 and group_quantile(scores, groups, 0.5) == 9.0
    assert group_quantile(scores, groups, 0.7) == np.inf
    values, own = np.array([2.0, 10.0, 0.0]), np.array([0, 1, 7])
    assert np.allclose(group_p_values(scores, groups, values), [(2 / 3 + 1 + 1) / 3, 1 / 3, 1])
    assert np.allclose(group_p_values(scores, groups, values, own), [(1 + 1) / 2, (0 + 1) / 2, 1])


def test_adjusted_rates_are_those_of_benjamini_and_hochberg():
    rng = np.random.default_rng(0)
    p, groups = rng.random(12), np.repeat([0, 1, 2], 4)
    rates = adjusted(p, groups)
    for rate in (0.1, 0.5, 0.9):
        for group in range(3):
            mine = np.sort(p[groups == group])
            passed = [k for k in range(1, 5) if mine[k - 1] <= rate * k / 4]
            called = np.sort(p[groups == group][rates[groups == group] <= rate])
            assert called.tolist() == mine[: max(passed, default=0)].tolist()


def test_the_rate_is_the_largest_that_keeps_to_the_bound():
    rates = np.array([0.1, 0.3, 0.2, 0.4] * 20)
    null = np.array([False, True, False, True] * 20)
    groups = np.repeat(np.arange(40), 2)
    # from 0.3 on every second group has a false one among two: half of the groups, half of their discoveries
    assert 0.2 < risk_controlled_rate(rates, null, groups, 0.1) < 0.3
    assert risk_controlled_rate(rates, null, groups, 0.9) == 1.0
    assert risk_controlled_rate(rates, ~null, groups, 0.01) == 0.0


def test_the_posterior_is_the_sum_over_all_segmentations():
    similarity = np.random.default_rng(1).standard_normal((2, 4))
    standard = (similarity - similarity.mean(1, keepdims=True)) / (similarity.std() + 1e-9)
    weight = np.exp(1.5 * (standard - THRESHOLD))
    total, shown, begins = 0.0, np.zeros((2, 4)), np.zeros((2, 4))
    for states in itertools.product((-1, 0, 1), repeat=4):
        told, last, product, first = 0, -1, 1.0, []
        for w, state in enumerate(states):
            if state < 0:
                last = -1
                continue
            product *= weight[state, w]
            if state != last:
                if state < told:
                    product = 0.0
                    break
                product *= ENTER * LEAVE_OUT ** (state - told)
                told, last = state + 1, state
                first.append((state, w))
        total += product
        for w, state in enumerate(states):
            if state >= 0:
                shown[state, w] += product
        for cell in first:
            begins[cell] += product
    found = ordered_posterior(similarity)
    np.testing.assert_allclose(found.shown, shown / total, atol=1e-12)
    np.testing.assert_allclose(found.begins, begins / total, atol=1e-12)
    np.testing.assert_allclose(found.ends.sum(1), found.begins.sum(1), atol=1e-12)


def test_a_calibration_is_read_back_as_it_was_and_damage_is_named(videos, tmp_path):
    made = calibrate(videos[:40], settings={"aligner": "dtw"}, about={"data": "x"})
    made.save(tmp_path / "c.json")
    again = Calibration.load(tmp_path / "c.json")
    for one, other in zip(made(videos[50].known, 99.0), again(videos[50].known, 99.0), strict=True):
        assert one.tolist() == other.tolist()
    (tmp_path / "c.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match="c.json: not a calibration"):
        Calibration.load(tmp_path / "c.json")


def test_too_few_videos_for_the_coverage_give_the_whole_video(videos):
    spans = calibrate(videos[:8], coverage=0.9)(videos[50].known, 77.0)
    assert set(spans.low) == {0.0} and set(spans.high) == {77.0}
    with pytest.raises(ValueError, match="at least 4"):
        calibrate(videos[:3])


@pytest.fixture(scope="module")
def toy(toy_world, tmp_path_factory):
    """A model folder with random weights, and features of the test videos."""
    config = load_config(ROOT / "projects/toy/videoclip.yaml", [f"dataset.bert_name={toy_world}/model"])
    torch.manual_seed(0)
    tokenizer = load_tokenizer(config.dataset.bert_name)
    folder = tmp_path_factory.mktemp("calibrated") / "toy"
    MMPTModel(build_model(config), tokenizer, ALIGNERS.get("Aligner")(config.dataset)).save_pretrained(folder)
    return folder, toy_world / "videos", toy_world / "truth.json"


def test_a_model_is_calibrated_and_keeps_it(toy, tmp_path, capsys):
    source, features, truth = toy
    folder = shutil.copytree(source, tmp_path / "toy")
    main([str(features), str(truth), "--model", str(folder), "--coverage", "0.6", "--splits", "3", "--json"])
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["videos"] >= 10 and numbers["promised coverage"] == 0.6
    assert "calibration" in (folder / "README.md").read_text().lower()
    model = MMPTModel.from_pretrained(folder, video_encoder=None)[0]
    video = sorted(features.glob("*.npy"))[0]
    found = model.align(video, ["pour the milk", "cut the onion"])
    assert (found.calibrated.low < found.calibrated.high).all()
    assert model.align(video, ["pour the milk"], window_s=8).calibrated is None
    model.save_pretrained(tmp_path / "again")
    again = MMPTModel.from_pretrained(tmp_path / "again", video_encoder=None)[0]
    assert again.calibration == model.calibration
    weights = {
        k: v + 1 if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"model_cls": "MMFusionSeparate"})
    with pytest.raises(ValueError, match="made with other weights"):
        MMPTModel.from_pretrained(folder, video_encoder=None)
    main([str(features), str(truth), "--model", str(folder), "--coverage", "0.6", "--splits", "2", "--quiet"])
    assert MMPTModel.from_pretrained(folder, video_encoder=None)[0].calibration is not None


def test_truths_of_all_forms_are_read(tmp_path):
    forms = {
        "htm.json": {"v": [[1, 2.0, 4.0, "a"], [0, 5.0, 6.0, "b"]]},
        "anet.json": {"v": {"duration": 9.0, "timestamps": [[5, 6], [2, 4]], "sentences": ["b", "a"]}},
        "youcook.json": {
            "database": {"v": {"subset": "validation", "annotations": [{"segment": [2, 4], "sentence": "a",
                                               "id": 0}, {"segment": [5, 6], "sentence": "b", "id": 1}]}}
        },
        "world.json": {"v": {"captions": [{"text": "a", "step": 0}, {"text": "b", "step": -1}],
                             "steps": [{"start_s": 2, "end_s": 4}]}},
    }  # fmt: skip
    for name, tree in forms.items():
        (tmp_path / name).write_text(json.dumps(tree))
        sentences, spans = read_truth(tmp_path / name)["v"]
        assert sentences == ["a", "b"] and spans[0].tolist() == [2.0, 4.0], name
        assert np.isnan(spans[1]).all() == (name in ("htm.json", "world.json")), name
    (tmp_path / "own.csv").write_text("video_id,start,end,text\nv,2,4,a\nv,5,6,b\n")
    assert read_truth(tmp_path / "own.csv")["v"][1].tolist() == [[2.0, 4.0], [5.0, 6.0]]
