"""The extraction commands: real videos, a kill in the middle, several processes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from mmpt.backbones.audio import AudioResNet
from mmpt.backbones.r2plus1d import R2Plus1D
from mmpt.processors.store.packing import read_meta
from mmpt.utils import ShardedTensor
from tests.conftest import ROOT, real_path
from tests.media.media import write_video

pytest.importorskip("av")
N_VIDEOS = 12


def script(folder):
    """A script's module, from its file."""
    spec = importlib.util.spec_from_file_location(folder, ROOT / "scripts" / folder / "extract.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file with video and audio networks under the names of published checkpoints."""
    torch.manual_seed(0)
    networks = {"video_network.base.": R2Plus1D(), "audio_network.base.": AudioResNet()}
    state = {
        f"module.{prefix}{k}": v
        for prefix, network in networks.items()
        for k, v in network.state_dict().items()
    }
    path = tmp_path_factory.mktemp("weights") / "gdt.pth"
    torch.save({"state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def options(checkpoint):
    return [
        "--backbone",
        "r2plus1d",
        "--weights",
        str(checkpoint),
        "--fps",
        "4",
        "--size",
        "32",
        "--device",
        "cpu",
        "--batch-size",
        "8",
    ]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Videos of different lengths, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for n in range(N_VIDEOS):
        write_video(
            folder / f"v{n:02}.mp4",
            range(0, 1000 * (1 + n % 5), 100),
            shade=lambda i, n=n: (7 * i + 20 * n) % 250,
        )
    (folder / "broken.mp4").write_text("not a video")
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the processes beside this one have it: sums round otherwise on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(videos, options, tmp_path_factory):
    """Features of an uninterrupted run of one process."""
    out = tmp_path_factory.mktemp("whole")
    script("video_feature_extractor").main([str(videos), str(out), *options])
    return {path.stem: np.load(path) for path in out.glob("*.npy")}


@pytest.fixture(scope="module")
def launch():
    """`launch(arguments, environment)`: a process of its own that runs the command. They fork from one that
    has torch loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.scripts.test_extract"])

    def start(arguments, **environment):
        process = context.Process(
            target=run_command, args=([str(x) for x in arguments], environment), daemon=True
        )
        process.start()
        return process

    return start


def run_command(arguments, environment):
    os.environ.update(environment)
    torch.set_num_threads(1)
    script("video_feature_extractor").main(arguments)


def test_killed_run_goes_on_and_ends_with_the_same_features(launch, videos, options, whole, tmp_path):
    process = launch([videos, tmp_path, *options, "--threads", "1"])
    while process.is_alive() and len(list(tmp_path.glob("v*.npy"))) < 2:
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    done = {path.name for path in tmp_path.glob("v*.npy")}
    assert 2 <= len(done) < N_VIDEOS
    script("video_feature_extractor").main([str(videos), str(tmp_path), *options])
    assert {path.stem for path in tmp_path.glob("*.npy")} == whole.keys() and len(whole) == N_VIDEOS
    for name, expected in whole.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), expected)


def test_two_processes_of_a_slurm_array_write_the_shards_of_one(launch, videos, options, whole, tmp_path):
    array = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "0"}
    arguments = [videos, tmp_path, *options, "--shards", "5"]
    processes = [launch(arguments, **array, SLURM_ARRAY_TASK_ID=str(rank)) for rank in (0, 1)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    meta = read_meta(tmp_path, "train")
    assert [video for shard in meta.values() for video in shard] == sorted(whole) and len(meta) == 3
    for shard, ids in meta.items():
        features = ShardedTensor.load(tmp_path / f"train_{shard}")
        for row, video in enumerate(ids):
            np.testing.assert_array_equal(features[row], whole[video])
    failures = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("failures_*.json"))]
    assert len(failures) == 2 and [*failures[0], *failures[1]] == ["broken"]


def test_real_videos_are_extracted_and_what_is_damaged_is_listed(options, checkpoint, tmp_path, capsys):
    script("video_feature_extractor").main([str(real_path("videos")), str(tmp_path), *options])
    assert "5 extracted, 0 were there, 0 failed" in capsys.readouterr().out
    damage = json.loads((tmp_path / "damage.json").read_text())
    assert list(damage) == ["corrupted"] and 0 < damage["corrupted"]["concealed_s"] < 0.5
    features = np.load(tmp_path / "weightlifter.npy")
    assert features.shape == (19, 512) and features.dtype == np.float16
    passport = json.loads((tmp_path / "passport.json").read_text())
    assert (passport["frames_per_second"], passport["pixels"], passport["normalised"]) == (4, 32, True)
    assert passport["weights_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_reversed_extraction_of_one_second_reads_its_frames_backwards(videos, options, whole, tmp_path):
    main = script("video_feature_extractor").main
    (tmp_path / "one").mkdir()
    shades = list(range(0, 250, 63))
    write_video(tmp_path / "one" / "forth.mkv", range(0, 1000, 250), shade=lambda i: shades[i])
    write_video(tmp_path / "one" / "back.mkv", range(0, 1000, 250), shade=lambda i: shades[3 - i])
    main([str(tmp_path / "one"), str(tmp_path / "plain"), *options])
    main([str(tmp_path / "one"), str(tmp_path / "reversed"), *options, "--reverse"])
    forth, back = np.load(tmp_path / "reversed" / "forth.npy"), np.load(tmp_path / "plain" / "back.npy")
    assert np.abs(forth - back).max() < 0.02 < np.abs(forth - np.load(tmp_path / "plain" / "forth.npy")).max()


def test_features_made_in_another_way_are_not_mixed(videos, options, tmp_path):
    main = script("video_feature_extractor").main
    main([str(videos), str(tmp_path), *options, "--rank", "0", "--world-size", str(N_VIDEOS)])
    with pytest.raises(ValueError, match="frames_per_second 4 there, 5 now"):
        main([str(videos), str(tmp_path), *options, "--fps", "5"])


def test_audio_of_real_videos_is_extracted_second_by_second(checkpoint, tmp_path, capsys):
    script("audio_feature_extractor").main(
        [str(real_path("videos")), str(tmp_path), "--weights", str(checkpoint), "--device", "cpu"]
    )
    assert "2 extracted, 0 were there, 3 failed" in capsys.readouterr().out
    assert np.load(tmp_path / "nasa_with_audio.npy").shape == (13, 512)
    assert "holds no audio track" in (tmp_path / "failures.json").read_text()


def test_wrong_weights_end_in_one_sentence(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="Is it another network"):
        script("video_feature_extractor").main(
            [
                str(tmp_path),
                str(tmp_path / "out"),
                "--backbone",
                "r2plus1d",
                "--weights",
                str(tmp_path / "w.pth"),
            ]
        )
