"""`data verify`: what is there, what is not, and what cannot be right."""

import json
import os
import shutil

import numpy as np
import pytest

from mmpt.config import ConfigError
from mmpt.utils import ShardedTensor
from mmpt_cli import data
from tests.conftest import ROOT, real_path
from tests.processors.helpers import how2


@pytest.fixture
def workplace(toy_world, tmp_path, monkeypatch):
    """A copy of the synthetic end-task data where the toy files look for it."""
    for part in ("coin", "msrvtt", "youcook", "crosstask", "videos", "model", "clips", "audio"):
        shutil.copytree(toy_world / part, tmp_path / "data/toy" / part)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data/toy"


def verify(name, *settings):
    return data.main(
        [
            "verify",
            str(ROOT / f"projects/toy/{name}.yaml"),
            *[word for setting in settings for word in ("--set", setting)],
        ]
    )


def test_whole_data_pass_and_other_counts_than_published_are_a_warning(workplace, capsys):
    assert verify("test_coin_ft") == 0
    shown = capsys.readouterr().out
    assert "warning test: 6 items of 6 videos; published: 2797" in shown
    assert "1.00 feature rows per second" in shown and "all 52 segments lie inside" in shown
    assert "features without passport" in shown and "0 errors, 1 warnings" in shown


def test_a_training_file_has_both_its_splits_checked(workplace, capsys):
    assert verify("coin_ft") == 0
    shown = capsys.readouterr().out
    assert "train: 6 items" in shown and "valid: 6 items" in shown


def test_a_missing_file_says_what_it_should_be_and_fails(workplace, capsys):
    (workplace / "coin/COIN.json").unlink()
    assert verify("test_coin_ft") == 1
    assert (
        "error   dataset.test_path: data/toy/coin/COIN.json: not there; expected COIN.json: {database"
        in capsys.readouterr().out
    )


def test_ids_without_features_are_counted_and_named(workplace, capsys):
    (workplace / "videos/labelled00003.npy").unlink()
    verify("test_coin_ft")
    shown = capsys.readouterr().out
    assert "1 ids have no features: labelled00003" in shown and "5 items of 5 videos and 1 left out" in shown


def test_an_id_that_stands_under_several_items_is_named_once(workplace, capsys):
    (workplace / "videos/test00000.npy").unlink()
    verify("test_youcook_fullvideo_zs")
    shown = capsys.readouterr().out
    assert "items of 1 ids have no features: test00000; every" in shown


def test_a_masked_modality_leaves_no_item_out_and_its_own_check_is_named(workplace, capsys):
    assert verify("gram/finetune") == 0
    shown = capsys.readouterr().out
    assert "left out" not in shown and "mmpt data modalities" in shown


def test_features_of_another_rate_are_an_error(workplace, capsys):
    for path in (workplace / "videos").glob("*.npy"):
        np.save(path, np.load(path)[::2])
    assert verify("test_coin_ft") == 1
    shown = capsys.readouterr().out
    assert "features have 0.50 rows per second" in shown and "segments end behind their features" in shown


def test_a_passport_that_says_another_rate_is_an_error(workplace, capsys):
    (workplace / "videos/passport.json").write_text(
        json.dumps({"backbone": "s3d", "seconds_per_feature": 1.5})
    )
    assert verify("test_coin_ft") == 1
    assert (
        "features have 1.00 rows per second of video (median of 6), expected 0.666667"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: np.full_like(rows, np.nan), "features hold NaN or infinite values"),
        (lambda rows: rows[:0], "1 videos without a single (seconds, features) row: labelled00003"),
        (lambda rows: rows[:, :100], "features of several widths"),
    ],
    ids=["nan", "no rows", "width"],
)
def test_a_spoilt_feature_file_is_an_error(spoil, message, workplace, capsys):
    path = workplace / "videos/labelled00003.npy"
    np.save(path, spoil(np.load(path)))
    assert verify("test_coin_ft") == 1
    assert message in capsys.readouterr().out


