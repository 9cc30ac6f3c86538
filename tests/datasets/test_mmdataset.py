import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmpt.config import Config
from mmpt.datasets import MMDataset, build_dataset
from mmpt.processors import (
    MetaProcessor,
    MissingData,
    MSRVTTMetaProcessor,
    OverlappedAligner,
    ShardedHow2MetaProcessor,
    ShardedHow2VideoRetriMetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
    TextProcessor,
    VideoProcessor,
    VideoRetriOverlappedAligner,
)
from mmpt.processors.downstream import DSAligner
from tests.processors.helpers import CONFIG, SPECIAL, WordTokenizer, how2, touch_features


def groups(config, **options):
    parts = (
        ShardedHow2VideoRetriMetaProcessor(config),
        ShardedVideoRetriVideoProcessor(config),
        ShardedVideoRetriTextProcessor(config),
    )
    return MMDataset(*parts, VideoRetriOverlappedAligner(config, SPECIAL), **options)


def singles(config, **options):
    return MMDataset(
        ShardedHow2MetaProcessor(config),
        ShardedVideoProcessor(config),
        ShardedTextProcessor(config),
        OverlappedAligner(config, SPECIAL),
        **options,
    )


def equal(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]
        for key, value in one.items()
    )


def test_a_retrieval_item_has_the_shapes_of_a_group(tmp_path):
    item = groups(how2(tmp_path))[1]
    assert item["video_id"] == ["v3", "v4", "v5"]
    assert {key: tuple(item[key].shape) for key in ("caps", "cmasks", "vfeats", "vmasks", "text_start")} == {
        "caps": (3, 6, 32),
        "cmasks": (3, 6, 32),
        "vfeats": (3, 6, 16, 4),
        "vmasks": (3, 6, 16),
        "text_start": (3, 6),
    }


def test_clips_of_a_shard_hold_their_own_video_and_words(tmp_path):
    item = groups(how2(tmp_path))[0]
    for video in range(3):
        frames = item["vfeats"][video][item["vmasks"][video]][:, 0]
        assert torch.equal(frames.floor(), torch.full_like(frames, video))
        assert set(item["caps"][video].unique().tolist()) <= {0, 1, 2, 10 + video}


@pytest.mark.parametrize("sampler", ["generator", "python"])
def test_items_do_not_depend_on_the_number_of_workers(tmp_path, sampler):
    dataset = groups(how2(tmp_path, sampler=sampler))
    here, workers = (
        list(DataLoader(dataset, batch_size=1, collate_fn=dataset.collate, num_workers=n)) for n in (0, 2)
    )
    assert len(here) == 3 and all(equal(a, b) for a, b in zip(here, workers, strict=True))


def test_items_change_with_the_epoch_and_come_back_with_it(tmp_path):
    dataset = groups(how2(tmp_path))
    first = dataset[0]
    dataset.set_epoch(1)
    assert not equal(first, dataset[0])
    dataset.set_epoch(0)
    assert equal(first, dataset[0])


def test_items_change_with_the_seed(tmp_path):
    config = how2(tmp_path)
    assert not equal(groups(config, seed=1)[0], groups(config, seed=2)[0])


def test_a_test_set_is_the_same_in_every_epoch_and_numbers_its_items(tmp_path):
    dataset = singles(how2(tmp_path), fixed=True)
    first = dataset[4]
    dataset.set_epoch(3)
    assert equal(first, dataset[4]) and first["idx"] == 4


def test_an_item_past_the_end_is_an_index_error(tmp_path):
    with pytest.raises(IndexError, match="data set of 10 items"):
        singles(how2(tmp_path))[10]


def short_video(config):
    """Captions of v0 all begin after its features end."""
    dataset = singles(config)
    dataset.video_processor = lambda place: (
        np.ones((60, 4), np.float32) if place[0] != "v0" else np.ones((0, 4), np.float32)
    )
    return dataset


