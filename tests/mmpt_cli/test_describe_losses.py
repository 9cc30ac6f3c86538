"""docs/losses.md is what the code says."""

from __future__ import annotations

import inspect

import pytest

from mmpt.registry import LOSSES
from mmpt_cli import describe_losses
from mmpt_cli.loss_facts import FACTS, FAMILIES
from tests.conftest import ROOT

NAMES = [name for name in LOSSES.names() if LOSSES.get(name).__module__.startswith("mmpt.losses")]


def test_the_page_is_what_the_code_generates():
    found = (ROOT / "docs/losses.md").read_text()
    assert found == describe_losses.page(), "run: python -m mmpt_cli.describe_losses > docs/losses.md"


def test_every_loss_is_described_once():
    assert sorted(name for names in FAMILIES.values() for name in names) == sorted(FACTS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_has_a_row_with_its_yaml_spelling_and_default(name):
    cls = LOSSES.get(name)
    rows = {row[0]: row for row in describe_losses.key_rows(cls.Config)}
    assert {f"`{key}`" for key in cls.Config.yaml_names()} <= set(rows)
    section = describe_losses.section(name, [])
    assert all(row[0] in section for row in rows.values())
    assert inspect.getdoc(cls).split("\n")[0][:40] in section


def test_keys_of_a_section_follow_it():
    rows = [row[0] for row in describe_losses.key_rows(LOSSES.get("MMContraLoss").Config)]
    assert rows.index("`sequence_contrast.threshold`") > rows.index("`sequence_contrast`")


def test_what_a_loss_reads_comes_from_its_signature():
    assert describe_losses.reads(LOSSES.get("T2VContraLoss")) == "`pooled_video`, `pooled_text`"
    assert describe_losses.reads(LOSSES.get("GRAMLoss")).startswith(
        "`pooled_<modality>` of what it compares; if there:"
    )
    assert describe_losses.reads(LOSSES.get("SumLoss")) == "what its parts read"
