"""Records: what they say is derived again, and no byte of them changes unseen."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from mmpt.evaluators import records
from mmpt.evaluators.bootstrap import interval
from mmpt.evaluators.ranking import statistic
from mmpt_cli.verify_results import main


@pytest.fixture
def record(tmp_path):
    rng = np.random.default_rng(0)
    per_query = {row: {"vtt": {"ranks": rng.integers(1, 40, 60).astype(float)}} for row in ("a", "b")}
    table = [["model", "R@1", "MedR"]]
    for row in per_query:
        cells = (records.cell(row, "vtt", "ranks", name, name == "R1") for name in ("R1", "MR"))
        table.append([row, *cells])
    about = {"weights": {"a": {"sha256": "0" * 64}}, "seeds": [1], "command": "mmpt demo"}
    return records.write_record(
        tmp_path / "docs/records/toy", {"Toy": table}, per_query, {"a": {"x": 1}}, about
    )


def test_a_cell_is_the_statistic_of_its_queries_with_its_interval(record):
    ranks = np.array(json.loads((record / records.PER_QUERY).read_text())["a"]["vtt"]["ranks"])
    low, high = interval(ranks, statistic("R1"), 1000, np.random.default_rng(0))
    expected = f"{100 * (ranks <= 1).mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    assert f"| a | {expected} | {np.median(ranks):.0f} |" in records.page(record)
    assert records.problems(record) == []


def test_a_thousand_random_bytes_changed_are_a_thousand_found(record):
    rng = random.Random(0)
    files = {name: (record / name).read_bytes() for name in (*records.FILES, records.SEAL)}
    for _ in range(1000):
        name = rng.choice(list(files))
        changed = bytearray(files[name])
        place = rng.randrange(len(changed))
        changed[place] ^= rng.randrange(1, 256)
        (record / name).write_bytes(changed)
        assert records.broken_seal(record) == [name], (name, place)
        (record / name).write_bytes(files[name])
    assert records.problems(record) == []


def test_a_cell_that_somebody_typed_is_found_even_where_the_seal_was_made_anew(record):
    content = json.loads((record / records.RECORD).read_text())
    spec = content["tables"]["Toy"][1][1]
    spec["text"] = "99.9 [99.0, 99.9]"
    (record / records.RECORD).write_text(json.dumps(content))
    (record / records.SEAL).write_text(records._seal({n: (record / n).read_bytes() for n in records.FILES}))
    (found,) = records.problems(record)
    assert "a, vtt, ranks, R1: says 99.9" in found


def test_a_document_may_name_the_columns_and_rows_it_shows(record):
    head, *rows = records.tables(record)["Toy"]
    page = records.filled(
        f"<!-- record:begin toy: {rows[-1][0]}, {head[1]} -->\n{records.END}", record.parent
    )
    shown = [line for line in page.splitlines() if line.startswith("| ")]
    assert shown == [f"| {head[0]} | {head[1]} |", f"| {rows[-1][0]} | {rows[-1][1]} |"]


def test_documents_take_their_tables_from_the_records(record, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("<!-- record:begin toy -->\n| 7 |\n<!-- record:end -->\nrest\n")
    assert main([]) == 1 and "README.md: its tables are not" in capsys.readouterr().out
    assert main(["--write"]) == 0 and main([]) == 0
    assert records.page(record) in (tmp_path / "README.md").read_text()
    head, *rows = json.loads((record / records.RECORD).read_text())["tables"]["Toy"]
    short = records.filled(f"<!-- record:begin toy: {head[1]} -->\n{records.END}", record.parent)
    assert f"| {head[0]} | {head[1]} |" in short and short.count("\n| ") == 1 + len(rows)
    (record / records.CONFIGS).unlink()
    assert main([]) == 1 and "configs.json" in capsys.readouterr().out
