"""Features of other rates than one a second."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmpt.config.schema import DatasetConfig
from mmpt.processors.base import VideoProcessor
from mmpt.processors.sets.crosstask import CrossTaskVideoProcessor
from mmpt.processors.sets.fewshot import FewShotVideoProcessor
from mmpt.processors.sets.how2 import ShardedVideoProcessor
from mmpt.processors.sets.youcook import YoucookVideoProcessor
from mmpt.processors.store.rates import feature_rate, per_second
from mmpt.utils import ShardWriter

SECONDS = 12


def rows(rate, width=256):
    """Unit rows whose direction tells the second that they belong to."""
    seconds = np.floor(np.arange(round(SECONDS * rate)) / rate).astype(int)
    return np.eye(width, dtype=np.float16)[seconds]


@pytest.fixture(params=[0.5, 1.0, 2.0, 2.5, 4.0], ids="{} a second".format)
def features(request, tmp_path):
    np.save(tmp_path / "v.npy", rows(request.param))
    (tmp_path / "passport.json").write_text(json.dumps({"seconds_per_feature": 1 / request.param}))
    return tmp_path, request.param


def config(folder, **keys):
    return DatasetConfig(**{"vfeat_dir": str(folder), "max_video_len": 4} | keys)


def shown(found):
    """The second of each row, and that it is a unit row."""
    np.testing.assert_allclose(np.linalg.norm(np.float32(found), axis=1), 1, atol=1e-3)
    return found.argmax(1).tolist()


def test_row_s_is_second_s_whatever_the_rate_and_whoever_reads(features):
    folder, rate = features
    seconds = [2 * (s // 2) for s in range(SECONDS)] if rate == 0.5 else list(range(SECONDS))
    assert shown(VideoProcessor(config(folder))("v")) == seconds
    assert shown(YoucookVideoProcessor(config(folder))(("v", 3, 7))) == seconds[3:7]
    assert shown(CrossTaskVideoProcessor(config(folder))(("task", "v"))) == seconds
    assert feature_rate(config(folder)) == pytest.approx(rate)
    with ShardWriter(folder / "shards" / "train_0", passport={"seconds_per_feature": 1 / rate}) as writer:
        writer.append(rows(rate))
    assert shown(ShardedVideoProcessor(config(folder / "shards"))(("v", -1, 0, 0))) == seconds


def test_what_a_file_says_stands_over_the_passport(features):
    folder, rate = features
    assert len(VideoProcessor(config(folder, vfeat_rate=1.0))("v")) == round(SECONDS * rate)


def test_episodes_of_frames_spread_over_all_rows(features):
    folder, _ = features
    assert FewShotVideoProcessor(config(folder))(("v",)).shape == (1, 4, 256)


def test_a_part_of_a_second_at_the_end_is_read_as_seconds_are_counted():
    assert per_second(rows(4.0)[:-3], 4.0).shape[0] == SECONDS - 1
    assert per_second(rows(4.0)[:-1], 4.0).shape[0] == SECONDS
    assert per_second(rows(4.0)[:1], 4.0).shape[0] == 1


def test_rows_of_any_length_keep_their_mean_length():
    long = 3 * np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    found = per_second(long, 4.0)
    lengths = np.linalg.norm(long, axis=1).reshape(2, 4).mean(1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), lengths, rtol=1e-5)


@pytest.mark.parametrize("seconds", [0, -1, "soon"])
def test_a_passport_that_says_no_time_is_named(tmp_path, seconds):
    (tmp_path / "passport.json").write_text(json.dumps({"seconds_per_feature": seconds}))
    with pytest.raises(ValueError, match="passport"):
        feature_rate(config(tmp_path))
