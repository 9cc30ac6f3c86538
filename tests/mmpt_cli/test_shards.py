import re

import numpy as np
import pytest

from mmpt.utils import ShardedTensor, save_plain_pickle
from mmpt.utils.shardedtensor import MANIFEST
from mmpt_cli.shards import main
from tests.processors.helpers import how2


@pytest.fixture
def folder(tmp_path):
    how2(tmp_path)
    return tmp_path


def verify(folder, capsys):
    status = main(["verify", str(folder)])
    return status, capsys.readouterr().out


def test_a_good_folder_passes(folder, capsys):
    status, out = verify(folder, capsys)
    assert status == 0 and "18 shards, 0 problems" in out


def test_a_flipped_bit_is_found_by_its_checksum(folder, capsys):
    file = folder / "text.train_1.caps_ids_data.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    status, out = verify(folder, capsys)
    assert status == 1 and "text.train_1.caps_ids_data.npy: its SHA-256" in out and "1 problems" in out


def test_a_truncated_file_is_named(folder, capsys):
    file = folder / "train_2_data.npy"
    file.write_bytes(file.read_bytes()[:-1])
    status, out = verify(folder, capsys)
    assert status == 1 and "BAD" in out and "train_2_data.npy: truncated" in out


def test_a_lost_file_is_named(folder, capsys):
    (folder / "val_0_starts.npy").unlink()
    assert "val_0_starts.npy: no such shard file" in verify(folder, capsys)[1]


def test_a_shard_that_only_the_manifest_knows_is_named(folder, capsys):
    for file in folder.glob("val_0_*.npy"):
        file.unlink()
    status, out = verify(folder, capsys)
    assert status == 1 and "val_0_data.npy" in out


def test_values_that_are_not_finite_are_named_by_item(folder, capsys):
    (folder / MANIFEST).unlink()
    shard = ShardedTensor.load(folder / "train_0")
    shard.data[shard.starts[2] + 5, 1] = np.nan
    shard.save(folder / "train_0")
    status, out = verify(folder, capsys)
    assert status == 1 and "train_0_data.npy: NaN or infinite values in row 125 (item 2)" in out


def test_old_shards_without_manifest_pass_and_are_counted(folder, capsys):
    (folder / MANIFEST).unlink()
    status, out = verify(folder, capsys)
    assert status == 0 and "18 without checksum" in out


def test_a_meta_pickle_with_other_counts_is_named(folder, capsys):
    save_plain_pickle({0: ["v0"], 1: ["v4", "v5", "v6", "v7"], 9: ["v8"]}, folder / "train_meta.pkl")
    status, out = verify(folder, capsys)
    assert (
        status == 1
        and "train_0_starts.npy: 4 items, but train_meta.pkl lists 1 ids" in out
        and "lists shard 9" in out
    )


def test_a_folder_without_shards_fails(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="no shards"):
        verify(tmp_path, capsys)


def spoil_times(folder, change):
    """Changes the times of captions of shard 1 and writes the shard anew, checksums included."""
    shard = ShardedTensor.load(folder / "text.train_1.startends")
    change(shard)
    shard.save(folder / "text.train_1.startends")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda shard: shard[2][3].__setitem__(1, -1.0), "1 videos have captions that end before .*: v6"),
        (lambda shard: shard[0].__setitem__(slice(None), shard[0][::-1].copy()), "out of order: v4"),
        (lambda shard: shard.data.__imul__(1000), r"44 of 48 captions begin behind .* in milliseconds"),
    ],
    ids=["reversed", "shuffled", "milliseconds"],
)
def test_captions_that_cannot_be_are_named_by_video(folder, capsys, change, found):
    spoil_times(folder, change)
    status, out = verify(folder, capsys)
    assert status == 1 and re.search(f"BAD .*text.train_1.startends: .*{found}", out)


def test_captions_behind_the_features_are_counted(folder, capsys):
    spoil_times(folder, lambda shard: shard[3].__iadd__(40))
    status, out = verify(folder, capsys)
    assert status == 0 and "7 of 48 captions, of 1 videos, begin behind the features" in out and ": v7" in out
