import ctypes
import itertools
import json
import mmap
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mmpt.processors.store import shard_cache as shardcache
from mmpt.processors.store.shard_cache import ShardCache
from mmpt.utils import ShardedTensor, ShardError, ShardWriter, load_index, save_plain_pickle
from mmpt.utils.files import file_sha256
from mmpt.utils.shardedtensor import MANIFEST, load_feature, read_manifest
from tests.conftest import golden_cases, load_golden

PASSPORT = {"backbone": "s3d", "frames_per_second": 30, "seconds_per_feature": 1.0, "normalised": True}


def arrays(lengths=(3, 0, 5), width=4, dtype=np.float16):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, width)).astype(dtype) for length in lengths]


def write(path, items, **options):
    with ShardWriter(path, **options) as writer:
        for item in items:
            writer.append(item)


@pytest.mark.parametrize("path", golden_cases("norton_data*.npz"))
def test_golden_norton_data_shard_is_laid_out_as_ever(path, tmp_path):
    golden = load_golden(path)
    offsets = np.cumsum([0, *golden["shard_lengths_in"]])
    items = [golden["shard_data"][start:end] for start, end in itertools.pairwise(offsets)]
    ShardedTensor.from_list(items).save(tmp_path / "train_0")
    assert sorted(file.name for file in tmp_path.iterdir()) == golden["shard_files"].tolist()
    shard = ShardedTensor.load(tmp_path / "train_0", mmap_mode="r")
    np.testing.assert_array_equal(shard.data, golden["shard_data"])
    np.testing.assert_array_equal(shard.starts, golden["shard_starts"])
    np.testing.assert_array_equal(shard.lengths(), golden["shard_lengths"])
    np.testing.assert_array_equal(shard[3], golden["shard_item3"])


@pytest.mark.parametrize("mmap_mode", [None, "r"])
def test_items_come_back_as_they_were_given(tmp_path, mmap_mode):
    items = arrays()
    ShardedTensor.from_list(items).save(tmp_path / "a")
    shard = ShardedTensor.load(tmp_path / "a", mmap_mode=mmap_mode)
    assert len(shard) == 3
    for got, expected in zip(shard, items, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(shard[-1], items[-1])


def test_a_shard_whose_items_are_all_empty_opens_mapped(tmp_path):
    ShardedTensor.from_list(arrays((0, 0))).save(tmp_path / "a")
    assert ShardedTensor.load(tmp_path / "a", mmap_mode="r")[1].shape == (0, 4)


def test_a_mapped_shard_is_read_only(tmp_path):
    ShardedTensor.from_list(arrays()).save(tmp_path / "a")
    with pytest.raises(ValueError, match="read-only"):
        ShardedTensor.load(tmp_path / "a", mmap_mode="r")[0][:] = 0


def test_an_empty_list_is_refused():
    with pytest.raises(ShardError, match="empty list"):
        ShardedTensor.from_list([])


def test_an_index_past_the_end_is_an_index_error():
    with pytest.raises(IndexError, match="3 items"):
        ShardedTensor.from_list(arrays())[3]


@pytest.mark.parametrize("starts", [[0, 3], [1, 8], [0, 5, 3, 8], [0, 5, 4, 8], [0]])
def test_offsets_that_do_not_fit_the_rows_are_refused(starts):
    with pytest.raises(ShardError, match="starts"):
        ShardedTensor(np.zeros((8, 2)), np.array(starts))


@pytest.mark.parametrize("suffix", ["_data.npy", "_starts.npy"])
@pytest.mark.parametrize("cut", [10, 200])
def test_a_truncated_file_is_refused_by_name(tmp_path, suffix, cut):
    write(tmp_path / "train_0", arrays((30, 40)))
    file = tmp_path / f"train_0{suffix}"
    file.write_bytes(file.read_bytes()[:-cut] if cut < 100 else file.read_bytes()[:20])
    with pytest.raises(ShardError, match=rf"train_0{suffix}.*truncated .*expected \d+"):
        ShardedTensor.load(tmp_path / "train_0", mmap_mode="r")


def test_a_file_longer_than_it_states_is_refused(tmp_path):
    write(tmp_path / "train_0", arrays())
    with open(tmp_path / "train_0_data.npy", "ab") as file:
        file.write(b"more")
    with pytest.raises(ShardError, match="196 bytes, expected 192"):
        ShardedTensor.load(tmp_path / "train_0")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ShardError, match="train_7_data.npy: no such shard file"):
        ShardedTensor.load(tmp_path / "train_7")


