"""CrossTask's steps in the order in which a video shows them."""

import numpy as np
import pytest

from mmpt.config import DatasetConfig
from mmpt.processors import CrossTaskAligner, SpecialIds
from mmpt.processors.sets.crosstask import read_segments
from tests.conftest import golden_cases, load_golden

CONFIG = DatasetConfig(max_video_len=32, max_len=96, sliding_window=16, sliding_window_size=32)
ALIGNER = CrossTaskAligner(CONFIG, SpecialIds(cls=1, sep=2, pad=0, mask=3, vocab_size=10))


def sequence(segments, n_steps, seconds=40):
    item = ALIGNER(
        ("1", "v", [], n_steps), np.ones((seconds, 2), dtype=np.float32), ([[5]] * n_steps, segments)
    )
    return item["sequence_targets"].tolist()


@pytest.mark.parametrize("path", golden_cases("tempclr_crosstask_eval*.npz"))
def test_golden_tempclr_crosstask_sequences_of_annotated_steps(path, tmp_path):
    golden = load_golden(path)
    videos = [name.removesuffix("_csv") for name in golden if name.endswith("_csv")]
    assert videos
    for video in videos:
        (tmp_path / "1_v.csv").write_text(str(golden[f"{video}_csv"]))
        segments = read_segments(tmp_path / "1_v.csv")
        found = sequence(segments, int(golden[f"{video}_n_steps"]), int(golden[f"{video}_video_len"]))
        assert found == golden[f"{video}_sequence"].tolist()


def test_lines_in_any_order_become_an_order_of_time():
    assert sequence([(2, 9.0, 12.0), (0, 1.0, 3.0), (2, 4.0, 5.0)], 3) == [0, 2, 2]


def test_a_video_without_steps_has_an_empty_sequence():
    assert sequence([], 3) == []
