import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from mmpt.processors.captions import shards as token_shards
from mmpt.processors.store import build as shards_build
from mmpt.processors.store.verify import verify
from mmpt.utils import ShardedTensor, load_plain_pickle
from mmpt.utils.shardedtensor import read_manifest
from tests.conftest import ROOT
from tests.processors.helpers import WordTokenizer, write_json


def script(*parts):
    path = ROOT.joinpath("scripts", *parts)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shard_feature = script("video_feature_extractor", "shard_feature.py")
pretokenization = script("text_token_extractor", "pretokenization.py")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "features").mkdir()
    for i in range(7):
        np.save(tmp_path / "features" / f"v{i}.npy", np.full((i + 1, 3), i, np.float32))
    (tmp_path / "list.lst").write_text("".join(f"v{i}\n" for i in range(7)))
    return tmp_path


def shard(folder: Path, *more):
    shard_feature.main(
        [
            str(folder / "features"),
            str(folder / "list.lst"),
            str(folder / "out"),
            "--split",
            "train",
            "--shard-size",
            "3",
            *more,
        ]
    )
    return load_plain_pickle(folder / "out" / "train_meta.pkl")


def test_features_are_sharded_in_list_order(folder):
    assert shard(folder) == {0: ["v0", "v1", "v2"], 1: ["v3", "v4", "v5"], 2: ["v6"]}
    opened = ShardedTensor.load(folder / "out" / "train_1", mmap_mode="r")
    assert (
        opened.lengths().tolist() == [4, 5, 6] and opened.data.dtype == np.float16 and (opened[1] == 4).all()
    )


def test_the_manifest_carries_the_passport(folder):
    shard(folder, "--backbone", "s3d", "--frames-per-second", "30", "--no-normalised")
    assert read_manifest(folder / "out")["train_0"]["passport"] == {
        "backbone": "s3d",
        "frames_per_second": 30,
        "seconds_per_feature": 1.0,
        "normalised": False,
    }


def test_the_passport_of_the_extractor_is_taken_over_and_can_be_overruled(folder):
    passport = {
        "backbone": "r2plus1d",
        "frames_per_second": 16,
        "seconds_per_feature": 1.0,
        "normalised": False,
        "pixels": 112,
    }
    write_json(folder / "features" / "passport.json", passport)
    shard(folder, "--frames-per-second", "15")
    assert read_manifest(folder / "out")["train_0"]["passport"] == passport | {"frames_per_second": 15}


def test_what_cannot_be_read_is_left_out_and_listed_with_its_reason(folder):
    (folder / "features" / "v0.npy").unlink()
    (folder / "features" / "v1.npy").write_bytes(b"junk")
    np.save(folder / "features" / "v2.npy", np.zeros((0, 3), np.float32))
    np.save(folder / "features" / "v4.npy", np.full((2, 3), np.nan, np.float32))
    np.save(folder / "features" / "v5.npy", np.zeros((2, 5), np.float32))
    assert shard(folder) == {1: ["v3"], 2: ["v6"]}
    lines = dict(
        line.split("\t") for line in (folder / "out" / "train_unreadable.txt").read_text().splitlines()
    )
    assert list(lines) == ["v0", "v1", "v2", "v4", "v5"]
    assert "NaN" in lines["v4"] and "expected rows of shape (3,)" in lines["v5"]
    assert not verify(folder / "out").problems


def test_a_second_run_goes_on_where_the_first_stopped(folder, monkeypatch):
    original, calls = shards_build.write_shard, []

    def stop_after_one(path, *args):
        calls.append(path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(path, *args)

    monkeypatch.setattr(shards_build, "write_shard", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        shard(folder)
    assert len(shard(folder)) == 3 and calls == ["train_0", "train_1", "train_1", "train_2"]


def test_resuming_with_another_list_is_refused(folder):
    shard(folder)
    (folder / "list.lst").write_text("".join(f"v{i}\n" for i in reversed(range(7))))
    with pytest.raises(ValueError, match="holds other videos"):
        shard(folder)


CAPTIONS = {
    "v0": {"start": [0, 2.5], "end": [2, 4], "text": ["a bb ccc", float("nan")]},
    "v1": json.dumps({"start": [1], "end": [2], "text": ["a a a a a a"]}),
    "v3": {"start": [], "end": [], "text": []},
}


@pytest.fixture
def tokens(folder, monkeypatch):
    shard(folder)
    monkeypatch.setattr(token_shards, "load_tokenizer", lambda name, use_fast: WordTokenizer())
    path = write_json(folder / "raw.json", CAPTIONS)

    def run(*more):
        pretokenization.main(
            [
                "--captions",
                path,
                "--tokenizer",
                "hub/tiny-bert",
                "--target",
                str(folder / "out"),
                "--columns",
                "4",
                *more,
            ]
        )
        return folder / "out" / "raw.tiny-bert.train_0"

    return run


def test_captions_become_token_shards_in_the_order_of_the_features(tokens):
    prefix = tokens()
    times, ids = ShardedTensor.load(f"{prefix}.startends"), ShardedTensor.load(f"{prefix}.caps_ids")
    assert times.lengths().tolist() == ids.lengths().tolist() == [2, 1, 0]
    assert times[0].tolist() == [[0, 2], [2.5, 4]] and times.data.dtype == np.float32
    assert (
        ids[0].tolist() == [[11, 12, 13, -1], [-1] * 4]
        and ids[1].tolist() == [[11] * 4]
        and ids.data.dtype == np.int32
    )


def test_token_shards_count_as_many_items_as_the_index(tokens, folder):
    tokens()
    assert not verify(folder / "out").problems
    assert len(read_manifest(folder / "out")) == 3 + 2 * 3


def test_finished_token_shards_are_not_written_again(tokens, monkeypatch):
    prefix = tokens()
    monkeypatch.setattr(
        token_shards, "write_shard", lambda *args: pytest.fail("wrote a finished shard again")
    )
    assert tokens() == prefix


def test_another_width_writes_the_token_shards_again(tokens):
    tokens()
    assert ShardedTensor.load(f"{tokens('--columns', '2')}.caps_ids").data.shape[1] == 2


def test_videos_without_captions_are_counted(tokens, capsys):
    tokens()
    assert "4 videos without captions" in capsys.readouterr().out


def test_the_line_of_the_project_file_is_printed(tokens, capsys):
    prefix = str(tokens()).rpartition(".")[0]
    assert f"dataset.tfeat_dir: {prefix}.\n" in capsys.readouterr().out


def test_tokens_need_the_feature_shards_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="Shard the features first"):
        pretokenization.main(["--captions", "x.pkl", "--tokenizer", "y", "--target", str(tmp_path)])


def test_a_yaml_can_hold_the_arguments(folder, tokens, capsys):
    (folder / "tokens.yaml").write_text(
        f"dataset:\n  bert_name: tiny-bert\n  caption_pkl_path: {folder}/raw.json\n  target_dir: "
        f"{folder}/out\n"
    )
    pretokenization.main([str(folder / "tokens.yaml")])
    assert "raw.tiny-bert.train_*: 3 shards" in capsys.readouterr().out
