"""docs/losses.md is what the code says."""

from __future__ import annotations

import inspect

import pytest

from mmpt.losses import Loss
from mmpt.registry import LOSSES
from scripts.docs import losses as describe_losses
from tests.conftest import ROOT

NAMES = [name for names in describe_losses.families().values() for name in names]


def test_the_page_is_what_the_code_generates():
    found = (ROOT / "docs/losses.md").read_text()
    assert found == describe_losses.page(), "run: python -m scripts.docs.losses > docs/losses.md"


def test_every_loss_of_the_package_is_described_once():
    built_in = [name for name in LOSSES.names() if LOSSES.get(name).__module__.startswith("mmpt.")]
    assert sorted(NAMES) == built_in


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_states_family_formula_and_cost(name):
    cls = LOSSES.get(name)
    assert cls.family != Loss.family and cls.formula and cls.cost


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
    assert describe_losses.reads(LOSSES.get("NLGLoss")) == "`logits`, `text_label`"
    assert describe_losses.reads(LOSSES.get("GRAMLoss")).startswith(
        "`pooled_<modality>` of what it compares; if there:"
    )
    assert describe_losses.reads(LOSSES.get("SumLoss")) == "what its parts read"


def test_every_loss_has_a_project_file_on_the_synthetic_data():
    assert set(describe_losses.toy_files()) == set(NAMES)
