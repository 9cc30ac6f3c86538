"""Small videos with sound, and a training run on them as files."""

from __future__ import annotations

import colorsys
import json
import subprocess
import sys

import numpy as np
import pytest

import locallaunch
import mmpt
from mmpt.checkpoints.weights import read_state_dict
from mmpt.demo.toy_runs import move_folders
from mmpt.media.audio import read_audio
from mmpt.media.video import probe, read_clip
from mmpt.synthetic.clips import COLOURS
from mmpt_cli.make_clips import main
from tests.conftest import ROOT
from tests.fairseq_plugin.runs import launch

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "toy_clips"  # as toy files name it
    main(["--out", str(folder), "--videos", "4", "--seconds", "2", "--actions", "3"])
    return folder


def test_files_are_videos_with_sound_of_the_asked_length(clips):
    files = sorted(path.relative_to(clips).as_posix() for path in clips.glob("[tv]*/*.mkv"))
    assert files == [
        "train/train000.mkv",
        "train/train001.mkv",
        "train/train002.mkv",
        "train/train003.mkv",
        "val/val000.mkv",
    ]
    info = probe(clips / files[0])
    assert info.has_audio and info.duration_s == pytest.approx(2, abs=0.05)


def test_what_is_said_of_a_clip_is_what_it_shows(clips):
    rows = {row["video_id"]: row for row in json.loads((clips / "train.json").read_text())}
    asked = {row["video_id"]: row for row in json.loads((clips / "train_questions.json").read_text())}
    assert rows.keys() == asked.keys() == {f"train/train{n:03}" for n in range(4)}
    for name, row in rows.items():
        frames = read_clip(clips / f"{name}.mkv", 0, 16, 8).astype(int)
        places = frames.min(axis=3).mean(axis=2).argmax(axis=1)
        falls = np.median(np.diff(places)) > 0  # the bar jumps back once in a while
        colour, bar = asked[name]["answer"]
        assert bar == ("it falls" if falls else "it rises") and all(
            bar[3:] in text for text in row["caption"]
        )
        hue = colorsys.rgb_to_hsv(*np.median(frames[:, ::4, ::4].reshape(-1, 3), axis=0) / 255)[0]
        assert colour == COLOURS[round(hue * len(COLOURS)) % len(COLOURS)]


def test_a_seed_repeats_its_videos_and_another_draws_others(clips, tmp_path):
    def first(seed):
        main(
            [
                "--out",
                str(tmp_path / seed),
                "--videos",
                "1",
                "--seconds",
                "1",
                "--actions",
                "1",
                "--seed",
                seed,
            ]
        )
        return read_audio(tmp_path / seed / "train/train000.mkv", 8000)

    np.testing.assert_array_equal(first("0"), read_audio(clips / "train/train000.mkv", 8000)[:8000])
    assert not np.array_equal(first("1"), first("0"))


def test_sound_gets_higher_while_the_bar_rises(clips):
    path = clips / "train/train001.mkv"
    frames, wave = read_clip(path, 0, 16, 8).astype(int), read_audio(path, 8000)
    rows = frames.min(axis=3).mean(axis=2).argmax(axis=1)  # the bar alone is white
    crossings = [np.count_nonzero(np.diff(np.signbit(part))) for part in wave[:16000].reshape(16, 1000)]
    steady = np.abs(np.diff(rows)) < 20  # not where the bar jumps from one end to the other
    assert np.corrcoef(np.diff(rows)[steady], np.diff(crossings)[steady])[0, 1] < 0 and np.ptp(rows) > 5


