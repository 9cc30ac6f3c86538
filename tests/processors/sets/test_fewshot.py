"""Episodes."""

import numpy as np
import pytest

from mmpt.config import DatasetConfig
from mmpt.processors import FewShotAligner, FewShotMetaProcessor, FewShotVideoProcessor, MissingData


@pytest.fixture
def config(tmp_path):
    lines = []
    for label in range(4):
        (tmp_path / str(label)).mkdir()
        for video in range(3):
            np.save(
                tmp_path / str(label) / f"{video}.npy",
                np.full((10 + video, 2), 10 * label + video, dtype=np.float32),
            )
            lines.append(f"{label}/{video}" + (".npy" if video else ""))
    (tmp_path / "test.list").write_text("\n".join(lines))
    paths = {"test_path": str(tmp_path / "test.list"), "vfeat_dir": str(tmp_path)}
    return DatasetConfig(split="test", **paths, max_video_len=5, way=3, shots=1, queries=2, episodes=20)


def test_an_episode_holds_distinct_classes_and_no_video_twice(config):
    meta = FewShotMetaProcessor(config)
    assert len(meta) == 20
    for index in range(20):
        videos, labels = meta[index]
        assert labels == [0, 1, 2, 0, 0, 1, 1, 2, 2] and len(set(videos)) == 9
        of_class = {
            label: {video.split("/")[0] for video, own in zip(videos, labels, strict=True) if own == label}
            for label in range(3)
        }
        assert (
            all(len(folders) == 1 for folders in of_class.values())
            and len(set.union(*of_class.values())) == 3
        )


def test_episodes_differ_from_each_other_and_are_the_same_in_every_run(config):
    first, again = FewShotMetaProcessor(config), FewShotMetaProcessor(config)
    assert [first[i] for i in range(20)] == [again[i] for i in range(20)]
    assert len({first[i][0] for i in range(20)}) > 15


def test_frames_are_spread_from_first_to_last(config, tmp_path):
    np.save(tmp_path / "0" / "long.npy", np.arange(9, dtype=np.float32)[:, None])
    assert FewShotVideoProcessor(config)(("0/long",))[0, :, 0].tolist() == [0, 2, 4, 6, 8]


def test_supports_come_first(config):
    meta = FewShotMetaProcessor(config)
    videos, labels = meta[0]
    item = FewShotAligner(config)(videos, FewShotVideoProcessor(config)(videos), labels)
    assert item["support"].shape == (3, 5, 2) and item["query"].shape == (6, 5, 2)
    assert item["support_labels"].tolist() == [0, 1, 2] and item["video_id"] == list(videos[3:])
    assert (item["support"][:, 0, 0] // 10).tolist() == [float(video.split("/")[0]) for video in videos[:3]]


def test_too_few_classes_with_enough_videos_is_an_error(config, tmp_path):
    for path in [*(tmp_path / "0").iterdir()][:2] + [*(tmp_path / "1").iterdir()][:2]:
        path.unlink()
    with pytest.raises(
        MissingData, match="2 classes with at least 3 videos; an episode of dataset.way=3 needs more"
    ):
        FewShotMetaProcessor(config)
