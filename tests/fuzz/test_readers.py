"""No damage of any file ends in a traceback, a hang, a crash, or memory without bounds.

`python -m tests.fuzz` prints the table that docs/security.md holds.
"""

from __future__ import annotations

import pytest

from tests.fuzz.harness import FAULTS, Reader, campaign
from tests.fuzz.readers import READERS

pytest.importorskip("av")
pytest.importorskip("pysubs2")


def check(reader: Reader, folder, n: int) -> None:
    counts, examples = campaign(reader, folder, n)
    assert not any(counts[fault] for fault in FAULTS), examples
    assert not (reader.sealed and counts["silent"]), examples


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_some_damaged_files_are_errors_in_a_line(reader, tmp_path):
    check(reader, tmp_path, 6 if reader.slow else 16)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_many_damaged_files_are_errors_in_a_line(reader, tmp_path):
    check(reader, tmp_path, 300)
