"""The picture of one long video."""

import pytest

from mmpt.demo.report import film_strip
from mmpt.synthetic.truth import truth_alignment


def test_each_part_of_the_film_strip_names_a_step_that_its_seconds_show(toy_world):
    truth = truth_alignment(toy_world, "val00000")
    length = float(truth.shown_s.max()) + 20  # it ends with nothing on the table
    strip = film_strip(truth, length, frames=12)
    assert [span[0] for span, _, _ in strip] == pytest.approx([length * i / 12 for i in range(12)])
    for (start, end), picture, label in strip:
        shown = [
            step.split()[:2]
            for step, (first, last) in zip(truth.labels, truth.shown_s, strict=True)
            if first < end and last > start
        ]
        assert label.split() in shown if shown else label == ""
        assert picture.std() > 0 or not shown
    assert strip[-1][2] == ""
