"""Publishers' files -> what project files name."""

import json
import shutil

import pytest

from mmpt.config import DatasetConfig
from mmpt.processors import MSRVTTMetaProcessor, YoucookMetaProcessor
from mmpt.processors.sets.crosstask import read_segments, read_tasks
from mmpt.processors.sets.htm_align import read_sentences
from mmpt.utils.safe_pickle import load_plain_pickle
from mmpt_cli import data
from tests.conftest import real_path


@pytest.mark.parametrize(
    ("words", "clips", "videos"),
    [([], 3492, 457), (["--subset", "training"], 10337, 1333), (["--csv"], 3350, 436)],
    ids=["official", "training", "milnce"],
)
def test_real_youcook2_galleries_have_their_published_counts(words, clips, videos, tmp_path, capsys):
    source, out = real_path("youcook2", "youcookii_annotations_trainval.json"), tmp_path / "out.pkl"
    words = (
        [*words, str(real_path("youcook2", "milnce_validation_youcook.csv"))] if words == ["--csv"] else words
    )
    assert data.main(["convert", "youcook", str(source), str(out), *words]) == 0
    assert f"{clips} clips of {videos} videos" in capsys.readouterr().out
    assert len(load_plain_pickle(out)) == clips


def test_any_gallery_of_real_youcook2_can_be_made_from_its_list_of_videos(tmp_path, capsys):
    """GRAM publishes counts (3216 clips, 419 videos), not ids: given the ids, this is how its gallery is
    made."""
    source = real_path("youcook2", "youcookii_annotations_trainval.json")
    database = json.loads(source.read_text())["database"]
    chosen = [video for video, entry in database.items() if entry["subset"] == "validation"][:419]
    (tmp_path / "ids.txt").write_text("\n".join(chosen))
    out = tmp_path / "gram.pkl"
    data.main(["convert", "youcook", str(source), str(out), "--videos", str(tmp_path / "ids.txt")])
    expected = sum(len(database[video]["annotations"]) for video in chosen)
    assert f"{expected} clips of 419 videos" in capsys.readouterr().out
    (tmp_path / "ids.txt").write_text("unknown")
    with pytest.raises(ValueError, match="1 videos are not in this gallery, e.g. \\['unknown'\\]"):
        data.main(["convert", "youcook", str(source), str(out), "--videos", str(tmp_path / "ids.txt")])


def test_a_converted_pickle_is_read_as_it_was_annotated(toy_world, tmp_path):
    annotations, out = toy_world / "youcook/youcookii_annotations_trainval.json", tmp_path / "val.pkl"
    data.main(["convert", "youcook", str(annotations), str(out)])
    config = DatasetConfig(
        split="test",
        test_path=str(out),
        trainval_annotation=str(annotations),
        vfeat_dir=str(toy_world / "videos"),
    )
    shipped = DatasetConfig(
        split="test",
        test_path=str(toy_world / "youcook/youcook_val.pkl"),
        trainval_annotation=str(annotations),
        vfeat_dir=str(toy_world / "videos"),
    )
    assert list(YoucookMetaProcessor(config).data) == list(YoucookMetaProcessor(shipped).data)


def msrvtt(path):
    splits = ["train"] * 5 + ["validate"] * 2 + ["test"] * 3
    videos = [{"id": i, "video_id": f"video{i}", "split": split} for i, split in enumerate(splits)]
    sentences = [{"sen_id": i, "video_id": f"video{i}", "caption": "stir"} for i in range(10)]
    path.write_text(json.dumps({"info": {}, "videos": videos, "sentences": sentences}))
    (path.parent / "test.csv").write_text(
        "key,vid_key,video_id,sentence\nret0,msr8,video8,stir\nret1,msr9,video9,fry\n"
    )
    return str(path)


def test_msrvtt_lists_hold_no_test_video_and_are_read_back(tmp_path, capsys):
    source = msrvtt(tmp_path / "MSRVTT_data.json")
    data.main(["convert", "msrvtt", source, str(tmp_path), "--test", str(tmp_path / "test.csv")])
    shown = capsys.readouterr().out
    for part in (
        "MSRVTT_train.9k.csv 8",
        "MSRVTT_train.7k.csv 7",
        "MSRVTT_train.csv 7",
        "MSRVTT_FULL_test.csv 3",
    ):
        assert part in shown
    (tmp_path / "feat").mkdir()
    for i in range(10):
        (tmp_path / "feat" / f"video{i}.npy").touch()
    config = DatasetConfig(
        split="train", train_path=str(tmp_path / "MSRVTT_train.9k.csv"), vfeat_dir=str(tmp_path / "feat")
    )
    assert [video for video, _ in MSRVTTMetaProcessor(config).data] == [f"video{i}" for i in range(8)]


