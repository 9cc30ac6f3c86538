from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.audit import Evidence
from mmpt.audit.protocol import Scorer
from tests.audit.helpers import make_evidence, recall, unit


def number(evidence, **changes):
    scorer = Scorer(evidence, ["R1"])
    return scorer.outcome(replace(scorer.clean, **changes)).number("R1")


def own(evidence):
    return evidence.query_item[:, None] == np.arange(len(evidence.items))


def cosines(evidence):
    return unit(evidence.queries) @ unit(evidence.gallery).T


def test_the_clean_number_is_recall_of_cosines_over_all_captions():
    evidence = make_evidence(captions=3)
    assert number(evidence) == pytest.approx(recall(cosines(evidence), own(evidence)))


def test_dot_products_are_taken_as_they_are():
    evidence = make_evidence()
    assert number(evidence, similarity="dot") == pytest.approx(
        recall(evidence.queries @ evidence.gallery.T, own(evidence))
    )


def test_video_to_text_counts_any_caption_of_the_video():
    evidence = make_evidence(captions=3)
    assert number(evidence, direction="v2t") == pytest.approx(recall(cosines(evidence).T, own(evidence).T))


def test_the_first_caption_or_any_caption_of_a_video_may_ask():
    evidence = make_evidence(captions=3)
    scores, right = cosines(evidence), own(evidence)
    assert number(evidence, asking="first") == pytest.approx(recall(scores[::3], right[::3]))
    hits = np.take_along_axis(right, scores.argmax(1)[:, None], axis=1).reshape(-1, 3)
    assert number(evidence, counted="best") == pytest.approx(100 * hits.any(1).mean())


@pytest.mark.parametrize("how", ["unit embeddings", "embeddings", "scores", "best"])
def test_captions_of_a_video_are_averaged(how):
    evidence = make_evidence(captions=3)
    queries = unit(evidence.queries) if how == "unit embeddings" else evidence.queries.numpy()
    scores = unit(queries.reshape(80, 3, -1).mean(1)) @ unit(evidence.gallery).T
    if how in ("scores", "best"):
        stacked = cosines(evidence).reshape(80, 3, -1)
        scores = stacked.mean(1) if how == "scores" else stacked.max(1)
    assert number(evidence, averaged=how) == pytest.approx(recall(scores, np.eye(80, dtype=bool)))


def test_the_second_stage_orders_only_the_best_of_the_first():
    second = torch.rand(80, 80, generator=torch.Generator().manual_seed(1))
    evidence = make_evidence(reranked=second)
    scores = cosines(evidence)
    for i, row in enumerate(scores):
        top = np.argsort(-row)[:7]
        scores[i, top] = 10 + second[i, top].numpy()
    assert number(evidence, rerank=7) == pytest.approx(recall(scores, own(evidence)))


def test_judged_items_and_equal_captions_count_as_right():
    evidence = make_evidence(judged={0: {5, 6}, 3: {1}}, captions=1)
    right = own(evidence)
    right[0, [5, 6]] = right[3, 1] = True
    assert number(evidence, right="judged") == pytest.approx(recall(cosines(evidence), right))
    texts = [f"caption {i}" for i in range(80)]
    texts[4] = "Caption  9"
    evidence = replace(evidence, captions=texts)
    right = own(evidence)
    right[4, 9] = right[9, 4] = True
    assert number(evidence, right="captions") == pytest.approx(recall(cosines(evidence), right))


def test_tie_rules_order_a_constant_matrix_as_they_say():
    evidence = Evidence(np.arange(4), np.arange(4), list("abcd"), scores=torch.zeros(4, 4))
    found = {
        rule: Scorer(evidence, ["MR"])
        .outcome(replace(Scorer(evidence, ["MR"]).clean, ties=rule))
        .values["MR"]
        .tolist()
        for rule in RANKS
    }
    assert found == RANKS


RANKS = {
    "mean": [2.5] * 4,
    "optimistic": [1.0] * 4,
    "pessimistic": [4.0] * 4,
    "earlier": [1.0, 2.0, 3.0, 4.0],
    "later": [4.0, 3.0, 2.0, 1.0],
}


def test_a_gallery_that_lists_a_video_per_caption_is_cut_to_its_videos():
    evidence = make_evidence(captions=2)
    listed = replace(
        evidence,
        column_item=evidence.query_item,
        gallery=evidence.gallery[torch.from_numpy(evidence.query_item)],
    )
    assert listed.one_row_a_caption
    assert number(listed) == number(evidence)
    assert number(listed, gallery="rows") < number(evidence)


def test_copies_of_an_item_count_as_right():
    evidence = make_evidence()
    gallery = evidence.gallery.clone()
    gallery[9] = gallery[4]
    evidence = replace(evidence, gallery=gallery)
    right = own(evidence)
    right[4, 9] = right[9, 4] = True
    assert number(evidence, right="copies") == pytest.approx(recall(cosines(evidence), right))


def test_a_claim_about_fewer_items_is_scored_on_them():
    kept = [f"video{i}" for i in range(0, 80, 2)]
    evidence = make_evidence(claimed=kept)
    expected = recall(cosines(evidence)[::2, ::2], np.eye(40, dtype=bool))
    assert number(evidence, gallery="claimed") == pytest.approx(expected)


def test_post_processing_in_the_other_direction_normalises_over_the_other_side():
    evidence = make_evidence()
    scores = cosines(evidence).T
    weight = np.exp(20 * scores)
    expected = recall(scores * weight / weight.sum(0), own(evidence).T)
    assert number(evidence, direction="v2t", post=("dual softmax", 20.0)) == pytest.approx(expected)


def test_hub_items_are_left_out_with_their_queries():
    evidence = make_evidence()
    gallery = evidence.gallery.clone()
    gallery[[2, 7]] = evidence.queries.mean(0)
    evidence = replace(evidence, gallery=gallery)
    kept = np.setdiff1d(np.arange(80), [2, 7])
    assert set(Scorer(evidence, ["R1"]).hub_items[:2]) == {2, 7}
    assert number(evidence, hubs=2) == pytest.approx(
        recall(cosines(evidence)[kept][:, kept], np.eye(78, dtype=bool))
    )


def test_a_list_longer_than_the_file_lowers_the_expected_recall():
    evidence = make_evidence()
    longer = replace(evidence, listed=120)
    assert number(longer, gallery="file") == number(evidence)
    assert number(longer) < number(evidence)
