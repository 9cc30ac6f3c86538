"""Action recognition, of one vector per video and of every modality."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import (
    ActionRecognitionMetric,
    ModalityRecognitionMetric,
    RecognitionNNPredictor,
    RecognitionProbePredictor,
    RecognitionZSPredictor,
)
from mmpt_cli import predict
from tests.conftest import ROOT, golden_cases, load_golden


def test_each_split_scores_its_test_videos_alone():
    scores = np.eye(4)[[0, 1, 2, 0]]
    labels = np.array([0, 1, 2, 3])
    splits = np.array([[2, 1, 1], [2, 1, 1], [1, 2, 1], [1, 2, 2]])
    result = ActionRecognitionMetric(EvalConfig(bootstrap=10)).evaluate(scores, labels, splits)
    assert [result.values[f"split{i}-acc"] for i in (1, 2, 3)] == [1, 0.5, 0]
    assert result.values["mean-acc"] == 0.5 and result.best == 1 and result.baselines["chance"]["R1"] == 0.25


def test_only_test_videos_are_queries_named_with_their_split():
    splits = np.array([[2, 1, 1], [2, 1, 1], [1, 2, 1], [1, 2, 2]])
    result = ActionRecognitionMetric(EvalConfig(bootstrap=0)).evaluate(
        np.eye(4)[[0, 1, 2, 0]], range(4), splits, ids=list("abcd")
    )
    assert result.per_query["ids"].tolist() == ["split1 a", "split1 b", "split2 c", "split2 d", "split3 d"]
    assert (result.per_query["ranks"] > 1).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("path", golden_cases("gdt_data*.npz"))
def test_golden_gdt_data_accuracy_of_videos_by_the_mean_logits_of_their_clips(path):
    golden = load_golden(path)
    ids = golden["clip_video_id"]
    labels = golden["video_labels"][ids]
    result = ActionRecognitionMetric(EvalConfig(bootstrap=0)).evaluate(
        golden["clip_logits"], labels, np.full((len(ids), 1), 2), ids=ids
    )
    found = [100 * result.values[f"split1-{name}"] for name in ("acc", "R1", "R5")]
    assert found == pytest.approx([float(golden[f"video_acc{k}"]) for k in (1, 1, 5)])
    assert result.facts["videos"] == len(golden["video_labels"])


def test_clips_of_one_video_with_two_labels_are_an_error():
    with pytest.raises(ValueError, match="clips of video a differ"):
        ActionRecognitionMetric(EvalConfig()).evaluate(np.eye(2), [0, 1], np.full((2, 1), 2), ids=["a", "a"])


def test_a_split_without_test_videos_is_an_error():
    with pytest.raises(ValueError, match="split 1 has no test video"):
        ActionRecognitionMetric(EvalConfig()).evaluate(np.eye(2), [0, 1], np.ones((2, 3)))


PER_CLASS, CLASSES, WIDTH = 6, 4, 8


class Given(torch.nn.Module):
    """Gives the features as vectors."""

    def forward_video(self, vfeats, vmasks, caps, cmasks):
        return SimpleNamespace(pooled=vfeats[:, 0])

    def forward_text(self, caps, cmasks):
        return SimpleNamespace(pooled=torch.eye(WIDTH)[caps[:, 0]])


def loader(noise=0.3):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat(PER_CLASS)
    vectors = torch.eye(WIDTH)[labels] + noise * torch.randn(len(labels), WIDTH, generator=generator)
    splits = torch.tensor([[1, 2], [2, 1], [1, 0]]).repeat_interleave(CLASSES, 0).repeat(2, 1)
    batch = {
        "vfeats": vectors[:, None],
        "vmasks": None,
        "caps": None,
        "cmasks": None,
        "label": labels,
        "splits": splits,
    }
    names = [f"video{i}" for i in range(len(labels))]
    meta = SimpleNamespace(class_names=list("abcd"))
    text = SimpleNamespace(tokenize=lambda name: ["abcd".index(name)])
    aligner = SimpleNamespace(pack=lambda ids: (torch.tensor(ids), torch.ones(len(ids), 1, dtype=torch.bool)))
    dataset = SimpleNamespace(meta_processor=meta, text_processor=text, aligner=aligner)
    return type("Loader", (list,), {"dataset": dataset})([batch | {"video_id": names}])


def result(predictor, noise=0.3):
    arrays = predictor(SimpleNamespace())(loader(noise), Given(), "cpu")
    return ActionRecognitionMetric(EvalConfig(bootstrap=0)).evaluate(**arrays), arrays


@pytest.mark.parametrize(
    "predictor", [RecognitionZSPredictor, RecognitionProbePredictor, RecognitionNNPredictor]
)
def test_separated_classes_are_recognised_in_every_split(predictor):
    values = result(predictor, noise=0.05)[0].values
    assert values["split1-acc"] == values["split2-acc"] == values["mean-R1"] == 1


def test_nearest_neighbours_are_found_among_the_training_videos_of_the_split_alone():
    _, arrays = result(RecognitionNNPredictor, noise=0.8)
    vectors = torch.nn.functional.normalize(loader(0.8)[0]["vfeats"][:, 0], dim=-1).numpy()
    for split in range(2):
        train = np.flatnonzero(arrays["splits"][:, split] == 1)
        for video in range(len(vectors)):
            closeness = vectors[train] @ vectors[video]
            order = train[np.argsort(-closeness)]
            assert arrays["scores"][split, video].argmax() == arrays["labels"][order[0]]
            first_right = np.flatnonzero(arrays["labels"][order] == arrays["labels"][video])[0]
            assert arrays["neighbour_ranks"][split, video] == first_right + 1


def test_recall_of_nearest_neighbours_counts_videos_up_to_fifty():
    values = result(RecognitionNNPredictor, noise=0.8)[0].values
    assert values["split1-R1"] == values["split1-acc"] and values["split1-R50"] == 1


def test_a_probe_is_the_same_in_every_run():
    first, second = (result(RecognitionProbePredictor)[1]["scores"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_split_without_training_videos_is_an_error():
    batches = loader()
    batches[0]["splits"] = torch.full_like(batches[0]["splits"], 2)
    with pytest.raises(ValueError, match="split 1 has no training video"):
        RecognitionProbePredictor(SimpleNamespace())(batches, Given(), "cpu")


CLASSES, PER_CLASS = 3, 6


def arrays(**changes):
    """Video tells all classes, sound tells nothing; the tags make two splits."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    video = torch.eye(8)[labels] + 0.05 * torch.randn(len(labels), 8, generator=generator)
    splits = np.tile([[1, 2], [1, 2], [2, 1], [1, 1], [2, 1], [1, 0]], (CLASSES, 1))
    given = {
        "pooled_video": video,
        "pooled_audio": torch.randn(len(labels), 8, generator=generator),
        "labels": labels,
        "splits": splits,
    }
    return (
        given
        | {"modalities": ["video", "audio"], "class_names": list("abc"), "ids": list(map(str, labels))}
        | changes
    )


