import collections
import os
import pickle

import numpy as np
import pytest

from mmpt.utils import UnsafePickle, load_plain_pickle, save_plain_pickle
from mmpt.utils.safe_pickle import convert_pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol_is_read(tmp_path, protocol):
    value = {0: ["a", "b"], "x": (1, 2.5, True, None), "s": {1, 2}, "f": frozenset({3})}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    assert load_plain_pickle(tmp_path / "a.pkl") == value


def test_what_is_saved_is_read_again(tmp_path):
    save_plain_pickle({0: ["a"], 1: [b"b"]}, tmp_path / "a.pkl")
    assert load_plain_pickle(tmp_path / "a.pkl") == {0: ["a"], 1: [b"b"]}


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({0: [Bomb(tmp_path / "hit")]}))
    with pytest.raises(UnsafePickle, match=r"a\.pkl: refused to load posix\.mkdir"):
        load_plain_pickle(tmp_path / "a.pkl")
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.int64(3), "numpy"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (len, "builtins.len"),
    ],
)
def test_other_classes_are_refused_by_name(tmp_path, value, name):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(UnsafePickle, match=name):
        load_plain_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("content", [b"", pickle.dumps(["abc"] * 50)[:-20], b"hello"])
def test_a_damaged_pickle_is_named(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pkl: not a whole pickle"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_what_stands_behind_a_pickle_is_not_dropped(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"v1": [1]}) + pickle.dumps({"v2": [2]}))
    with pytest.raises(ValueError, match=r"a\.pkl: goes on behind the end of its pickle, at byte \d+"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_thirteen_bytes_cannot_ask_for_gigabytes(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04N" + b"r" + (0x7FFFFFF0).to_bytes(4, "little") + b"0N.\n\n")
    with pytest.raises(ValueError, match=r"a\.pkl: asks for far more memory than its size can hold"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_harmless_classes_become_plain_data_without_trust(tmp_path):
    value = {
        "ordered": collections.OrderedDict(a=[1]),
        "default": collections.defaultdict(list, b=[2]),
        "numbers": (np.float32(0.5), np.int64(3), np.str_("x"), np.array([[1, 2]])),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    convert_pickle(tmp_path / "a.pkl", tmp_path / "plain.pkl")
    found = {"ordered": {"a": [1]}, "default": {"b": [2]}, "numbers": (0.5, 3, "x", [[1, 2]])}
    assert load_plain_pickle(tmp_path / "plain.pkl") == found


def test_a_data_frame_becomes_records_where_the_file_is_trusted(tmp_path):
    frame = pytest.importorskip("pandas").DataFrame({"id": ["v", "w"], "n": [1, 2]})
    frame.to_pickle(tmp_path / "a.pkl")
    with pytest.raises(UnsafePickle, match="mmpt data plain a.pkl PLAIN.pkl --trust"):
        convert_pickle(tmp_path / "a.pkl", tmp_path / "plain.pkl")
    assert convert_pickle(tmp_path / "a.pkl", tmp_path / "plain.pkl", trusted=True) == [
        "pandas.DataFrame" if type(frame).__module__ == "pandas" else "pandas.core.frame.DataFrame"
    ]
    assert load_plain_pickle(tmp_path / "plain.pkl") == [{"id": "v", "n": 1}, {"id": "w", "n": 2}]


def test_what_is_no_data_is_named_when_it_is_converted(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"f": len}))
    with pytest.raises(ValueError, match="holds a builtins.builtin_function_or_method, which is no data"):
        convert_pickle(tmp_path / "a.pkl", tmp_path / "plain.pkl", trusted=True)
