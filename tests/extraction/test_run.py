"""A run of extraction: which files, whose share, passports, packing into shards."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt.backbones.backbone import Backbone
from mmpt.extraction.extract import Job
from mmpt.extraction.run import RunOptions, check_passport, list_jobs, run_extraction, share
from mmpt.media.video import VideoError
from mmpt.processors.store.packing import pack, read_meta
from mmpt.utils import ShardedTensor, save_plain_pickle
from mmpt.utils.shardedtensor import read_manifest


def read(path, damage, max_damage=0.1):
    """As many clips as the number in the name; clip i of file n is n + i / 10."""
    n = int(path.stem[1:])
    if n == 3:
        raise VideoError(f"{path}: damaged")
    yield np.arange(n, dtype=np.float32)[:, None] / 10 + n


@pytest.fixture
def files(tmp_path):
    (tmp_path / "videos").mkdir()
    for n in range(1, 7):
        (tmp_path / "videos" / f"v{n}.mp4").touch()
    return tmp_path / "videos"


def run(files, out, **options):
    backbone = Backbone(lambda clips: clips * 2, read, {"backbone": "double"})
    return run_extraction(files, out, backbone, RunOptions(batch_size=4, **options), {".mp4"})


def test_jobs_of_a_folder_and_of_a_csv(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.mp4", "sub/a.MKV", "note.txt"):
        (tmp_path / name).touch()
    assert [job.video_id for job in list_jobs(tmp_path)] == ["a", "b"]
    (tmp_path / "list.csv").write_text("video_id,path\nx,sub/a.MKV\n,b.mp4\n")
    assert list_jobs(tmp_path / "list.csv") == [
        Job("b", tmp_path / "b.mp4"),
        Job("x", tmp_path / "sub" / "a.MKV"),
    ]


def test_bad_lists_are_explained(tmp_path):
    with pytest.raises(ValueError, match="no files found"):
        list_jobs(tmp_path)
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.mkv").touch()
    with pytest.raises(ValueError, match=r"'a' belongs to .*a\.m.*and to .*a\.m"):
        list_jobs(tmp_path)
    (tmp_path / "list.csv").write_text("name\nx\n")
    with pytest.raises(ValueError, match="expected a column path.*got name"):
        list_jobs(tmp_path / "list.csv")


def test_shares_of_all_processes_are_the_whole_list(tmp_path):
    jobs = [Job(f"v{n}", tmp_path) for n in range(1, 10)]
    assert (
        sorted((job for rank in range(4) for job in share(jobs, rank, 4)), key=lambda job: job.video_id)
        == jobs
    )
    with pytest.raises(ValueError, match="rank=4"):
        share(jobs, 4, 4)


def test_features_of_another_kind_are_not_mixed(tmp_path):
    check_passport(tmp_path, {"backbone": "s3d", "frames_per_second": 30})
    check_passport(tmp_path, {"backbone": "s3d", "frames_per_second": 30})
    with pytest.raises(ValueError, match="frames_per_second 30 there, 16 now"):
        check_passport(tmp_path, {"backbone": "s3d", "frames_per_second": 16})


def test_shards_hold_every_video_in_order_and_no_single_files_stay(files, tmp_path):
    result = run(files, tmp_path / "out", shards=2)
    assert len(result.done) == 5 and result.failed.keys() == {"v3"}
    assert read_meta(tmp_path / "out", "train") == {0: ["v1", "v2"], 1: ["v4", "v5"], 2: ["v6"]}
    shard = ShardedTensor.load(tmp_path / "out" / "train_1")
    np.testing.assert_allclose(shard[0][:, 0], 2 * (4 + np.arange(4) / 10), rtol=1e-3)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npy")) == sorted(
        f"train_{shard}_{part}.npy" for shard in range(3) for part in ("data", "starts")
    )


def test_shards_carry_the_passport_and_failures_their_reason(files, tmp_path):
    run(files, tmp_path / "out", shards=10)
    assert read_manifest(tmp_path / "out")["train_0"]["passport"] == {
        "backbone": "double",
        "stored_as": "float16",
    }
    assert "v3.mp4: damaged" in (tmp_path / "out" / "failures.json").read_text()


def test_packing_waits_for_the_last_process(files, tmp_path):
    run(files, tmp_path / "out", shards=4, rank=1, world_size=2)
    assert read_meta(tmp_path / "out", "train") == {}
    run(files, tmp_path / "out", shards=4, rank=0, world_size=2)
    assert read_meta(tmp_path / "out", "train") == {0: ["v1", "v2", "v4", "v5"], 1: ["v6"]}


def test_later_videos_go_to_further_shards(files, tmp_path):
    run(files, tmp_path / "out", shards=4)
    (files / "v7.mp4").touch()
    result = run(files, tmp_path / "out", shards=4)
    assert result.done == ["v7"] and len(result.skipped) == 5
    assert read_meta(tmp_path / "out", "train") == {0: ["v1", "v2", "v4", "v5"], 1: ["v6"], 2: ["v7"]}


def test_failed_video_that_was_repaired_is_packed(files, tmp_path):
    run(files, tmp_path / "out", shards=9)
    np.save(tmp_path / "out" / "v3.npy", np.ones((1, 1), np.float16))
    run(files, tmp_path / "out", shards=9)
    assert read_meta(tmp_path / "out", "train")[1] == ["v3"]


def test_packing_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    for n in range(4):
        np.save(tmp_path / f"v{n}.npy", np.full((1, 2), n, np.float16))
    ids = [f"v{n}" for n in range(4)]

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmpt.processors.store.packing.save_plain_pickle", stop)
    with pytest.raises(KeyboardInterrupt):
        pack(tmp_path, ids, tmp_path, "train", 2, "float16", {})
    monkeypatch.undo()
    assert pack(tmp_path, ids, tmp_path, "train", 2, "float16", {}) == {}
    assert read_meta(tmp_path, "train") == {0: ["v0", "v1"], 1: ["v2", "v3"]}
    assert ShardedTensor.load(tmp_path / "train_1")[1].tolist() == [[3, 3]]


def test_a_link_to_nowhere_is_listed_so_that_it_is_reported(tmp_path):
    (tmp_path / "v.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "folder.mp4").mkdir()
    assert [job.video_id for job in list_jobs(tmp_path)] == ["v"]


@pytest.mark.parametrize("name", ["../x", "/abs", "a/b", "a\\b"])
def test_an_id_that_is_a_path_is_refused_before_anything_is_written(tmp_path, name):
    (tmp_path / "v.csv").write_text(f"video_id,path\n{name},a.mp4\n")
    with pytest.raises(ValueError, match=r"v\.csv, row 1: .* is no id"):
        list_jobs(tmp_path / "v.csv")
    with pytest.raises(ValueError, match="is no id"):
        Job(name, tmp_path / "a.mp4")


def test_packing_removes_nothing_outside_its_folder(tmp_path):
    features = tmp_path / "features"
    features.mkdir()
    np.save(tmp_path / "precious.npy", np.ones((2, 3), np.float32))
    save_plain_pickle({0: ["../precious"]}, features / "train_meta.pkl")
    with pytest.raises(ValueError, match=r"train_meta\.pkl: shard 0, item 0: '\.\./precious' is no id"):
        pack(features, [], features, "train", 4, "float16", {})
    assert (tmp_path / "precious.npy").exists()
