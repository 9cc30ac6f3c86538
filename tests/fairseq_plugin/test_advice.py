"""What training says about itself: each thing once, with its cure, and nothing where nothing is wrong."""

from __future__ import annotations

import logging

import pytest

from mmpt.fairseq_plugin.advice import Advice


def said(caplog, lines):
    """Warnings after these (tag, update, numbers)."""
    advise = Advice()
    with caplog.at_level(logging.WARNING, logger="mmpt.fairseq_plugin.advice"):
        for line in lines:
            advise(*line)
    return [record.getMessage() for record in caplog.records]


def inner(**series):
    """Lines of every tenth update."""
    rows = zip(*series.values(), strict=True)
    return [("train_inner", 10 * n, dict(zip(series, row, strict=True))) for n, row in enumerate(rows, 1)]


def validated(training, validation):
    lines = []
    for n, (train, valid) in enumerate(zip(training, validation, strict=True), 1):
        lines += [("train_inner", 100 * n, {"loss": train}), ("valid", 100 * n, {"loss": valid})]
    return lines


@pytest.mark.parametrize(
    "lines, what",
    [
        (inner(clip=[100] * 30, gnorm=[4.0] * 30), "clip_norm"),
        (inner(temperature=[0.02, 0.0100001, 0.01, 0.01]), "at its bound, 0.01"),
        (validated([9, 8, 7, 6, 5, 4], [9, 8, 8.5, 8.2, 8.1, 8.3]), "stood at 8 since update 200"),
    ],
)
def test_what_goes_wrong_is_said_once_with_its_cure(caplog, lines, what):
    (message,) = said(caplog, lines)
    assert what in message


@pytest.mark.parametrize(
    "lines",
    [
        inner(clip=[100] * 9 + [99] + [100] * 9, gnorm=[4.0] * 19),
        inner(temperature=[0.02] * 5),
        validated([9, 8, 7, 6], [9, 8, 7, 6]),
        validated([9, 8.9, 8.9, 8.9, 8.8], [9, 9, 9, 9, 9]),  # training stands still as well
        [
            (tag, update, {**numbers, "zero_shot_R1": 0.5})  # a test judges
            for tag, update, numbers in validated([9, 8, 7, 6, 5, 4], [9, 8, 8.5, 8.2, 8.1, 8.3])
        ],
    ],
)
def test_nothing_is_said_where_nothing_is_wrong(caplog, lines):
    assert not said(caplog, lines)
