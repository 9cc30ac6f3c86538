"""Remote folders of shards: fetched once, verified, refreshed; memory:// stands for an object store."""

import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest

from mmpt.processors.store.remote import RemoteFolder, local_file
from mmpt.processors.store.shard_cache import ShardCache
from mmpt.processors.store.video_index import VideoIndex
from mmpt.utils import ShardedTensor, ShardError, ShardWriter, save_plain_pickle
from mmpt.utils.shardedtensor import MANIFEST

fsspec = pytest.importorskip("fsspec")
URL = "memory://bucket/feat"


def write_shards(folder: Path, offset: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for shard in range(2):
        with ShardWriter(folder / f"train_{shard}") as writer:
            for item in range(3):
                writer.append(np.full((item + 2, 4), 10 * shard + item + offset, np.float16))
    save_plain_pickle({0: ["a", "b", "c"], 1: ["d", "e", "f"]}, folder / "train_meta.pkl")
    return folder


def upload(folder: Path) -> None:
    store = fsspec.filesystem("memory")
    for file in folder.iterdir():
        if not file.name.startswith("."):
            store.pipe_file(f"/bucket/feat/{file.name}", file.read_bytes())


@pytest.fixture
def source(tmp_path):
    """The uploaded folder, as it is on the disk it came from."""
    store = fsspec.filesystem("memory")
    folder = write_shards(tmp_path / "source")
    upload(folder)
    yield folder
    store.rm("/bucket", recursive=True)


def fresh(tmp_path) -> RemoteFolder:
    """As another process sees it."""
    return RemoteFolder(URL, tmp_path / "cache")


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Names of the files read from the store since the last call, by this process or its children."""
    record = tmp_path / "opened"
    store = type(fsspec.filesystem("memory"))
    original = store._open

    def opening(self, path, *args, **kwargs):
        with open(record, "a") as file:
            file.write(path.rsplit("/", 1)[1] + "\n")
        time.sleep(0.05)  # long enough for the others to come
        return original(self, path, *args, **kwargs)

    monkeypatch.setattr(store, "_open", opening)

    def names():
        found = sorted(record.read_text().split())
        record.write_text("")
        return found

    return names


def test_a_remote_shard_opens_like_a_local_one(source, tmp_path):
    cache = ShardCache(cache_dir=tmp_path / "cache")
    for shard in range(2):
        local = ShardedTensor.load(source / f"train_{shard}")
        remote = cache(f"{URL}/train_{shard}")
        np.testing.assert_array_equal(remote.data, local.data)
        np.testing.assert_array_equal(remote.starts, local.starts)


def test_a_fetched_file_is_not_fetched_again(source, tmp_path, opened):
    fresh(tmp_path).shard("train_0")
    assert opened() == [MANIFEST, "train_0_data.npy", "train_0_starts.npy"]
    fresh(tmp_path).shard("train_0")
    assert opened() == [MANIFEST]


def test_lengths_come_without_the_rows(source, tmp_path, opened):
    assert fresh(tmp_path).lengths("train_1").tolist() == [2, 3, 4]
    assert opened() == [MANIFEST, "train_1_starts.npy"]


def test_shards_that_changed_there_are_fetched_again(source, tmp_path):
    fresh(tmp_path).shard("train_0")
    write_shards(source, offset=5)
    upload(source)
    assert ShardedTensor.load(fresh(tmp_path).shard("train_0")).data[0, 0] == 5


def test_an_index_that_changed_there_is_fetched_again(source, tmp_path):
    def places():
        index = VideoIndex.open(fresh(tmp_path).file("train_meta.pkl"))
        return [index.name(i) for i in range(len(index))]

    assert places() == ["a", "b", "c", "d", "e", "f"]
    save_plain_pickle({0: ["a"]}, source / "train_meta.pkl")
    upload(source)
    assert places() == ["a"]


def test_bytes_that_are_not_those_of_the_manifest_are_refused_and_not_kept(source, tmp_path):
    fsspec.filesystem("memory").pipe_file("/bucket/feat/train_0_data.npy", b"half of it")
    with pytest.raises(
        ShardError, match="memory://bucket/feat/train_0_data.npy: what arrived is not what shards.json lists"
    ):
        fresh(tmp_path).shard("train_0")
    assert not list((tmp_path / "cache").rglob("train_0_data.npy"))


def test_a_listed_file_that_is_gone_is_named(source, tmp_path):
    fsspec.filesystem("memory").rm("/bucket/feat/train_1_starts.npy")
    with pytest.raises(
        ShardError, match="memory://bucket/feat/train_1_starts.npy: no such shard file, though"
    ):
        fresh(tmp_path).lengths("train_1")


def test_a_shard_that_the_manifest_does_not_list_is_refused_with_the_cure(source, tmp_path):
    with pytest.raises(
        ShardError, match="train_7_data.npy: not listed in shards.json there.*verify FOLDER --seal"
    ):
        fresh(tmp_path).shard("train_7")


def test_a_folder_without_manifest_is_refused(source, tmp_path):
    fsspec.filesystem("memory").rm(f"/bucket/feat/{MANIFEST}")
    with pytest.raises(FileNotFoundError, match="needs its shards.json"):
        fresh(tmp_path).file("train_meta.pkl")


def test_an_unknown_kind_of_url_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nonsense"):
        RemoteFolder("nonsense://bucket", tmp_path)


def test_local_paths_pass_through(tmp_path):
    assert local_file(tmp_path / "a") == tmp_path / "a"


def fetch(cache_dir: Path) -> None:
    ShardCache(cache_dir=cache_dir)(f"{URL}/train_0")


def test_processes_that_need_the_same_shard_fetch_it_once(source, tmp_path, opened):
    context = multiprocessing.get_context("fork")  # the store lives in memory
    jobs = [context.Process(target=fetch, args=(tmp_path / "cache",)) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 4
    assert opened() == [MANIFEST] * 4 + ["train_0_data.npy", "train_0_starts.npy"]