def test_a_file_of_pickled_objects_is_refused(tmp_path):
    ShardedTensor.from_list(arrays()).save(tmp_path / "a")
    np.save(tmp_path / "a_data.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(ShardError, match="pickled objects"):
        ShardedTensor.load(tmp_path / "a")


def test_writer_and_from_list_write_the_same_bytes(tmp_path):
    ShardedTensor.from_list(arrays()).save(tmp_path / "a")
    write(tmp_path / "b", arrays())
    for suffix in ("_data.npy", "_starts.npy"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_writer_enters_counts_checksums_and_passport_in_the_manifest(tmp_path):
    write(tmp_path / "train_0", arrays(), passport=PASSPORT)
    write(tmp_path / "train_1", arrays(), passport=PASSPORT)
    entry = json.loads((tmp_path / MANIFEST).read_text())["shards"]["train_0"]
    assert (entry["items"], entry["rows"], entry["dtype"], entry["row_shape"]) == (3, 8, "float16", [4])
    assert entry["passport"] == PASSPORT
    assert entry["sha256"]["train_0_data.npy"] == file_sha256(tmp_path / "train_0_data.npy")
    assert sorted(read_manifest(tmp_path)) == ["train_0", "train_1"]


def test_writer_casts_to_the_asked_dtype(tmp_path):
    write(tmp_path / "a", arrays(dtype=np.float64), dtype="float16")
    assert ShardedTensor.load(tmp_path / "a").data.dtype == np.float16


def test_an_interrupted_writer_leaves_the_old_shard_whole(tmp_path):
    write(tmp_path / "a", arrays())
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "a") as writer:
        writer.append(arrays()[0])
        raise KeyboardInterrupt
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_writer_without_items_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(ShardError, match="at least one item"), ShardWriter(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())


def test_writer_refuses_rows_of_another_shape(tmp_path):
    with pytest.raises(ShardError, match=r"item 1 has shape \(3, 5\), expected rows of shape \(4,\)"):
        write(tmp_path / "a", [*arrays((2,)), *arrays((3,), width=5)])


def test_writer_refuses_values_that_overflow_the_stored_type(tmp_path):
    with pytest.raises(ShardError, match="NaN or infinity"), np.errstate(over="ignore"):
        write(tmp_path / "a", [np.full((1, 4), 1e6)], dtype="float16")


def test_writer_holds_one_array_at_a_time(tmp_path):
    tracemalloc.start()
    with ShardWriter(tmp_path / "a") as writer:
        for _ in range(32):
            writer.append(np.ones((1024, 256), np.float32))  # 1 MiB each
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20


def test_a_shard_that_contradicts_its_manifest_is_refused(tmp_path):
    write(tmp_path / "a", arrays((3, 5)))
    manifest = (tmp_path / MANIFEST).read_text()
    ShardedTensor.from_list(arrays((3, 4))).save(tmp_path / "a")
    (tmp_path / MANIFEST).write_text(manifest)
    with pytest.raises(ShardError, match=r"rows 7 \(manifest: 8\)"):
        ShardedTensor.load(tmp_path / "a")


def test_saving_over_a_listed_shard_refreshes_the_manifest(tmp_path):
    write(tmp_path / "a", arrays((3, 5)))
    ShardedTensor.from_list(arrays((3, 4))).save(tmp_path / "a")
    assert read_manifest(tmp_path)["a"]["rows"] == len(ShardedTensor.load(tmp_path / "a").data) == 7


def test_a_damaged_manifest_is_named(tmp_path):
    write(tmp_path / "a", arrays())
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ShardError, match="not a shard manifest"):
        ShardedTensor.load(tmp_path / "a")


def test_cache_opens_a_shard_once_and_closes_the_least_recent(tmp_path):
    for name in "abc":
        write(tmp_path / name, arrays())
    cache = ShardCache(limit=2)
    first = cache(f"{tmp_path}/a")
    assert cache(f"{tmp_path}/a") is first
    cache(f"{tmp_path}/b"), cache(f"{tmp_path}/a"), cache(f"{tmp_path}/c")
    assert cache(f"{tmp_path}/a") is first
    assert list(cache._open) == [f"{tmp_path}/c", f"{tmp_path}/a"]