def test_an_unusable_item_is_replaced_by_the_next_and_named(tmp_path, caplog):
    dataset = short_video(how2(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert dataset[0]["video_id"] == "v1"
    assert dataset.n_skipped == 1 and "video 'v0'" in caplog.text


def test_an_unusable_item_can_be_an_error(tmp_path):
    dataset = short_video(how2(tmp_path))
    dataset.skip_missing = False
    with pytest.raises(MissingData, match="video 'v0'"):
        dataset[0]


def test_a_test_set_never_replaces_an_item(tmp_path):
    assert not singles(how2(tmp_path), fixed=True).skip_missing


def test_a_data_set_of_unusable_items_only_says_so(tmp_path):
    dataset = singles(how2(tmp_path))
    dataset.video_processor = lambda place: np.ones((0, 4), np.float32)
    with pytest.raises(MissingData, match="items 0 to 9 all lack"):
        dataset[0]


def test_collate_stacks_tensors_and_lists_the_rest(tmp_path):
    dataset = singles(how2(tmp_path))
    items = [
        {"x": torch.ones(2), "n": i, "name": f"v{i}", "clip": ("a", 1, 2), "none": None} for i in range(3)
    ]
    batch = dataset.collate(items)
    assert batch["x"].shape == (3, 2) and batch["n"].tolist() == [0, 1, 2]
    assert batch["name"] == ["v0", "v1", "v2"] and batch["clip"] == [("a", 1, 2)] * 3 and "none" not in batch


def test_collate_of_one_item_copies_nothing(tmp_path):
    dataset = singles(how2(tmp_path))
    x = torch.ones(2, 3)
    batch = dataset.collate([{"x": x}])
    assert batch["x"].shape == (1, 2, 3) and batch["x"].data_ptr() == x.data_ptr()


def test_an_empty_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no items"):
        MMDataset([], None, None, None)


RETRIEVAL = {
    "meta_processor": "ShardedHow2VideoRetriMetaProcessor",
    "video_processor": "ShardedVideoRetriVideoProcessor",
    "text_processor": "ShardedVideoRetriTextProcessor",
    "aligner": "VideoRetriOverlappedAligner",
}


@pytest.mark.parametrize(("split", "fixed"), [("train", False), ("valid", False), ("test", True)])
def test_a_data_set_is_built_from_the_names_of_a_config(tmp_path, split, fixed):
    dataset = how2(tmp_path, split=None, test_path=f"{tmp_path}/val.lst", **RETRIEVAL)
    built = build_dataset(Config(dataset=dataset, fairseq={"common": {"seed": 5}}), split)
    assert len(built) == 3 and built.fixed is fixed and built.seed == 5
    assert built.meta_processor.split == split and isinstance(built.aligner, VideoRetriOverlappedAligner)


def test_a_missing_class_name_names_its_key(tmp_path):
    config = Config(dataset=how2(tmp_path, **{**RETRIEVAL, "aligner": None}))
    with pytest.raises(ValueError, match="dataset.aligner is not set"):
        build_dataset(config, "train")


def test_msrvtt_rows_become_batches(tmp_path):
    (tmp_path / "test.csv").write_text("video_id,sentence\nvideo0,a bb\nvideo1,ccc\n")
    config = replace(
        CONFIG,
        split="test",
        test_path=f"{tmp_path}/test.csv",
        vfeat_dir=str(touch_features(tmp_path / "f", ["video0", "video1"])),
    )
    dataset = MMDataset(
        MSRVTTMetaProcessor(config),
        VideoProcessor(config),
        TextProcessor(config, WordTokenizer()),
        DSAligner(config, SPECIAL),
        fixed=True,
    )
    (batch,) = DataLoader(dataset, batch_size=2, collate_fn=dataset.collate)
    assert batch["caps"][:, :5].tolist() == [[1, 2, 11, 12, 2], [1, 2, 13, 2, 0]]
    assert batch["video_id"] == ["video0", "video1"] and batch["idx"].tolist() == [0, 1]


def test_a_batch_of_modalities_says_how_many_columns_of_its_masks_are_in_use():
    def item(words, seconds):
        return {"cmasks": torch.arange(9) < words, "audio_masks": torch.arange(5) < seconds}

    assert MMDataset.collate(None, [item(4, 0), item(7, 0)])["columns"] == {"cmasks": 7, "audio_masks": 1}
    assert "columns" not in MMDataset.collate(None, [{"cmasks": torch.ones(2), "vmasks": torch.ones(2)}])


def test_a_batch_says_how_many_columns_each_clip_fills_of_masks_without_gaps():
    def item(seconds):
        gap = torch.tensor([[True, False, True]] * 2)
        return {"vmasks": torch.arange(5) < torch.tensor(seconds)[:, None], "cmasks": gap}

    assert MMDataset.collate(None, [item([4, 0]), item([5, 1])])["lengths"] == {"vmasks": [4, 0, 5, 1]}


def test_a_batch_says_how_many_positions_carry_a_label():
    def item(*words):
        frames = torch.tensor([word > 0 for word in words])
        return {"text_label": torch.tensor(words), "video_label": frames, "label": torch.tensor(3)}

    batch = MMDataset.collate(None, [item(7, -100, -100), item(-100, 0, 9)])
    assert batch["labelled"] == {"text_label": 3, "video_label": 2}


def test_an_item_that_is_no_pair_is_named_with_its_class(tmp_path):
    config = replace(CONFIG, vfeat_dir=str(tmp_path))
    meta = MetaProcessor(config)
    meta.data = [("a", 0, 8, "stir")]
    data = MMDataset(meta, VideoProcessor(config), TextProcessor(config, WordTokenizer()), None)
    with pytest.raises(ValueError, match=r"item 0 of MetaProcessor has 4 parts, .*; expected \(video id"):
        data[0]
