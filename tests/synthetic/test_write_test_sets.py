import csv
import json

import numpy as np
import pytest

from mmpt.utils import load_plain_pickle


@pytest.fixture(scope="module")
def clip_rows(root):
    with open(root / "msrvtt" / "MSRVTT_JSFUSION_test.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def database(root):
    return json.loads((root / "youcook" / "youcookii_annotations_trainval.json").read_text())["database"]


def column(path):
    return path.read_text().split()[1:]


def test_msrvtt_rows_carry_the_real_columns_and_features(world, root, clip_rows):
    assert list(clip_rows[0]) == ["key", "vid_key", "video_id", "sentence"]
    assert list(clip_rows[0].values())[:3] == ["ret0", "msr0", "video0"]
    for row, clip in zip(clip_rows, world.gallery(), strict=True):
        segment = clip.video.segments[clip.index]
        expected = world.features(clip.video)[segment.start_s : segment.end_s]
        np.testing.assert_array_equal(np.load(root / "msrvtt" / "feat" / f"{row['video_id']}.npy"), expected)
        assert row["sentence"] == world.captions(clip.video)[clip.index]


def test_no_two_test_clips_have_one_sentence(clip_rows):
    assert len({row["sentence"] for row in clip_rows}) == len(clip_rows)


def test_msrvtt_training_clips_have_captions_and_are_no_test_clips(root, clip_rows):
    test, train, full = (
        {row["video_id"] for row in clip_rows},
        *(set(column(root / "msrvtt" / f"MSRVTT_{name}.csv")) for name in ("train", "full_test")),
    )
    assert test < full and not full & train
    captions = json.loads((root / "msrvtt" / "MSRVTT_data.json").read_text())["sentences"]
    assert {entry["video_id"] for entry in captions} == train | (full - test)
    assert len(captions) == 5 * len(train | (full - test))


def test_youcook_records_point_to_integer_segments_of_whole_videos(root, database):
    for name in ("youcook_val.pkl", "youcook_train.pkl", "youcook_val_distinct.pkl"):
        for record in load_plain_pickle(root / "youcook" / name):
            video, clip = record["id"].rsplit("_", 1)
            annotation = database[video]["annotations"][int(clip)]
            start, end = annotation["segment"]
            assert annotation["sentence"] == record["caption"] and isinstance(start, int) and start < end
            assert end <= len(np.load(root / "videos" / f"{video}.npy", mmap_mode="r"))


def test_full_video_records_cover_every_step_of_every_test_video_in_order(world, root):
    ids = [record["id"] for record in load_plain_pickle(root / "youcook" / "youcook_val.pkl")]
    assert ids == [f"{video.id}_{i}" for video in world.videos("test") for i in range(len(video.segments))]


def test_the_distinct_gallery_has_no_duplicates(world, root):
    records = load_plain_pickle(root / "youcook" / "youcook_val_distinct.pkl")
    steps = [
        world.video("test", int(record["id"][4:9])).segments[int(record["id"].split("_")[1])].step
        for record in records
    ]
    assert len(set(steps)) == len(steps) == len(world.gallery())


def test_subsets_follow_the_lists(root, database):
    for name, subset in (("train", "training"), ("val", "validation")):
        listed = [line.split("/")[1] for line in (root / "youcook" / f"{name}_list.txt").read_text().split()]
        assert listed == [video for video, entry in database.items() if entry["subset"] == subset]
