"""A replay in words."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

from mmpt.replay.repeat import Replay
from mmpt.replay.report import as_text

ITEMS = [
    {"item": 3, "video": "a", "loss": 0.5, "norm": 1.0, "finite": True},
    {"item": 4, "video": "b", "loss": 2.0, "norm": 3.0, "finite": True},
    {"item": 5, "video": None, "loss": nan, "norm": nan, "finite": False},
]
BATCH = {"rank": 1, "batch": 0, "loss": 2.5, "terms": {"video_to_text": 1.5}, "items": ITEMS}
MADE = Replay(Path("run"), 7, None, 2, logged="x", hashes={7: "x"}, batches=[BATCH])


def test_items_that_are_not_finite_come_first_then_those_that_add_most_to_the_loss():
    lines = as_text(MADE).splitlines()
    assert lines[0] == "run, update 7: made again from its beginning on 2 processes"
    assert lines[2] == "rank 1, batch 0: loss 2.5000 (video_to_text 1.5000)"
    assert [line.split() for line in lines[-3:]] == [
        ["n/a", "n/a", "1", "5", "?", *"NaN or infinity in its features".split()],
        ["+2.0000", "75.00%", "1.50", "1", "4", "b"],
        ["+0.5000", "25.00%", "0.50", "1", "3", "a"],
    ]
    assert as_text(MADE, most=1).splitlines()[-1] == "... 2 more"


@pytest.mark.parametrize(
    ("logged", "hashes", "said"),
    [
        ("x", {7: "x"}, "gradient x: the one that the run logged"),
        ("y", {7: "x"}, "gradient x: NOT the one that the run logged (y)"),
        (None, {7: "x"}, "gradient x: the run did not log that of this update"),
        ("x", {}, "gradient None: there is none"),
    ],
)
def test_the_gradient_is_compared_with_that_of_the_log(logged, hashes, said):
    assert as_text(replace(MADE, logged=logged, hashes=hashes)).splitlines()[1].startswith(said)


def test_an_update_that_failed_shows_why_and_a_batch_without_a_loss_no_loss():
    broken = {name: value for name, value in BATCH.items() if name not in ("loss", "terms")}
    lines = as_text(replace(MADE, hashes={}, batches=[broken], error="1\n2\n3\n4\n5\nNaN")).splitlines()
    assert lines[2:9] == ["the update failed:", "    2", "    3", "    4", "    5", "    NaN", ""]
