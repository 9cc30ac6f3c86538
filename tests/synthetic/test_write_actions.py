"""Two-step activities in the formats of UCF101 and few-shot lists."""

import numpy as np

from mmpt.processors.sets.recognition import TEST, TRAIN, read_splits


def test_every_class_has_a_counterpart_in_the_other_order(root):
    names = [
        line.split()[1] for line in (root / "actions/ucfTrainTestlist/classInd.txt").read_text().splitlines()
    ]
    assert len(names) == len(set(names)) == 18
    assert all("Then".join(reversed(name.split("Then"))) in names for name in names)


def test_each_split_tests_a_third_of_every_class_and_every_video_is_tested_once(root):
    members = read_splits(root / "actions/ucfTrainTestlist")
    assert len(members) == 108
    assert all(sorted(tags.values()) == [TRAIN, TRAIN, TEST] for _, tags in members.values())


def test_few_shot_lists_share_no_class_and_every_video_has_features(root):
    classes = {}
    for split in ("train", "val", "test"):
        lines = (root / f"actions/{split}.list").read_text().splitlines()
        classes[split] = {line.split("/")[0] for line in lines}
        assert len(lines) == 36
        for line in lines:
            rows = np.load(root / f"actions/sequences/{line}.npy")
            np.testing.assert_array_equal(rows, np.load(root / f"actions/feat/{line.split('/')[1]}.npy"))
    assert not classes["train"] & classes["val"] and not classes["test"] & (classes["train"] | classes["val"])


def test_videos_with_a_sound_track_sound_as_long_as_they_look(root):
    sounds = sorted((root / "actions/audio").glob("*.npy"))
    assert 80 < len(sounds) < 108
    assert all(len(np.load(path)) == len(np.load(root / "actions/feat" / path.name)) for path in sounds)
