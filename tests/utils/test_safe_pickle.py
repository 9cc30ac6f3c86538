import collections
import os
import pickle

import numpy as np
import pytest

from mmpt.utils import UnsafePickle, load_plain_pickle, save_plain_pickle


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