@pytest.mark.parametrize(
    ("project", "flags"),
    [
        (
            "retri/gdt/raw_k400_av",
            "--fp16 --num-workers 10 --batch-size 8 --lr 0.01 --optimizer sgd --momentum 0.9 "
            "--weight-decay 1e-05",
        ),
        ("toy/raw_av", "--num-workers 0 --batch-size 8 --lr 0.0005 --optimizer adam --weight-decay 1e-05"),
    ],
)
def test_raw_clips_start_with_eight_videos_a_process(project, flags, capsys):
    assert locallaunch.main([f"projects/{project}.yaml", "--jobtype", "local_single", "--dryrun"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    start = (
        f"launching fairseq-train projects/{project}.yaml --user-dir mmpt --task mmtask --arch mmarch "
        "--criterion mmloss "
    )
    assert line.startswith(start) and flags in line


def test_fairseq_trains_on_the_files(clips, tmp_path):
    settings = {
        "dataset.train_path": clips / "train",
        "dataset.val_path": clips / "val",
        "fairseq.dataset.batch_size": 8,
        "fairseq.optimization.max_epoch": 1,
        "fairseq.common.log_interval": 1,
        "fairseq.checkpoint.save_dir": tmp_path,
        "fairseq.checkpoint.no_save_optimizer_state": "true",
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [
        sys.executable,
        "locallaunch.py",
        "projects/toy/raw_av.yaml",
        "--jobtype",
        "local_single",
        *words,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["num_updates"] for line in lines if "train_inner" in json.dumps(line)] == [1, 2]
    names = read_state_dict(tmp_path / "checkpoint_last.pt")
    assert "video_network.base.stem.0.weight" in names and "audio_network.base.conv1.weight" in names


PAIRS = "dataset.num_video_per_batch=2"
FEW = "fairseq.dataset.batch_size=2"
ACTIONS = [f"test_raw_actions_{how}" for how in ("nn", "probe", "fewshot")]
RAW_RUNS = {  # name -> training, its settings, tests of what it leaves
    "GDT h1": ("raw_av", ["loss.hypothesis=1", PAIRS], []),
    "GDT h4": ("raw_av", ["loss.hypothesis=4", PAIRS], []),
    "GDT h8": ("raw_av", ["loss.hypothesis=8", PAIRS], ACTIONS),
    "GDT words": ("raw_text", [PAIRS], ["test_raw_text"]),
    "STiCA": ("raw_stica", [FEW], []),
    "fine-tuning": (
        "raw_actions",
        [FEW, "dataset.train_clips=1", "model.sync_bn=true"],
        ["test_raw_actions"],
    ),
    "GRAM": ("gram/raw", [FEW], ["gram/test_raw", "gram/test_raw_captions"]),
    "GRAM answers": (
        "gram/raw_answers",
        [FEW, "fairseq.checkpoint.restore_file=null"],
        ["gram/test_raw_answers"],
    ),
    "GRAM conditions": ("gram/raw_conditions", [FEW, "dataset.condition_len=12"], ["gram/test_raw"]),
}


def moved(name, clips):
    """A toy file, and the settings by which it reads these videos."""
    path = str(ROOT / f"projects/toy/{name}.yaml")
    return path, move_folders(path, {"data": str(clips.parent)})


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("run", RAW_RUNS)
def test_every_raw_file_trains_on_one_and_two_processes_and_is_tested(clips, tmp_path, run, processes):
    training, own, tests = RAW_RUNS[run]
    path, settings = moved(training, clips)
    settings += [
        *own,
        f"fairseq.checkpoint.save_dir={tmp_path}",
        "fairseq.dataset.disable_validation=true",
        "fairseq.optimization.max_update=1",
        "fairseq.common.log_interval=1",
    ]
    command = [sys.executable, "-m", "mmpt_cli", "train", path, "--cpu", "--nproc", str(processes)]
    launch([*command, *(word for setting in settings for word in ("--set", setting))])
    (line,) = [
        json.loads(text)
        for text in (tmp_path / "metrics.jsonl").read_text().splitlines()
        if "train_inner" in text
    ]
    assert np.isfinite(float(line["loss"])) and line["num_updates"] == 1
    for name in tests:
        path, settings = moved(name, clips)
        settings += ["eval.bootstrap=20", *(["eval.shots=[1]"] if name.endswith("fewshot") else [])]
        report = mmpt.evaluate(path, tmp_path / "checkpoint_last.pt", settings, device="cpu")
        assert report.result.values and all(np.isfinite(value) for value in report.result.values.values())


def test_every_raw_toy_file_is_tried_here():
    here = {name for training, _, tests in RAW_RUNS.values() for name in (training, *tests)}
    files = [*ROOT.glob("projects/toy/*raw_*.yaml"), *ROOT.glob("projects/toy/gram/*raw*.yaml")]
    assert {path.relative_to(ROOT / "projects/toy").with_suffix("").as_posix() for path in files} == here