@pytest.mark.parametrize(
    ("allowed", "raised", "held"),
    [((256, 4096), 4096, 1024), ((1024, -1), 8192, 2048), ((65536, 65536), 65536, 16384)],
)
def test_a_cache_holds_what_a_raised_limit_of_open_files_allows(monkeypatch, allowed, raised, held):
    limits = [allowed]
    monkeypatch.setattr(shardcache.resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(shardcache.resource, "setrlimit", lambda kind, limit: limits.append(limit))
    assert ShardCache().limit == held and limits[-1] == (raised, allowed[1])


def test_a_pickled_cache_arrives_empty(tmp_path):
    write(tmp_path / "a", arrays())
    cache = ShardCache(limit=7, scattered=True)
    cache(f"{tmp_path}/a")
    copy = pickle.loads(pickle.dumps(cache))
    assert (copy.limit, copy.scattered, len(copy._open)) == (7, True, 0)


def resident_pages(path, shard):
    """Which pages of a mapped shard file are in memory."""
    library = ctypes.CDLL(None, use_errno=True)
    mapped = shard.data.base
    pages = -(-Path(f"{path}_data.npy").stat().st_size // mmap.PAGESIZE)
    address = shard.data.ctypes.data - mapped.offset % mmap.PAGESIZE
    vector = (ctypes.c_ubyte * pages)()
    if library.mincore(ctypes.c_void_p(address), ctypes.c_size_t(pages * mmap.PAGESIZE), vector):
        pytest.skip("mincore does not tell here")
    return np.frombuffer(vector, np.uint8) & 1 == 1


def test_reading_ahead_fetches_the_pages_of_the_item_and_no_others(tmp_path):
    path = tmp_path / "a"
    write(path, arrays((2000, 40, 60000, 300), width=64))
    with open(f"{path}_data.npy", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    shard = ShardedTensor.load(path, mmap_mode="r")
    shard.expect_scattered_reads()
    before = resident_pages(path, shard)  # the header's
    if before.mean() > 0.1:
        pytest.skip("this file system keeps its files in memory")
    shard.read_ahead(2)
    begin, end = (128 + 128 * shard.starts[2:4]) // mmap.PAGESIZE
    deadline = time.monotonic() + 10
    while not (found := resident_pages(path, shard))[begin : end + 1].all() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found[begin : end + 1].all() and not (found & ~before)[:begin].any()


def test_reading_ahead_of_an_array_in_memory_or_of_an_empty_item_does_nothing(tmp_path):
    write(tmp_path / "a", arrays((3, 0, 5)))
    assert ShardedTensor.load(tmp_path / "a").read_ahead(0) is None
    assert ShardedTensor.load(tmp_path / "a", mmap_mode="r").read_ahead(1) is None


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.asfortranarray(np.ones((4, 3), np.float16)), "stored column by column"),
        (np.ones((4, 3), ">f4"), "of another order"),
    ],
)
def test_rows_in_another_order_of_bytes_or_memory_are_refused(tmp_path, array, found):
    ShardedTensor.from_list([np.ones((4, 3), np.float16)]).save(tmp_path / "s")
    np.save(tmp_path / "s_data.npy", array)
    with pytest.raises(ShardError, match=f"s_data.npy.*{found}"):
        ShardedTensor.load(tmp_path / "s", mmap_mode="r")


def test_a_shard_cut_while_it_is_open_is_named_before_it_is_read(tmp_path):
    ShardedTensor.from_list([np.ones((2000, 4), np.float32)] * 2).save(tmp_path / "a")
    shard = ShardedTensor.load(tmp_path / "a", mmap_mode="r")
    assert shard[1].sum() == 8000
    with open(tmp_path / "a_data.npy", "r+b") as file:
        file.truncate(5000)
    with pytest.raises(ShardError, match=r"a_data\.npy: 5000 bytes, 64128 when it was opened"):
        shard[1]


def later(path):
    """A time that no other write has, on file systems with coarse clocks, too."""
    os.utime(path, ns=(1, 1 + path.stat().st_mtime_ns))


@pytest.fixture
def looks_always(monkeypatch):
    monkeypatch.setattr("mmpt.utils.shardedtensor.LOOK_S", 0.0)