def test_a_coin_file_loses_impossible_segments_and_says_how_many(tmp_path, capsys):
    segments = [[1.0, 4.0], [5.0, 2.0], [-1.0, 3.0], [40.0, 50.0], [8.0, 9.0]]
    steps = [{"id": str(i + 1), "label": "stir", "segment": segment} for i, segment in enumerate(segments)]
    (tmp_path / "COIN.json").write_text(
        json.dumps({"database": {"v": {"subset": "testing", "duration": 30.0, "annotation": steps}}})
    )
    data.main(["convert", "coin", str(tmp_path / "COIN.json"), str(tmp_path / "out.json")])
    assert "1 reversed, 1 negative, 1 behind the end of the video" in capsys.readouterr().out
    kept = json.loads((tmp_path / "out.json").read_text())["database"]["v"]["annotation"]
    assert [step["segment"] for step in kept] == [[1.0, 4.0], [8.0, 9.0]]


def test_htm_align_sentences_come_out_sorted_and_possible(tmp_path, capsys):
    videos = {
        "b": [[1, 9, 12, "fry"], [0, 1, 3, "hello"], [1, 7, 5, "stir"], [0, 2, 3, " "]],
        "a": [[1, -1, 2, "chop"]],
    }
    (tmp_path / "htm.json").write_text(json.dumps(videos))
    data.main(["convert", "htm-align", str(tmp_path / "htm.json"), str(tmp_path / "out.json")])
    assert (
        "1 videos, 2 sentences, 1 alignable; dropped: 1 reversed, 1 empty, 1 negative"
        in capsys.readouterr().out
    )
    assert [sentence[3] for sentence in read_sentences(str(tmp_path / "out.json"))["b"]] == ["hello", "fry"]


def test_the_real_crosstask_release_converts_without_loss(tmp_path, capsys):
    release = real_path("crosstask")
    data.main(["convert", "crosstask", str(release), str(tmp_path / "out")])
    assert "18 primary of 83 tasks, 4700 videos, 2750 annotated; dropped: none" in capsys.readouterr().out
    assert len(read_tasks(tmp_path / "out/tasks_primary.txt")) == 18
    one = next((release / "annotations").iterdir())
    assert read_segments(tmp_path / "out/annotations" / one.name) == read_segments(one)


def test_crosstask_lines_that_fit_no_task_are_counted(toy_world, tmp_path, capsys):
    shutil.copytree(toy_world / "crosstask", tmp_path / "release")
    first = min((tmp_path / "release/annotations").iterdir())
    first.write_text(first.read_text() + "99,1.0,2.0\n1,5.0,2.0\n")
    (tmp_path / "release/annotations/100001_stranger.csv").write_text("1,0.0,1.0\n")
    data.main(["convert", "crosstask", str(tmp_path / "release"), str(tmp_path / "out")])
    shown = capsys.readouterr().out
    for count in (
        "1 steps that the task does not have",
        "1 reversed",
        "1 files of videos that videos.csv does not list",
    ):
        assert count in shown
    assert not (tmp_path / "out/annotations/100001_stranger.csv").exists()


def test_a_folder_that_is_there_is_not_mixed_with_another(toy_world, tmp_path):
    with pytest.raises(FileExistsError, match="choose a new folder"):
        data.main(["convert", "crosstask", str(toy_world / "crosstask"), str(tmp_path)])


def test_the_source_is_never_overwritten(tmp_path):
    source = msrvtt(tmp_path / "MSRVTT_data.json")
    with pytest.raises(ValueError, match="is the source itself"):
        data.main(["convert", "htm-align", source, source])


def test_a_file_of_another_kind_is_refused(tmp_path):
    source = msrvtt(tmp_path / "MSRVTT_data.json")
    with pytest.raises(ValueError, match='expected {"database": .*another data set'):
        data.main(["convert", "coin", source, str(tmp_path / "out.json")])
