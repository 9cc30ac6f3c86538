from __future__ import annotations

import json

import pytest

from mmpt.ops.gdt import GDTHypothesis
from mmpt_cli.gdt_masks import main


def test_prints_terms_and_one_grid_for_each_directed_call(capsys):
    main(["8", "--world", "2", "--batch", "3"])
    text = capsys.readouterr().out
    assert text.startswith("hypothesis 8: v_reversal_i_shift")
    assert text.count("\nterm ") == len(GDTHypothesis.parse(8).calls())
    first = text.split("\n\n")[2].splitlines()
    assert first[0] == "term base_shift: first modality, view orig"
    assert first[2] == " 0.0  P11 111  ... ...  .11 111  ... ..."


def test_json_holds_the_masks(capsys):
    main(["v_shift", "--world", "2", "--batch", "2", "--scope", "rank", "--json"])
    expected = GDTHypothesis.parse(4).masks(2, 2, "rank")
    found = json.loads(capsys.readouterr().out)
    assert [mask["mult"] for mask in found] == [mask["mult"].tolist() for mask in expected]
    assert [mask["term"] for mask in found] == [mask["term"] for mask in expected]


@pytest.mark.parametrize(
    "arguments, message", [(["10"], "expected 1 to 9"), (["1", "--world", "0"], "at least 1")]
)
def test_wrong_arguments_end_with_a_message(arguments, message, capsys):
    with pytest.raises((SystemExit, ValueError)) as error:
        main(arguments)
    assert message in f"{error.value}{capsys.readouterr().err}"
