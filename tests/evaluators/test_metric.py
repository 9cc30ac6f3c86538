"""RetrievalMetric: golden numbers, directions, tie rule, what is stated beside the numbers."""

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import RetrievalMetric
from tests.conftest import golden_cases, load_golden

NAMES = ("R1", "R5", "R10", "MR")


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_retrieval(path):
    arrays = load_golden(path)
    found = RetrievalMetric(EvalConfig())(scores=arrays["retrieval_scores"])
    np.testing.assert_allclose([found[name] for name in NAMES], arrays["retrieval_R1_R5_R10_MR"], rtol=1e-6)


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_retrieval_tied_is_reproduced_in_compat_mode(path):
    arrays = load_golden(path)
    found = RetrievalMetric(EvalConfig(compat=True))(scores=arrays["retrieval_tied_scores"])
    np.testing.assert_allclose([found[name] for name in NAMES], arrays["retrieval_tied_norton"], rtol=1e-6)


def test_video_to_text_is_retrieval_on_the_transposed_scores():
    scores = np.random.default_rng(0).normal(size=(25, 25))
    both, turned = (
        RetrievalMetric(EvalConfig())(scores=scores),
        RetrievalMetric(EvalConfig())(scores=scores.T),
    )
    assert [both[f"V2T-{name}"] for name in NAMES] == [turned[name] for name in NAMES]


def test_the_outcome_states_counts_ties_duplicates_and_chance():
    vectors = torch.eye(20)
    vectors[1] = vectors[0]
    texts = ["chop the onion", "chop the onion", *map(str, range(18))]
    result = RetrievalMetric(EvalConfig(bootstrap=50)).evaluate(
        pooled_text=vectors, pooled_video=vectors, texts=texts
    )
    assert result.facts == {
        "queries": 20,
        "gallery": 20,
        "tie rule": "mean",
        "tied queries": 2,
        "hubness": result.facts["hubness"],
        "duplicate captions": 1,
    }
    level = {"R1": 0.05, "R5": 0.25, "R10": 0.5, "MR": 10.5}
    prefixes = [f"{way}{kind}" for way in ("", "V2T-") for kind in ("", "plain-cosine-", "cosine-")]
    assert result.baselines["chance"] == {
        f"{prefix}{name}": value for prefix in prefixes for name, value in level.items()
    }
    assert result.values["R1"] == 0.9
    low, high = result.intervals["R1"]
    assert low < 0.9 < high
    assert result.per_query["ranks"].tolist() == [1.5, 1.5] + [1.0] * 18


def test_a_gallery_that_lists_a_video_twice_is_named():
    result = RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(
        scores=np.eye(4), item_ids=["a", "a", "b", "c"]
    )
    assert "4 items but only 3 different" in result.warnings[0]


def test_several_captions_of_a_video_share_its_place_in_the_gallery():
    scores = np.array([[2.0, 1.0], [3.0, 0.0], [1.0, 0.5]])
    result = RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(scores=scores, targets=[0, 0, 1])
    assert result.per_query["ranks"].tolist() == [1, 1, 2] and "V2T-R1" not in result.values


def test_no_interval_is_computed_when_switched_off():
    assert RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(scores=np.eye(4)).intervals == {}


def test_cosines_stand_beside_dot_products_plain_and_centred():
    text, video = torch.eye(3) + 5, torch.eye(3) + 5
    video[0] *= 10  # a long vector, which dot products prefer
    found = RetrievalMetric(EvalConfig(bootstrap=0))(pooled_text=text, pooled_video=video)
    assert (found["R1"], found["plain-cosine-R1"]) == (pytest.approx(1 / 3), 1.0)
    shifted = RetrievalMetric(EvalConfig(bootstrap=0))(pooled_text=text, pooled_video=-torch.eye(3) * -1 + 7)
    assert shifted["cosine-R1"] == 1.0


def test_post_processing_has_rows_of_its_own_and_leaves_the_main_number():
    scores = np.array([[3.0, 2.9, 0.0], [9.0, 8.9, 0.0], [8.0, 0.0, 7.9]], dtype=np.float32)
    plain = RetrievalMetric(EvalConfig(bootstrap=0))(scores=scores)
    config = EvalConfig(bootstrap=0, post_processing={"dual_softmax": 1, "sinkhorn": 2, "csls": 1})
    found = RetrievalMetric(config)(scores=scores)
    assert {name: found[name] for name in plain} == plain
    assert set(found) - set(plain) == {
        f"{way}-{name}" for way in ("dual_softmax(1)", "sinkhorn(2)", "csls(1)") for name in NAMES
    }
    assert found["sinkhorn(2)-R1"] > plain["R1"]


def test_items_judged_right_do_not_count_against_a_query(tmp_path):
    judged = tmp_path / "judged.csv"
    judged.write_text("query_id,gallery_id\na,b\n")
    scores = np.array([[1.0, 3.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    config = EvalConfig(bootstrap=0, false_negatives=str(judged))
    result = RetrievalMetric(config).evaluate(scores=scores, item_ids=["a", "b", "c"])
    assert result.per_query["ranks"].tolist() == [3, 2, 1]
    assert result.per_query["ranks_judged"].tolist() == [1, 2, 1]


def test_an_unknown_item_in_the_judgements_is_named_with_its_line(tmp_path):
    judged = tmp_path / "judged.csv"
    judged.write_text("query_id,gallery_id\na,x\n")
    with pytest.raises(ValueError, match=r"judged.csv:2: 'x' is no item of this test, as 'a' is"):
        RetrievalMetric(EvalConfig(bootstrap=0, false_negatives=str(judged))).evaluate(
            scores=np.eye(2), item_ids=["a", "b"]
        )


def test_intervals_draw_videos_where_clips_share_one():
    scores = np.eye(40)
    scores[:20] = -scores[:20]  # the clips of one video fail together
    videos = ["a"] * 20 + ["b"] * 20
    apart = RetrievalMetric(EvalConfig(bootstrap=200)).evaluate(scores=scores)
    together = RetrievalMetric(EvalConfig(bootstrap=200)).evaluate(scores=scores, video_ids=videos)
    assert apart.values == together.values
    assert together.intervals["R1"] == (0.0, 1.0)
    assert apart.intervals["R1"][0] > 0.2
    assert together.facts["intervals draw videos"] == 2


def test_hubness_is_zero_where_every_item_is_found_equally_often():
    ring = np.stack([np.roll(np.arange(20.0), i) for i in range(20)])
    assert RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(scores=ring).facts["hubness"] == 0
    hub = np.random.default_rng(0).normal(size=(200, 200))
    hub[:, 0] += 10
    assert RetrievalMetric(EvalConfig(bootstrap=0)).evaluate(scores=hub).facts["hubness"] > 3
