"""Evaluation over real annotations with synthetic features whose right answer is known."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest

import mmpt
from mmpt.config import load_config
from mmpt.processors import load_tokenizer
from mmpt.processors.sets.crosstask import read_segments, read_tasks, read_videos
from mmpt_cli import data
from tests.conftest import ROOT, real_path
from tests.oracle import WIDTH, code

SOME_VIDEOS = 24  # of the 457, for measures that compare whole videos
LONGEST = 29  # words of a caption that fit into max_len 64 beside 32 seconds


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """The canonical vocabulary as a tokenizer folder."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text(real_path("tokenizer", "bert-base-uncased-vocab.txt").read_text())
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert", "vocab_size": 30522, "do_lower_case": True})
    )
    return str(folder)


def tokenize(bert, text):
    return load_tokenizer(bert)(text, add_special_tokens=False)["input_ids"][:LONGEST]


def show(events, seconds):
    """(seconds, WIDTH) that show each (code, start, end)."""
    rows = np.zeros((seconds, WIDTH), dtype=np.float32)
    for vector, start, end in events:
        rows[int(start) : max(int(start) + 1, int(np.ceil(end)))] += vector
    return rows


def evaluate(project, model, output, settings):
    sizes = [
        "dataset.max_len=64",
        "dataset.max_video_len=32",
        "eval.bootstrap=0",
        "fairseq.dataset.num_workers=0",
    ]
    config = load_config(
        ROOT / "projects" / f"{project}.yaml", [f"model.model_cls={model}", *sizes, *settings]
    )
    __import__("tests.oracle")
    return mmpt.evaluate(config, device="cpu", out=output / "oracle").result


@pytest.fixture(scope="module")
def youcook(bert, tmp_path_factory):
    """Galleries and features of the validation videos: `right` shows each clip's caption, `shuffled` another
    clip's."""
    root = tmp_path_factory.mktemp("youcook")
    annotations = real_path("youcook2", "youcookii_annotations_trainval.json")
    data.main(["convert", "youcook", str(annotations), str(root / "official.pkl")])
    table = real_path("youcook2", "milnce_validation_youcook.csv")
    data.main(["convert", "youcook", str(annotations), str(root / "milnce.pkl"), "--csv", str(table)])
    database = json.loads(annotations.read_text())["database"]
    videos = {video: entry for video, entry in database.items() if entry["subset"] == "validation"}
    chosen = list(videos)[:SOME_VIDEOS]
    (root / "ids.txt").write_text("\n".join(chosen))
    data.main(
        ["convert", "youcook", str(annotations), str(root / "some.pkl"), "--videos", str(root / "ids.txt")]
    )
    clips = [(video, clip) for video, entry in videos.items() for clip in entry["annotations"]]
    codes = np.stack([code(tokenize(bert, clip["sentence"])) for _, clip in clips])
    for name, order in (
        ("right", np.arange(len(clips))),
        ("shuffled", np.random.default_rng(0).permutation(len(clips))),
    ):
        (root / name).mkdir()
        events = defaultdict(list)
        for (video, clip), vector in zip(clips, codes[order], strict=True):
            events[video].append((vector, *clip["segment"]))
        for video, entry in videos.items():
            np.save(root / name / f"{video}.npy", show(events[video], int(np.ceil(entry["duration"]))))
    return root, annotations


def youcook_settings(youcook, bert, gallery, features):
    root, annotations = youcook
    return [
        f"dataset.test_path={root / gallery}.pkl",
        f"dataset.trainval_annotation={annotations}",
        f"dataset.vfeat_dir={root / features}",
        f"dataset.bert_name={bert}",
        "eval.compat=false",
        "eval.tie_rule=optimistic",  # captions that occur twice have one code
    ]


def youcook_clips(youcook, bert, output, gallery, features):
    return evaluate(
        "retri/norton/test_youcook_zs",
        "OracleRetrieval",
        output,
        youcook_settings(youcook, bert, gallery, features),
    )


@pytest.mark.parametrize(("gallery", "clips"), [("official", 3492), ("milnce", 3350)])
def test_perfect_features_find_every_real_youcook2_clip(gallery, clips, youcook, bert, tmp_path):
    found = youcook_clips(youcook, bert, tmp_path, gallery, "right")
    assert found.facts["gallery"] == found.facts["queries"] == clips
    # a clip that overlaps another shows both their codes, so one in a hundred may lose
    assert (
        min(found.values["R1"], found.values["V2T-R1"]) > 0.98
        and found.values["R5"] > 0.999
        and found.values["MR"] == 1
    )


