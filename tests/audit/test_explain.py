import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.audit import Claim, audit, text, to_dict, write_report
from mmpt.audit.protocol import Scorer
from tests.audit.helpers import make_evidence

EVIDENCE = make_evidence(
    n_items=150,
    captions=2,
    reranked=torch.rand(300, 150, generator=torch.Generator().manual_seed(1)),
    judged={row: {(row * 7 + 1) % 150, (row * 11 + 2) % 150} for row in range(0, 300, 2)},
    listed=150,
)
METRICS = ["R1", "R5", "R10"]


def claim(evidence=EVIDENCE, **changes):
    """The numbers of another protocol as a paper prints them."""
    scorer = Scorer(evidence, METRICS)
    outcome = scorer.outcome(replace(scorer.clean, **changes))
    return Claim.parse(",".join(f"{name}={outcome.number(name):.1f}" for name in METRICS))


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({"post": ("dual softmax", 14.0)}, "postprocessing"),
        ({"post": ("CSLS", 10)}, "hubness"),
        ({"similarity": "dot"}, "similarity"),
        ({"rerank": 37}, "rerank"),
        ({"direction": "v2t"}, "direction"),
        ({"averaged": "embeddings"}, "averaging"),
        ({"counted": "best"}, "captions"),
        ({"right": "judged"}, "judgements"),
    ],
)
def test_the_departure_that_a_claim_was_made_with_is_named_first(changes, family):
    found = audit(EVIDENCE, claim(**changes), n_samples=50)
    assert found.named[0].family == family
    total = sum(bar.points for bar in found.bars)
    assert found.claim.values["R1"] + total == pytest.approx(found.clean["R1"])
    assert abs(found.bars[0].points) <= 0.1  # what no departure explains: the rounding of the claim


def test_an_honest_claim_raises_no_alarm():
    found = audit(EVIDENCE, claim(), n_samples=50)
    assert not found.named and not found.remarks
    assert "nothing has to be taken off" in text(found)


def test_a_claim_of_another_model_is_not_pinned_on_a_departure():
    honest = claim()
    found = audit(
        EVIDENCE,
        replace(honest, values={name: value + 7.3 for name, value in honest.values.items()}),
        n_samples=50,
    )
    assert not found.named and not found.explained and "A gallery of about" in text(found)


def test_two_departures_at_once_are_both_named():
    found = audit(EVIDENCE, claim(similarity="dot", right="judged"), n_samples=50)
    assert {departure.family for departure in found.named} == {"similarity", "judgements"}
    assert len(found.bars) == 3


def test_a_file_that_lacks_items_of_the_list_is_named_where_the_claim_comes_from_it():
    short = replace(EVIDENCE, listed=220)
    found = audit(short, claim(short, gallery="file"), n_samples=50)
    assert found.named[0].family == "gallery" and found.clean["R1"] < found.claim.values["R1"]
    assert not audit(short, claim(short), n_samples=50).named


def test_the_interval_of_a_bar_covers_it_and_the_same_seed_gives_it_again():
    one, two = (audit(EVIDENCE, claim(post=("dual softmax", 14.0)), n_samples=200, seed=3) for _ in range(2))
    bar = one.bars[1]
    assert bar.interval[0] < bar.points < bar.interval[1]
    assert to_dict(one) == to_dict(two)


def test_the_report_is_text_json_and_a_picture(tmp_path):
    found = audit(EVIDENCE, claim(direction="v2t"), n_samples=50)
    paths = write_report(found, tmp_path)
    assert [path.name for path in paths] == ["audit.txt", "audit.json", "audit.png"]
    stored = json.loads(paths[1].read_text())
    assert stored["named"][0]["family"] == "direction" and np.isfinite(stored["bars"][1]["points"])
    assert "first suspect" in paths[0].read_text() and paths[2].stat().st_size > 1000


@pytest.mark.parametrize("words", ["R1=0.473", "R1=473", "mAP=30", "MR=2", "R1=high"])
def test_a_claim_that_cannot_be_read_is_refused(words):
    with pytest.raises(ValueError, match="claim"):
        Claim.parse(words)