def evaluate(modalities=None, **changes):
    return ModalityRecognitionMetric(EvalConfig(bootstrap=0, modalities=modalities)).evaluate(
        **arrays(**changes)
    )


def test_a_modality_that_tells_the_class_is_right_and_noise_is_not():
    values = evaluate().values
    assert (
        values["v-nn-R1"] == values["v-probe-acc"] == 1
        and values["a-nn-R1"] < 0.7
        and values["a-nn-R50"] == 1
    )


def test_queries_of_each_split_give_the_numbers_of_the_report():
    present = np.ones((18, 2), dtype=bool)
    present[:3, 1] = False  # so that the splits of sound are of unequal size
    result = evaluate(["v", "a"], present=present)
    for name in ("v", "a"):
        asked = result.facts["queries of each split"][name]
        assert len(asked) == 2 and (len(set(asked)) > 1) == (name == "a")
        of_splits = np.split(result.per_query[f"{name}-probe-acc"], np.cumsum(asked)[:-1])
        expected = np.mean([hits.mean() for hits in of_splits])
        assert result.values[f"{name}-probe-acc"] == pytest.approx(expected)


def test_without_a_choice_each_modality_is_judged_and_all_side_by_side():
    result = evaluate()
    assert {name.partition("-")[0] for name in result.values} == {
        "v",
        "a",
        "va",
    } and result.best_metric == "va-nn-R1"
    assert result.baselines["chance"]["va-probe-acc"] == pytest.approx(1 / CLASSES)


def test_nearest_neighbours_are_training_videos_of_the_split():
    given = arrays()
    result = evaluate(["a"])
    vectors = torch.nn.functional.normalize(given["pooled_audio"], dim=1).numpy()
    expected = []
    for tags in given["splits"].T:
        train = np.flatnonzero(tags == 1)
        for video in np.flatnonzero(tags == 2):
            order = train[np.argsort(-vectors[train] @ vectors[video])]
            expected.append(1 + np.flatnonzero(given["labels"][order] == given["labels"][video])[0])
    assert result.per_query["ranks_a-nn"].tolist() == expected


def test_videos_that_lack_a_modality_are_left_out_of_its_subsets_alone():
    present = np.ones((CLASSES * PER_CLASS, 2), dtype=bool)
    present[3, 1] = False
    broken = arrays()["pooled_audio"].clone()
    broken[3] = float("nan")
    result = evaluate(present=present, pooled_audio=broken)
    assert result.facts["videos with"] == {"v": 18, "a": 17, "va": 17} and result.values["v-nn-R1"] == 1


@pytest.mark.parametrize(
    "modalities, changes, message",
    [
        (["vx"], {}, r"'vx' is no subset; expected first letters among v \(video\), a \(audio\)"),
        (["v"], {"splits": np.full((18, 1), 2)}, "split 1 of v has no training video"),
        (["v"], {"splits": np.ones((18, 1), dtype=int)}, "split 1 of v has no test video"),
    ],
)
def test_a_wrong_subset_or_split_is_refused(modalities, changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate(modalities, **changes)


def test_recognition_by_sight_and_sound_is_reported(toy_world, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = toy_world / "actions"
    values = {
        "dataset.bert_name": toy_world / "model",
        "dataset.annotation_path": folder / "ucfTrainTestlist",
        "dataset.modalities.video.path": folder / "feat",
        "dataset.modalities.audio.path": folder / "audio",
        "eval.bootstrap": 20,
    }
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    project = "projects/toy/gram/test_gdt_av_recognition.yaml"
    predict.main([project, "--untrained", "--output", str(tmp_path), "--modalities", "v,va", *words])
    found = json.loads((tmp_path / "untrained/results.json").read_text())
    assert {"v-nn-R1", "va-nn-R50", "va-probe-acc"} <= set(found["values"]) and "a-nn-R1" not in found[
        "values"
    ]
    assert found["values"]["v-probe-acc"] > 2 / 18  # random towers keep what features know
    assert found["baselines"]["chance"]["v-nn-R1"] == pytest.approx(1 / 18)
    assert found["facts"]["videos with"]["v"] == 108 > found["facts"]["videos with"]["va"]
    assert "| va-probe |" in (tmp_path / "untrained/results.md").read_text()
