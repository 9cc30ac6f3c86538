import numpy as np
import pytest

from mmpt.config import EvalConfig
from mmpt.evaluators import CrossTaskMetric, FullVideoRetrievalMetric, HTMAlignMetric
from mmpt.evaluators.spans import COVERAGE, FALSE_DISCOVERY
from mmpt.evaluators.tasks.crosstask import place_steps

SECONDS, SENTENCES, VIDEOS = 60, 6, 80


@pytest.fixture(scope="module")
def narrated():
    """Per video: similarity (N, T) and annotations (N, 3); a third of the sentences is not shown."""
    rng, videos = np.random.default_rng(0), []
    for _ in range(VIDEOS):
        similarity = rng.normal(size=(SENTENCES, SECONDS))
        starts = np.sort(rng.choice(SECONDS - 10, SENTENCES, replace=False))
        annotations = np.stack([rng.random(SENTENCES) < 2 / 3, starts, starts + rng.integers(3, 9)], axis=1)
        for row, (shown, start, end) in zip(similarity, annotations.astype(int), strict=True):
            row[start:end] += 3 * shown
        videos.append((similarity, annotations.astype(float)))
    return videos


def of_htm_align(videos):
    similarity, annotations = map(list, zip(*videos, strict=True))
    return HTMAlignMetric(EvalConfig(bootstrap=0)).evaluate(similarity=similarity, annotations=annotations)


def assert_promised(values):
    assert COVERAGE - 0.03 < values["calibrated-coverage"] < COVERAGE + 0.06
    assert values["calibrated-width"] < values["fixed window-width"]


def test_spans_of_htm_align_hold_the_truth_as_promised_and_few_hidden_sentences_are_called_shown(narrated):
    values = of_htm_align(narrated).values
    assert_promised(values)
    assert values["calibrated-false_discovery"] < FALSE_DISCOVERY + 0.03
    assert values["calibrated-visible_found"] > 0.3


def test_seconds_that_no_window_showed_are_no_evidence(narrated):
    hidden = [(np.where(np.arange(SECONDS) < 50, s, -60000.0), a) for s, a in narrated]
    low = [(np.where(np.arange(SECONDS) < 50, s, s[:, :50].min()), a) for s, a in narrated]
    of_hidden, of_low = of_htm_align(hidden).values, of_htm_align(low).values
    assert {k: v for k, v in of_hidden.items() if k.startswith("calibrated")} == {
        k: v for k, v in of_low.items() if k.startswith("calibrated")
    }


def test_with_few_videos_the_report_says_how_many_are_needed(narrated):
    result = of_htm_align(narrated[:39])
    assert result.facts["calibrated spans"] == "none: 39 videos have visible sentences, of 40 needed"
    assert not [name for name in result.values if name.startswith("calibrated")]


def test_spans_of_steps_hold_all_their_seconds_as_promised(narrated):
    labels = []
    for _, annotations in narrated:
        seconds = np.arange(SECONDS)[:, None]
        inside = (seconds >= annotations[:, 1]) & (seconds < annotations[:, 2])
        labels.append(inside & (annotations[:, 0] == 1))
    logits = [similarity.T for similarity, _ in narrated]
    arrays = {"tasks": ["tea"] * VIDEOS, "Y_pred": [place_steps(x) for x in logits], "Y_true": labels}
    assert_promised(CrossTaskMetric(EvalConfig(bootstrap=0)).evaluate(**arrays, logits=logits).values)


def test_spans_of_clips_hold_the_clip_of_a_caption_as_promised():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(VIDEOS), 8)
    vectors = rng.normal(size=(len(ids), 32))
    arrays = {"pooled_text": vectors + 3 * rng.normal(size=vectors.shape), "pooled_video": vectors}
    result = FullVideoRetrievalMetric(EvalConfig(bootstrap=0)).evaluate(video_ids=ids, **arrays)
    assert_promised(result.values)
    assert "widths in clips" in result.facts["calibrated spans"]