def test_a_truncated_feature_file_is_an_error(workplace, capsys):
    path = workplace / "videos/labelled00003.npy"
    path.write_bytes(path.read_bytes()[:-100])
    assert verify("test_coin_ft") == 1
    assert "labelled00003.npy: not a whole .npy file" in capsys.readouterr().out


def test_all_captions_of_a_video_as_gallery_is_an_error(workplace, capsys):
    table = workplace / "msrvtt/MSRVTT_JSFUSION_test.csv"
    table.write_text("video_id,sentence\n" + "".join(f"video{i % 4},stir pan {i}\n" for i in range(20)))
    (workplace / "msrvtt/feat").mkdir(exist_ok=True)
    assert verify("test_vtt_zs") == 1
    assert (
        "the gallery lists 20 items but only 4 different ones, 5 captions for each" in capsys.readouterr().out
    )


def test_the_file_of_another_data_set_is_an_error(workplace, capsys):
    assert verify("test_youcook_zs", "dataset.test_path=data/toy/coin/COIN.json") == 1
    assert "COIN.json: not a whole pickle" in capsys.readouterr().out


def test_what_the_checkpoint_was_trained_on_is_said(workplace, capsys, tmp_path):
    run = tmp_path / "runs/vtt"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(
        "dataset: {meta_processor: MSRVTTMetaProcessor, train_path: MSRVTT_train.9k.csv}\n"
    )
    verify("test_vtt_zs", f"fairseq.common_eval.path={run}/checkpoint_best.pt")
    assert "checkpoint_best.pt: trained on MSRVTT_train.9k.csv; zero-shot is" in capsys.readouterr().out


def test_without_a_meta_processor_the_files_are_still_listed(toy_world, tmp_path, capsys):
    project = tmp_path / "x.yaml"
    project.write_text(f"dataset: {{anno_path: {toy_world}/how2-align/htm_align.json, split: test}}\n")
    assert data.main(["verify", str(project)]) == 1
    shown = capsys.readouterr().out
    assert "ok      dataset.anno_path" in shown and "dataset.meta_processor is not set" in shown


def write_lengths(folder, lengths):
    folder.mkdir()
    of_length = {}
    for name, seconds in lengths.items():
        if seconds in of_length:
            os.link(of_length[seconds], folder / f"{name}.npy")
        else:
            of_length[seconds] = folder / f"{name}.npy"
            np.save(of_length[seconds], np.ones((seconds, 1), dtype=np.float16))
    return folder


@pytest.mark.parametrize(
    ("gallery", "counts"), [("milnce", "3350 items of 436 videos"), ("official", "3492 items of 457 videos")]
)
def test_real_youcook2_passes_with_its_published_counts(gallery, counts, tmp_path, capsys):
    annotations = real_path("youcook2", "youcookii_annotations_trainval.json")
    words = (
        ["--csv", str(real_path("youcook2", "milnce_validation_youcook.csv"))] if gallery == "milnce" else []
    )
    data.main(["convert", "youcook", str(annotations), str(tmp_path / "val.pkl"), *words])
    database = json.loads(annotations.read_text())["database"]
    videos = {
        name: round(entry["duration"]) for name, entry in database.items() if entry["subset"] == "validation"
    }
    features = write_lengths(tmp_path / "features", videos)
    settings = [
        f"dataset.test_path={tmp_path}/val.pkl",
        f"dataset.trainval_annotation={annotations}",
        f"dataset.vfeat_dir={features}",
    ]
    assert verify("test_youcook_zs", *settings) == 0
    shown = capsys.readouterr().out
    assert f"ok      test: {counts}, as published" in shown and "1.00 feature rows per second" in shown
    assert "segments lie inside their features" in shown


