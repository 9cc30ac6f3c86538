"""Tables of benchmarks as records."""

from __future__ import annotations

import pytest

from benchmarks import measured
from mmpt.evaluators import records


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "RECORDS", tmp_path / "docs/records")
    monkeypatch.setattr(
        "sys.argv",
        [str(measured.ROOT / "benchmarks/toy.py"), "--folder", str(tmp_path / "here"), "--record", "toy"],
    )
    return tmp_path / "docs/records"


def test_tables_of_a_benchmark_become_a_record_that_fills_a_page(folder):
    measured.publish("toy", {"Toy": [["clips", "ms"], [1024, 12.345], [2, 1234.5]]}, {"raw": 1}, "1 thread")
    assert records.problems(folder / "toy") == []
    assert (
        records.read_record(folder / "toy")["command"]
        == "python benchmarks/toy.py --folder here --record toy"
    )
    page = records.filled("<!-- record:begin toy -->\n<!-- record:end -->", folder)
    assert "| 1,024 | 12.3 |\n| 2 | 1,234 |" in page
    (title,) = records.tables(folder / "toy")
    assert title.startswith("Toy; 1 thread; ") and records.processor() in title and "load " in title


def test_without_a_name_nothing_is_kept(folder, capsys):
    measured.publish(None, {"Toy": [["a"], ["b"]]}, timed=False)
    assert not folder.exists() and capsys.readouterr().out == "\n**Toy**\n\n| a |\n|---|\n| b |\n"


def test_rows_that_name_their_columns_share_one_table():
    assert measured.of_rows([{"a": 1}, {"a": 2, "b": 3}]) == [["a", "b"], [1, ""], [2, 3]]
