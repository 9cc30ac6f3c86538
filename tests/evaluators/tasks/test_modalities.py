"""Nearest neighbours and a linear probe on frozen embeddings of modalities."""

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import ModalityRecognitionMetric

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