def test_the_real_crosstask_release_passes_with_1850_test_and_540_training_videos(tmp_path, capsys):
    release = real_path("crosstask")
    names = {line.split(",")[1] for line in (release / "videos.csv").read_text().splitlines()}
    features = write_lengths(tmp_path / "features", dict.fromkeys(names, 3600))
    paths = {
        "train_csv_path": "videos.csv",
        "val_csv_path": "videos_val.csv",
        "primary_path": "tasks_primary.txt",
    }
    paths |= {"related_path": "tasks_related.txt", "annotation_path": "annotations"}
    paths |= {"train_path": "videos.csv", "val_path": "videos_val.csv"}
    settings = [f"dataset.{key}={release / name}" for key, name in paths.items()]
    assert verify("crosstask_ft", *settings, f"dataset.vfeat_dir={features}", "dataset.n_train=30") == 0
    shown = capsys.readouterr().out
    assert "ok      train: 540 items" in shown and "ok      valid: 1850 items" in shown


def test_real_msrvtt_lists_pass_with_their_published_counts(tmp_path, capsys):
    test, train = real_path("msrvtt", "MSRVTT_JSFUSION_test.csv"), real_path("msrvtt", "MSRVTT_train.9k.csv")
    features = write_lengths(tmp_path / "features", {f"video{i}": 10 for i in range(10000)})
    assert verify("test_vtt_zs", f"dataset.test_path={test}", f"dataset.vfeat_dir={features}") == 0
    shown = capsys.readouterr().out
    assert (
        "ok      test: 1000 items of 1000 videos, as published" in shown
        and "5 captions repeat an earlier one" in shown
    )
    for name, counts in ("MSRVTT_train.9k.csv", 9000), ("MSRVTT_train.7k.csv", 7010):
        settings = [
            f"dataset.train_path={train.with_name(name)}",
            f"dataset.val_path={test}",
            f"dataset.vfeat_dir={features}",
        ]
        assert verify("vtt_ft", *settings, "dataset.json_path=null", f"dataset.jsfusion_path={test}") == 0
        assert f"ok      train: {counts} items of {counts} videos, as published" in capsys.readouterr().out


def test_the_code_that_a_project_file_names_is_imported_only_where_it_is_trusted(workplace, capsys):
    (workplace / "mine.py").write_text("print('code ran')\n")
    words = f"plugins=[{workplace / 'mine.py'}]"
    with pytest.raises(ConfigError, match=r"mine\.py would be imported, which runs .*--trust-plugins"):
        verify("test_coin_ft", words)
    assert "code ran" not in capsys.readouterr().out
    project = str(ROOT / "projects/toy/test_coin_ft.yaml")
    assert data.main(["verify", project, "--set", words, "--trust-plugins"]) == 0
    assert "code ran" in capsys.readouterr().out


def test_captions_of_shards_are_compared_with_the_features(tmp_path, capsys, monkeypatch):
    how2(tmp_path)
    project = tmp_path / "p.yaml"
    files = {"vfeat_dir": tmp_path, "tfeat_dir": f"{tmp_path}/text.", "train_path": f"{tmp_path}/train.lst"}
    parts = {
        "meta_processor": "ShardedHow2MetaProcessor",
        "video_processor": "ShardedVideoProcessor",
        "text_processor": "ShardedTextProcessor",
        "aligner": "FixedLenAligner",
        "clip_per_video": 2,
        "max_video_len": 16,
        "max_len": 48,
    }
    project.write_text(
        "dataset:\n" + "".join(f"  {key}: {value}\n" for key, value in (files | parts).items())
    )
    assert data.main(["verify", str(project)]) == 0
    assert "captions in" in (shown := capsys.readouterr().out) and "in order and fit the features" in shown
    shard = ShardedTensor.load(tmp_path / "text.train_0.startends")
    shard[1][2] = 9, 4
    shard.save(tmp_path / "text.train_0.startends")
    assert data.main(["verify", str(project)]) == 1
    assert "captions that end before they start" in (shown := capsys.readouterr().out) and ": v1." in shown