def test_shuffled_features_find_real_youcook2_clips_by_chance(youcook, bert, tmp_path):
    found = youcook_clips(youcook, bert, tmp_path, "milnce", "shuffled")
    assert found.values["R1"] < 0.005 and found.values["MR"] / 3350 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("project", "model"),
    [("test_youcook_fullvideo_zs", "OracleRetrieval"), ("test_youcook_fullvideo_bg_zs", "OracleFullVideo")],
    ids=["background removed", "background kept"],
)
def test_perfect_features_find_real_youcook2_videos_by_every_measure_and_shuffled_ones_by_chance(
    project, model, youcook, bert, tmp_path
):
    right, wrong = (
        evaluate(
            f"retri/norton/{project}", model, tmp_path / name, youcook_settings(youcook, bert, "some", name)
        )
        for name in ("right", "shuffled")
    )
    assert right.facts["gallery"] == SOME_VIDEOS
    # with background, a window of 16 s may show several clips, which can cost an alignment one video
    assert (
        right.values["cosine-R1"] == 1
        and min(right.values[f"cosine-{name}"] for name in ("DTW-R1", "OTAM-R1", "OT-R1")) > 0.95
    )
    assert (
        max(wrong.values[f"cosine-{name}"] for name in ("R1", "DTW-R1", "OTAM-R1", "OT-R1")) < 5 / SOME_VIDEOS
    )


TASKS, VIDEOS, N_TRAIN = (
    2,
    15,
    5,
)  # of the 18 tasks and their videos: the others have no features, which the report counts


def labels(segments, seconds, n_steps):
    """(seconds, steps), true where a step is shown."""
    true = np.zeros((seconds, n_steps), dtype=bool)
    for step, start, end in segments:
        true[int(np.floor(start)) : int(np.ceil(end)), step] = True
    return true


def longest_ordered(true):
    """Most steps of a video (T, K) that can be found by placing one second per step in the order of the task,
    by brute recursion."""
    best = [0] * (len(true) + 1)  # best[t]: steps so far, all before second t
    for step in range(true.shape[1]):
        previous, best = best, list(best)
        for t in range(1, len(best)):
            best[t] = max(best[t - 1], previous[t], previous[t - 1] + int(true[t - 1, step]))
    return best[-1]


@pytest.fixture(scope="module")
def crosstask(bert, tmp_path_factory):
    root = tmp_path_factory.mktemp("crosstask")
    release = real_path("crosstask")
    tasks, videos = read_tasks(release / "tasks_primary.txt"), read_videos(release / "videos.csv")
    held_out = {video for names in read_videos(release / "videos_val.csv").values() for video in names}
    random = np.random.default_rng(0)
    for name in ("right", "shuffled"):
        (root / name).mkdir()
    for task in list(tasks)[:TASKS]:
        codes = [code(tokenize(bert, step)) for step in tasks[task].steps]
        n_kept = 0
        for video in (video for video in videos[task] if video not in held_out):
            segments = read_segments(release / "annotations" / f"{task}_{video}.csv")
            seconds = int(max((end for _, _, end in segments), default=0)) + 20
            true = labels(segments, seconds, len(codes))
            if longest_ordered(true) < true.any(0).sum() or n_kept == VIDEOS:
                continue  # shown in another order than the task's: no ordered placement finds all
            n_kept += 1
            rows = show([(codes[step], np.floor(start), end) for step, start, end in segments], seconds)
            np.save(root / "right" / f"{video}.npy", rows)
            np.save(root / "shuffled" / f"{video}.npy", rows[random.permutation(seconds)])
    return root, release


def crosstask_settings(crosstask, bert, features):
    root, release = crosstask
    files = {
        "train_csv_path": "videos.csv",
        "val_csv_path": "videos_val.csv",
        "primary_path": "tasks_primary.txt",
    }
    files |= {
        "related_path": "tasks_related.txt",
        "annotation_path": "annotations",
        "test_path": "videos_val.csv",
    }
    paths = [f"dataset.{key}={release / name}" for key, name in files.items()]
    return [
        *paths,
        f"dataset.vfeat_dir={root / features}",
        f"dataset.bert_name={bert}",
        f"dataset.n_train={N_TRAIN}",
    ]


def test_perfect_features_find_every_real_crosstask_step_shown_in_order_and_shuffled_ones_do_not(
    crosstask, bert, tmp_path
):
    right, wrong = (
        evaluate(
            "retri/videoclip/test_crosstask_zs_videoclip",
            "OracleLocalisation",
            tmp_path / name,
            crosstask_settings(crosstask, bert, name),
        )
        for name in ("right", "shuffled")
    )
    assert right.facts["tasks"] == TASKS and right.facts["videos"] == TASKS * (VIDEOS - N_TRAIN)
    # absent steps must be placed too, between two that are shown: now and then one of those gives way
    assert right.values["recall"] > 0.97
    assert wrong.values["recall"] < 0.6
