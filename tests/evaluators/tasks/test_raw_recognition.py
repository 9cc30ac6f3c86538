"""Recognition on frames: what is made of the clips of a video."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.config.schema import Config, DatasetConfig, EvalConfig
from mmpt.evaluators.tasks.raw_recognition import (
    ClipFewShotMetric,
    ClipFewShotPredictor,
    ClipNNPredictor,
    ClipProbePredictor,
    ClipRecognitionPredictor,
)
from mmpt.evaluators.tasks.recognition import ActionRecognitionMetric
from tests.conftest import golden_cases, load_golden

N_VIDEOS, N_CLASSES, N_CLIPS = 24, 3, 2


class Pixels(nn.Module):
    """The first numbers of a clip, as vector and as logits."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def video_vectors(self, video):
        return video.flatten(1)[:, :N_CLASSES]

    def forward(self, video):
        return {"logits": self.video_vectors(video)}


class Loader(list):
    """Batches of clips whose first numbers tell the class, up to noise."""

    def __init__(self, folds=(1, 2), noise=0.2):
        rng = torch.Generator().manual_seed(0)
        names = ["a", "b", "c"]
        self.dataset = SimpleNamespace(meta_processor=SimpleNamespace(class_names=names, folds=list(folds)))
        for clip in range(N_CLIPS):
            labels = torch.arange(N_VIDEOS) % N_CLASSES
            pixels = noise * torch.randn(N_VIDEOS, 3, 3, 1, 1, 1, generator=rng)  # 3 crops
            pixels[..., 0, 0, 0] += nn.functional.one_hot(labels, N_CLASSES)[:, None]
            tags = torch.stack(
                [1 + (torch.arange(N_VIDEOS) // 3 % 4 == k).long() for k in range(len(folds))], 1
            )
            self.append(
                {
                    "video": pixels,
                    "targets": labels,
                    "splits": tags,
                    "video_id": [f"v{n}" for n in range(N_VIDEOS)],
                }
            )


def test_scores_of_a_video_are_means_of_the_logits_of_its_clips_and_crops():
    loader = Loader(folds=(2,))
    arrays = ClipRecognitionPredictor(Config())(loader, Pixels())
    result = ActionRecognitionMetric(EvalConfig(bootstrap=0)).evaluate(**arrays)
    mean = sum(batch["video"].mean(1).flatten(1)[:, :N_CLASSES] for batch in loader) / N_CLIPS
    test = loader[0]["splits"][:, 0] == 2
    right = (mean.argmax(1) == loader[0]["targets"])[test].float().mean()
    assert result.values["split2-acc"] == pytest.approx(float(right)) == result.best
    assert result.facts["videos"] == N_VIDEOS and "split1-acc" not in result.values


@pytest.mark.parametrize("predictor", [ClipProbePredictor, ClipNNPredictor])
def test_frozen_vectors_are_one_a_video(predictor):
    arrays = predictor(Config())(Loader(), Pixels())
    assert arrays["scores"].shape == (2, N_VIDEOS, N_CLASSES) and len(arrays["ids"]) == N_VIDEOS
    values = ActionRecognitionMetric(EvalConfig(bootstrap=0)).evaluate(**arrays).values
    assert values["split1-acc"] > 0.9 and values["split2-acc"] > 0.9
    if predictor is ClipNNPredictor:
        assert values["split1-R1"] <= values["split1-R5"] <= values["split1-R50"] == 1


def test_few_shots_get_better_with_more_videos():
    settings = Config(
        eval=EvalConfig(shots=[1, 5], draws=6),
        dataset=DatasetConfig(fold=1),
        predictor="ClipFewShotPredictor",
    )
    arrays = ClipFewShotPredictor(settings)(Loader(noise=1.5), Pixels())
    assert arrays["hits"].shape == (6, 2, 6)
    values = ClipFewShotMetric(EvalConfig()).evaluate(**arrays).values
    assert 1 / 3 < values["1shot-acc"] < values["5shot-acc"] <= 1 and values["1shot-std"] > 0


def test_more_shots_than_videos_are_refused():
    settings = Config(
        eval=EvalConfig(shots=[1, 50]), dataset=DatasetConfig(fold=1), predictor="ClipFewShotPredictor"
    )
    with pytest.raises(ValueError, match=r"eval.shots=\[1, 50\]: a class has 6 training videos"):
        ClipFewShotPredictor(settings)(Loader(), Pixels())


@pytest.mark.parametrize("path", golden_cases("release_gdt_eval*.npz"))
def test_golden_release_gdt_eval_agg(path):
    golden = load_golden(path)
    labels = golden["agg.label"]
    result = ActionRecognitionMetric(EvalConfig(bootstrap=0)).evaluate(
        golden["agg.logits"], labels, np.full((len(labels), 1), 2), golden["agg.video_id"].astype(str)
    )
    found = [100 * result.values[f"split1-{name}"] for name in ("acc", "R5")]
    np.testing.assert_allclose(found, [golden["agg.video_acc1"], golden["agg.video_acc5"]], rtol=1e-6)