def test_a_shard_that_another_of_its_size_replaces_while_it_is_open_is_named(tmp_path, looks_always):
    for name, value in (("a", 1), ("b", 2)):
        ShardedTensor.from_list([np.full((3, 4), value, np.float32)]).save(tmp_path / name)
    shard = ShardedTensor.load(tmp_path / "a", mmap_mode="r")
    assert shard[0].sum() == 12
    (tmp_path / "b_data.npy").replace(tmp_path / "a_data.npy")
    later(tmp_path / "a_data.npy")
    with pytest.raises(ShardError, match=r"a_data\.npy: not the file that was opened"):
        shard[0]


def test_a_shard_that_a_copy_of_its_own_replaces_is_read_on_where_a_manifest_says_so(tmp_path, looks_always):
    with ShardWriter(tmp_path / "a") as writer:
        writer.append(np.ones((3, 4), np.float32))
    shard, path = ShardedTensor.load(tmp_path / "a", mmap_mode="r"), tmp_path / "a_data.npy"
    path.write_bytes(path.read_bytes())
    later(path)
    assert shard[0].sum() == 12


def test_a_shard_that_was_replaced_while_a_cache_had_closed_it_is_named(tmp_path):
    for name in "ab":
        ShardedTensor.from_list([np.ones((3, 4), np.float32)]).save(tmp_path / name)
    cache = ShardCache(limit=1)
    assert [len(cache(str(tmp_path / name))[0]) for name in "ab"] == [3, 3]
    later(tmp_path / "a_data.npy")
    with pytest.raises(ShardError, match=r"a_data\.npy: not the file that was opened"):
        cache(str(tmp_path / "a"))[0]


CUT_WHILE_READ = """
import sys
from mmpt.utils import ShardedTensor
shard = ShardedTensor.load(sys.argv[1], mmap_mode="r")
rows = shard[1]
with open(sys.argv[1] + "_data.npy", "r+b") as file:
    file.truncate(5000)
rows.sum()
"""


def test_a_process_that_dies_of_a_file_cut_while_it_is_read_names_the_file(tmp_path):
    ShardedTensor.from_list([np.ones((4000, 4), np.float32)] * 2).save(tmp_path / "a")
    died = subprocess.run(
        [sys.executable, "-c", CUT_WHILE_READ, str(tmp_path / "a")], capture_output=True, text=True
    )
    assert died.returncode == -signal.SIGBUS
    assert f"{tmp_path}/a_data.npy: process" in died.stderr


@pytest.mark.parametrize("name", ["../x", "/abs", "a/b", "a\nb", "", 7])
def test_an_index_of_shards_holds_names_and_never_paths(tmp_path, name):
    save_plain_pickle({0: ["a", name]}, tmp_path / "train_meta.pkl")
    with pytest.raises(ValueError, match=r"train_meta\.pkl: shard 0, item 1: .* is no id"):
        load_index(tmp_path / "train_meta.pkl")


@pytest.mark.parametrize(
    "rows", [np.ones((3, 4), int), np.array([["a"]]), np.ones((3, 0)), np.ones(3), np.ones((2, 2), complex)]
)
def test_features_of_a_video_are_floating_point_rows(tmp_path, rows):
    np.save(tmp_path / "v.npy", rows)
    with pytest.raises(ValueError, match=r"v\.npy: .* of shape .*, expected floating-point \(seconds, D\)"):
        load_feature(tmp_path / "v.npy")


def test_a_header_that_states_something_else_than_numbers_as_its_shape_is_refused(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4)}\n"
    magic = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
    (tmp_path / "v.npy").write_bytes(magic + header + bytes(16))
    with pytest.raises(ValueError, match=r"v\.npy: not a whole .npy file \(its header states the shape"):
        load_feature(tmp_path / "v.npy")


def test_features_stored_column_by_column_are_the_same_features(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(tmp_path / "v.npy", np.asfortranarray(rows))
    for mode in (None, "r"):
        np.testing.assert_array_equal(load_feature(tmp_path / "v.npy", mode), rows)


def test_a_manifest_names_the_two_files_of_a_shard_alone(tmp_path):
    with ShardWriter(tmp_path / "a") as writer:
        writer.append(np.ones((2, 3), np.float32))
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace("a_starts.npy", "../x"))
    with pytest.raises(ShardError, match=r"shard a: sha256 is of .*\.\./x, expected its two files"):
        read_manifest(tmp_path)
