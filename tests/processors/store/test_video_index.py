import logging
import os
import pickle

import numpy as np
import pytest

from mmpt.processors.store.video_index import VideoIndex
from mmpt.utils import save_plain_pickle

META = {0: ["delta", "alpha", "a-much-longer-name"], 3: ["charlie"], 1: ["bravo", "éclair"]}


@pytest.fixture
def path(tmp_path):
    save_plain_pickle(META, tmp_path / "train_meta.pkl")
    return tmp_path / "train_meta.pkl"


def places(index):
    return {index.name(i): index.place(i) for i in range(len(index))}


EXPECTED = {name: (shard, row) for shard, names in META.items() for row, name in enumerate(names)}


def test_every_id_is_found_in_its_place(path):
    assert places(VideoIndex.open(path)) == EXPECTED


def test_the_second_opening_reads_the_built_index(path, monkeypatch):
    VideoIndex.open(path)
    monkeypatch.setattr(
        "mmpt.processors.store.video_index.load_index", lambda path: pytest.fail("read the pickle again")
    )
    assert places(VideoIndex.open(path)) == EXPECTED


def test_unknown_ids_give_minus_one(path):
    index = VideoIndex.open(path)
    found = index.find(["charlie", "nobody", "zulu", "", "alph"])
    assert index.name(found[0]) == "charlie"
    assert found[1:].tolist() == [-1, -1, -1, -1]


def test_finding_nothing_gives_nothing(path):
    assert VideoIndex.open(path).find([]).shape == (0,)


def test_a_changed_pickle_rebuilds_the_index(path):
    VideoIndex.open(path)
    save_plain_pickle({0: ["new"]}, path)
    os.utime(path, ns=(1, 1))
    assert places(VideoIndex.open(path)) == {"new": (0, 0)}


def test_a_damaged_index_is_rebuilt(path):
    VideoIndex.open(path)
    index_path = path.with_name("train_meta.pkl.index")
    index_path.write_bytes(index_path.read_bytes()[:-5])
    assert places(VideoIndex.open(path)) == EXPECTED


def test_a_single_byte_that_changed_in_the_index_sends_no_id_to_another_video(path):
    VideoIndex.open(path)
    index_path = path.with_name("train_meta.pkl.index")
    content = index_path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        index_path.write_bytes(damaged)
        assert places(VideoIndex.open(path)) == EXPECTED


def test_an_index_that_cannot_be_written_stays_in_memory(path, monkeypatch):
    def refuse(path):
        raise OSError("read-only file system")

    monkeypatch.setattr("mmpt.processors.store.video_index.atomic_write", refuse)
    assert places(VideoIndex.open(path)) == EXPECTED


def test_an_id_listed_twice_keeps_its_first_place(tmp_path, caplog):
    save_plain_pickle({0: ["a", "b"], 1: ["a"]}, tmp_path / "meta.pkl")
    with caplog.at_level(logging.WARNING):
        assert places(VideoIndex.open(tmp_path / "meta.pkl")) == {"a": (0, 0), "b": (0, 1)}
    assert "1 ids occur more than once" in caplog.text


def test_a_pickled_index_opens_the_file_again(path):
    message = pickle.dumps(VideoIndex.open(path))
    assert len(message) < 400
    assert places(pickle.loads(message)) == EXPECTED


def test_a_missing_meta_pickle_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="val_meta.pkl: no meta index"):
        VideoIndex.open(tmp_path / "val_meta.pkl")


@pytest.mark.parametrize("meta", [["a"], {"a": ["b"]}, {0: "abc"}])
def test_a_meta_pickle_of_another_form_is_refused(tmp_path, meta):
    save_plain_pickle(meta, tmp_path / "meta.pkl")
    with pytest.raises(ValueError, match="expected a pickle of"):
        VideoIndex.open(tmp_path / "meta.pkl")


def test_the_arrays_are_mapped_and_read_only(path):
    VideoIndex.open(path)
    index = VideoIndex.open(path)
    for array in (index.ids, index.shards, index.rows):
        assert not array.flags.writeable and array.flags.aligned and isinstance(array.base, np.memmap)
