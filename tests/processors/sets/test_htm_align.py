"""HTM-Align: whole videos with all their sentences."""

import json

import numpy as np
import torch

from mmpt.config import DatasetConfig
from mmpt.processors import HTMAlignAligner, HTMAlignMetaProcessor, SpecialIds

SPECIAL = SpecialIds(cls=1, sep=2, pad=0, mask=3, vocab_size=10)


def test_videos_come_in_order_of_their_names_and_those_without_features_are_counted(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4)))
    np.save(tmp_path / "c.npy", np.ones((3, 4)))
    (tmp_path / "htm.json").write_text(json.dumps({name: [[1, 0.0, 2.0, "stir"]] for name in "cba"}))
    meta = HTMAlignMetaProcessor(
        DatasetConfig(split="test", anno_path=str(tmp_path / "htm.json"), vfeat_dir=str(tmp_path))
    )
    assert [meta[i][0] for i in range(len(meta))] == ["a", "c"] and meta.missing == {
        "have no features": ["b"]
    }


def test_an_item_holds_the_whole_video_unpadded_and_the_times_of_each_sentence():
    aligner = HTMAlignAligner(DatasetConfig(max_video_len=4, max_len=12), SPECIAL)
    annotations = np.array([[1, 0.5, 2.0], [0, 3.0, 9.0]])
    item = aligner("v", np.ones((50, 6), dtype=np.float16), ([[5, 6], [7]], annotations))
    assert item["vfeats"].shape == (50, 6) and item["vmasks"].all() and item["vfeats"].dtype == torch.float32
    assert (
        item["caps"][1].tolist() == [1, 2, 7, 2, 0, 0, 0, 0]
        and item["annotations"].tolist() == annotations.tolist()
    )
