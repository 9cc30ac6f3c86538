import json
import random

import pytest

from mmpt.processors.captions.dedup import CaptionDedupProcessor
from mmpt.utils import load_plain_pickle
from mmpt_cli.dedup import main
from tests.conftest import golden_cases, load_golden, real_path
from tests.processors.helpers import write_json


class Coin:
    """Always the same side."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def clips(*texts):
    return {
        "start": [2.0 * i for i in range(len(texts))],
        "end": [2.0 * i + 3 for i in range(len(texts))],
        "text": list(texts),
    }


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_dedup(path):
    golden = load_golden(path)
    cases = [name.removesuffix("_in") for name in golden if name.startswith("dedup") and name.endswith("_in")]
    assert cases
    for case in cases:
        dedup = CaptionDedupProcessor(random.Random(int(golden[f"{case}_seed"])), compat=True)
        assert dedup(json.loads(str(golden[f"{case}_in"]))) == json.loads(str(golden[f"{case}_out"]))


def test_a_repeated_line_extends_the_one_before():
    assert CaptionDedupProcessor(Coin(1))(clips("cut the onion", "the onion")) == {
        "start": [0.0],
        "end": [5.0],
        "text": ["cut the onion"],
    }


def test_a_longer_line_takes_the_place_of_its_beginning():
    assert CaptionDedupProcessor(Coin(1))(clips("cut", "cut the onion"))["text"] == ["cut the onion"]


@pytest.mark.parametrize(
    ("side", "texts"), [(1.0, ["cut the onion", "and fry"]), (0.0, ["cut", "the onion and fry"])]
)
def test_the_coin_decides_which_line_keeps_the_overlap(side, texts):
    lines = clips("cut the onion", "the onion and fry")
    assert CaptionDedupProcessor(Coin(side))(lines)["text"] == texts


def test_a_shared_letter_splits_words_by_the_historic_rule_only():
    lines = clips("fry it", "then stir")
    assert CaptionDedupProcessor(Coin(1), compat=True)(lines)["text"] == ["fry it", "hen stir"]
    assert CaptionDedupProcessor(Coin(1))(lines)["text"] == ["fry it", "then stir"]


def test_a_caption_shown_after_the_one_before_repeats_nothing():
    lines = {"start": [0, 5], "end": [5, 9], "text": ["cut the onion", "the onion is fried"]}
    assert CaptionDedupProcessor(Coin(0))(lines) == lines


def test_no_sentence_of_real_annotations_is_changed():
    path = real_path("youcook2", "youcookii_annotations_trainval.json")
    for entry in json.loads(path.read_text())["database"].values():
        steps = entry["annotations"]
        lines = {
            "start": [step["segment"][0] for step in steps],
            "end": [step["segment"][1] for step in steps],
            "text": [" ".join(step["sentence"].split()) for step in steps],
        }
        assert CaptionDedupProcessor(Coin(0))(lines) == lines


def test_empty_and_missing_texts_are_left_out():
    assert CaptionDedupProcessor(Coin(1))(clips("a b", " \n", float("nan"), "c\nd"))["text"] == ["a b", "c d"]


def test_the_command_writes_a_pickle_of_json_strings(tmp_path, capsys):
    source = write_json(tmp_path / "raw.json", {"v": clips("cut the onion", "the onion")})
    main([source, str(tmp_path / "out.pkl")])
    assert json.loads(load_plain_pickle(tmp_path / "out.pkl")["v"])["text"] == ["cut the onion"]
    assert "1 videos, 2 captions -> 1" in capsys.readouterr().out


def test_the_command_can_convert_without_removing(tmp_path):
    source = write_json(tmp_path / "raw.json", {"v": clips("a", "a")})
    main([source, str(tmp_path / "out.pkl"), "--plain"])
    assert json.loads(load_plain_pickle(tmp_path / "out.pkl")["v"]) == clips("a", "a")
