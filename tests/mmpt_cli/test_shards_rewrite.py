"""Splitting, merging, counting and sealing shards."""

import json

import numpy as np
import pytest

from mmpt.processors.store import rewrite as shards_rewrite
from mmpt.utils import ShardedTensor, load_plain_pickle, save_plain_pickle
from mmpt.utils.shardedtensor import MANIFEST, read_manifest
from mmpt_cli.shards import main
from tests.processors.helpers import how2


@pytest.fixture
def folder(tmp_path):
    how2(tmp_path / "source")
    return tmp_path / "source"


def contents(folder, split="train"):
    """Id -> features, times, tokens."""
    result = {}
    for shard, ids in load_plain_pickle(folder / f"{split}_meta.pkl").items():
        parts = [ShardedTensor.load(folder / name.format(shard)) for name in NAMES]
        for row, video in enumerate(ids):
            result[video] = [part[row] for part in parts]
    return result


NAMES = ("train_{}", "text.train_{}.startends", "text.train_{}.caps_ids")


def assert_same(found, expected):
    assert list(found) == list(expected)
    for video, arrays in expected.items():
        for got, array in zip(found[video], arrays, strict=True):
            np.testing.assert_array_equal(got, array)
            assert got.dtype == array.dtype


def run(*words):
    return main([str(word) for word in words])


def test_split_keeps_every_row_of_features_and_text_in_order(folder, tmp_path):
    assert run("split", folder, tmp_path / "out", "--shard-size", 3) == 0
    assert {k: len(ids) for k, ids in load_plain_pickle(tmp_path / "out/train_meta.pkl").items()} == {
        0: 3,
        1: 3,
        2: 3,
        3: 1,
    }
    assert_same(contents(tmp_path / "out"), contents(folder))
    assert run("verify", tmp_path / "out") == 0


def test_split_takes_the_videos_of_a_list_in_its_order(folder, tmp_path):
    (tmp_path / "some.lst").write_text("v7\nv1\nnobody\nv4\n")
    run("split", folder, tmp_path / "out", "--list", tmp_path / "some.lst")
    whole = contents(folder)
    assert_same(contents(tmp_path / "out"), {video: whole[video] for video in ("v7", "v1", "v4")})


def test_merge_undoes_a_split_and_takes_a_repeated_video_once(folder, tmp_path, capsys):
    for name, ids in (("a", "v0 v1 v2 v3"), ("b", "v3 v4 v5 v6 v7 v8 v9")):
        (tmp_path / f"{name}.lst").write_text("\n".join(ids.split()))
        run("split", folder, tmp_path / name, "--list", tmp_path / f"{name}.lst")
    assert run("merge", tmp_path / "a", tmp_path / "b", tmp_path / "out") == 0
    assert_same(contents(tmp_path / "out"), contents(folder))
    assert "train: 1 videos are there more than once" in capsys.readouterr().err


def test_a_split_that_was_stopped_goes_on_and_leaves_no_index_before_its_end(folder, tmp_path, monkeypatch):
    written = []
    writer = shards_rewrite.ShardWriter

    def stopping(path, **options):
        written.append(path.name)
        if len(written) == 5:
            raise KeyboardInterrupt
        return writer(path, **options)

    monkeypatch.setattr(shards_rewrite, "ShardWriter", stopping)
    with pytest.raises(KeyboardInterrupt):
        run("split", folder, tmp_path / "out", "--shard-size", 3)
    assert not (tmp_path / "out/train_meta.pkl").exists()
    run("split", folder, tmp_path / "out", "--shard-size", 3)
    assert len(written) == len(set(written)) + 1  # the interrupted one twice, no other
    assert_same(contents(tmp_path / "out"), contents(folder))


def test_going_on_with_other_arguments_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        shards_rewrite, "ShardWriter", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        run("split", folder, tmp_path / "out", "--shard-size", 3)
    with pytest.raises(ValueError, match="begun with other arguments"):
        run("split", folder, tmp_path / "out", "--shard-size", 4)


def test_a_target_that_holds_shards_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="already holds shards"):
        run("split", folder, folder)


def test_features_of_different_backbones_do_not_mix(folder, tmp_path):
    how2(tmp_path / "other")
    manifest = json.loads((tmp_path / "other" / MANIFEST).read_text())
    for entry in manifest["shards"].values():
        entry["passport"] = {"backbone": "another"}
    (tmp_path / "other" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match='different passports.*"another"'):
        run("merge", folder, tmp_path / "other", tmp_path / "out")


def test_folders_with_and_without_tokens_do_not_mix(folder, tmp_path):
    how2(tmp_path / "other")
    for file in (tmp_path / "other").glob("text.*"):
        file.unlink()
    (tmp_path / "other" / MANIFEST).unlink()
    with pytest.raises(
        ValueError, match=r"text.train_\*.caps_ids, text.train_\*.startends: in some of .* only"
    ):
        run("merge", folder, tmp_path / "other", tmp_path / "out")


def test_stats_count_shards_items_rows_and_ids(folder, capsys):
    assert run("stats", folder, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (
        report["train_*"]["shards"] == 3
        and report["train_*"]["items"] == 10
        and report["train_*"]["rows"] == 600
    )
    assert report["text.train_*.caps_ids"]["rows"] == 120 and report["text.train_*.caps_ids"]["row"] == [
        "int32[8]"
    ]
    assert report["train_meta.pkl"] == {"ids": 10, "different ids": 10}


def test_sealing_enters_old_shards_with_their_checksums(folder):
    listed = read_manifest(folder)
    (folder / MANIFEST).unlink()
    assert run("verify", folder, "--seal") == 0
    sealed = read_manifest(folder)
    assert {name: entry["sha256"] for name, entry in sealed.items()} == {
        name: entry["sha256"] for name, entry in listed.items()
    }


def test_damaged_shards_are_not_sealed(folder):
    (folder / MANIFEST).unlink()
    file = folder / "train_0_data.npy"
    file.write_bytes(file.read_bytes()[:-1])
    assert run("verify", folder, "--seal") == 1 and not read_manifest(folder)


def test_verify_resumes_without_the_shards_that_passed(folder, capsys):
    run("verify", folder, "--resume")
    save_plain_pickle(load_plain_pickle(folder / "train_meta.pkl"), folder / "train_meta.pkl")
    file = folder / "train_2_data.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    assert run("verify", folder, "--resume") == 1
    out = capsys.readouterr().out
    assert "train_2_data.npy: its SHA-256" in out and "17 had passed before" in out
