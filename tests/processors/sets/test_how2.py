import json
import logging
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest

from mmpt.processors import (
    How2MetaProcessor,
    MissingData,
    PKLJSONStrTextProcessor,
    ShardedHow2MetaProcessor,
    ShardedHow2VideoRetriMetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
)
from mmpt.utils import ShardError, UnsafePickle, save_plain_pickle
from tests.conftest import golden_cases, load_golden
from tests.processors.helpers import CONFIG, WordTokenizer, how2


def test_the_list_gives_its_ids(tmp_path):
    config = how2(tmp_path)
    meta = How2MetaProcessor(config)
    assert (len(meta), meta[3]) == (10, ("v3", "v3"))


@pytest.mark.parametrize(
    ("split", "key"),
    [("train", "train_path"), ("valid", "val_path"), ("test", "test_path"), (None, "train_path")],
)
def test_each_split_reads_its_own_list(tmp_path, split, key):
    (tmp_path / "a.lst").write_text("only\n")
    config = replace(CONFIG, **{"split": split, key: str(tmp_path / "a.lst")})
    assert How2MetaProcessor(config)[0] == ("only", "only")


def test_an_empty_list_is_refused(tmp_path):
    config = how2(tmp_path)
    (tmp_path / "train.lst").write_text("\n\n")
    with pytest.raises(ValueError, match="train.lst: the list holds no id"):
        How2MetaProcessor(config)


def test_a_missing_path_names_its_key():
    with pytest.raises(ValueError, match="dataset.val_path is not set"):
        How2MetaProcessor(replace(CONFIG, split="valid"))


def test_sharded_items_say_where_the_video_lies(tmp_path):
    meta = ShardedHow2MetaProcessor(how2(tmp_path))
    assert meta[6] == (("v6", 6, 1, 2),) * 2


def test_sharded_processors_read_that_video_and_its_captions(tmp_path):
    config = how2(tmp_path)
    video, text = ShardedVideoProcessor(config), ShardedTextProcessor(config)
    for place, _ in map(ShardedHow2MetaProcessor(config).__getitem__, range(10)):
        number = int(place[0][1:])
        assert video(place).shape == (60, 4) and int(video(place)[0, 0]) == number
        captions = text(place)
        assert captions["cap"][3].tolist() == [10 + number] * 4 + [-1] * 4
        assert (captions["start"][3], captions["end"][3]) == (12.0, 15.5)


def test_a_test_split_reads_the_validation_shards(tmp_path):
    config = how2(tmp_path)
    for file in tmp_path.glob("*train*"):
        file.unlink()
    config = replace(config, split="test", test_path=f"{tmp_path}/val.lst")
    place, _ = ShardedHow2MetaProcessor(config)[5]
    assert int(ShardedVideoProcessor(config)(place)[0, 0]) == 5
    assert ShardedTextProcessor(config)(place)["cap"][0, 0] == 15


def test_ids_without_an_index_entry_are_counted_named_and_left_out(tmp_path, caplog):
    config = how2(tmp_path)
    (tmp_path / "train.lst").write_text("v1\nnobody\nv2\nnoone\n")
    with caplog.at_level(logging.WARNING):
        meta = ShardedHow2MetaProcessor(config)
    assert [meta[i][0][0] for i in range(len(meta))] == ["v1", "v2"]
    assert "2 ids have no entry in the shard index: nobody, noone" in caplog.text
    assert meta.missing == {"have no entry in the shard index": ["nobody", "noone"]}


def test_ids_without_an_index_entry_can_be_refused(tmp_path):
    config = how2(tmp_path, on_missing="error")
    (tmp_path / "train.lst").write_text("v1\nnobody\n")
    with pytest.raises(MissingData, match="1 ids have no entry in the shard index: nobody.*on_missing: skip"):
        ShardedHow2MetaProcessor(config)


def test_a_list_of_unknown_ids_only_is_refused(tmp_path):
    config = how2(tmp_path)
    (tmp_path / "train.lst").write_text("x\ny\n")
    with pytest.raises(MissingData, match="none of its 2 ids"):
        ShardedHow2MetaProcessor(config)


def test_videos_without_captions_are_left_out(tmp_path):
    config = how2(tmp_path)
    from mmpt.utils import ShardedTensor

    path = tmp_path / "text.train_1.startends"
    shard = ShardedTensor.load(path)
    ShardedTensor.from_list([shard[0], shard[1][:0], shard[2], shard[3]]).save(path)
    meta = ShardedHow2MetaProcessor(config)
    assert len(meta) == 9 and meta.missing == {"have no captions": ["v5"]}


def group_names(meta):
    return [[place[0] for place in meta[i][0]] for i in range(len(meta))]


def test_groups_are_consecutive_runs_and_the_incomplete_one_is_dropped(tmp_path):
    meta = ShardedHow2VideoRetriMetaProcessor(how2(tmp_path))
    assert group_names(meta) == [["v0", "v1", "v2"], ["v3", "v4", "v5"], ["v6", "v7", "v8"]]
    assert meta[1][0][2] == ("v5", -1, 1, 1)


def test_fewer_videos_than_a_group_make_one_small_group(tmp_path):
    assert (
        len(group_names(ShardedHow2VideoRetriMetaProcessor(how2(tmp_path, num_video_per_batch=64)))[0]) == 10
    )


def test_candidates_replace_the_groups(tmp_path):
    meta = ShardedHow2VideoRetriMetaProcessor(how2(tmp_path))
    meta.set_candidates([["v9", "v0"], ["v4", "v4"]])
    assert group_names(meta) == [["v9", "v0"], ["v4", "v4"]]
    assert meta[0][1][0] == ("v9", -1, 2, 1)


@pytest.mark.parametrize(
    ("groups", "message"), [([], "no groups"), ([["v1", "ghost"]], "'ghost' has no entry")]
)
def test_candidates_that_cannot_be_used_are_refused(tmp_path, groups, message):
    with pytest.raises(ValueError, match=message):
        ShardedHow2VideoRetriMetaProcessor(how2(tmp_path)).set_candidates(groups)


def test_random_candidates_regroup_all_videos(tmp_path):
    meta = ShardedHow2VideoRetriMetaProcessor(how2(tmp_path, num_video_per_batch=5))
    meta.random_candidates(np.random.default_rng(0))
    groups = group_names(meta)
    assert sorted(video for group in groups for video in group) == sorted(meta.video_ids())
    assert groups[0] != ["v0", "v1", "v2", "v3", "v4"]


@pytest.mark.parametrize("path", golden_cases("norton_retrieval_batches*.npz"))
def test_golden_norton_retrieval_batches_random_candidates(path, tmp_path):
    golden = load_golden(path)
    config = how2(
        tmp_path,
        n_videos=int(golden["num_videos"]),
        seconds=1,
        captions=1,
        num_video_per_batch=golden["random_candidates"].shape[1],
    )
    meta = ShardedHow2VideoRetriMetaProcessor(config)
    meta.random_candidates(random.Random(int(golden["seed"]) + 1))
    expected = [[f"v{i}" for i in group] for group in golden["random_candidates"].tolist()]
    assert group_names(meta)[: len(expected)] == expected  # the original keeps a multiple of 8 groups


def test_group_processors_return_one_entry_per_video(tmp_path):
    config = how2(tmp_path)
    places, _ = ShardedHow2VideoRetriMetaProcessor(config)[1]
    videos, texts = (
        ShardedVideoRetriVideoProcessor(config)(places),
        ShardedVideoRetriTextProcessor(config)(places),
    )
    assert [int(video[0, 0]) for video in videos] == [3, 4, 5]
    assert [text["cap"][0, 0] for text in texts] == [13, 14, 15]


def test_processors_with_open_shards_can_be_sent_to_a_worker(tmp_path):
    config = how2(tmp_path)
    meta, video = ShardedHow2VideoRetriMetaProcessor(config), ShardedVideoRetriVideoProcessor(config)
    places, _ = meta[0]
    video(places)
    meta, video = pickle.loads(pickle.dumps((meta, video)))
    assert [int(feature[0, 0]) for feature in video(meta[2][0])] == [6, 7, 8]


def caption_pickle(tmp_path, captions):
    save_plain_pickle(captions, tmp_path / "captions.pkl")
    return PKLJSONStrTextProcessor(
        replace(CONFIG, caption_pkl_path=str(tmp_path / "captions.pkl")), WordTokenizer()
    )


def test_captions_come_from_a_pickle_of_json_strings(tmp_path):
    text = caption_pickle(
        tmp_path,
        {"v": json.dumps({"start": [0.5, 4], "end": [3.2, 5], "text": ["cut the onion", float("nan")]})},
    )
    assert text("v") == {"start": [0.5, 4], "end": [3.2, 5], "cap": [[13, 13, 15], []]}


def test_long_captions_are_cut_at_96_characters(tmp_path):
    text = caption_pickle(tmp_path, {"v": json.dumps({"start": [0], "end": [1], "text": ["x " * 90]})})
    assert len(text("v")["cap"][0]) == 48


def test_a_video_absent_from_the_caption_pickle_is_missing_data(tmp_path):
    with pytest.raises(MissingData, match="no captions of video 'w'"):
        caption_pickle(tmp_path, {"v": "{}"})("w")


def test_a_caption_pickle_that_runs_code_is_refused(tmp_path):
    (tmp_path / "captions.pkl").write_bytes(pickle.dumps({"v": print}))
    with pytest.raises(UnsafePickle, match="builtins.print"):
        PKLJSONStrTextProcessor(replace(CONFIG, caption_pkl_path=str(tmp_path / "captions.pkl")))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["train_1", "text.train_1.startends", "text.train_1.caps_ids"])
@pytest.mark.parametrize("damage", [truncate, lambda path: path.unlink()])
def test_a_damaged_shard_is_fatal_at_the_start_and_named(tmp_path, name, damage):
    config = how2(tmp_path)
    damage(tmp_path / f"{name}_data.npy")
    with pytest.raises(ShardError, match=f"{name}_data.npy"):
        ShardedHow2MetaProcessor(config)


@pytest.mark.parametrize("name", ["train_1", "text.train_1.startends", "text.train_1.caps_ids"])
def test_the_videos_of_a_damaged_shard_are_left_out_when_told_to_skip(tmp_path, name, caplog):
    config = how2(tmp_path, on_damaged="skip")
    truncate(tmp_path / f"{name}_data.npy")
    meta = ShardedHow2VideoRetriMetaProcessor(config)
    assert meta.missing == {"lie in damaged shards": ["v4", "v5", "v6", "v7"]}
    assert [video for i in range(len(meta)) for video, *_ in meta[i][0]] == [
        "v0",
        "v1",
        "v2",
        "v3",
        "v8",
        "v9",
    ]
    assert f"{name}_data.npy" in caplog.text and "Its 4 videos are left out" in caplog.text


@pytest.mark.parametrize(("setting", "error"), [("error", ShardError), ("skip", MissingData)])
def test_a_shard_that_disappears_later_is_an_error_or_a_missing_item(tmp_path, setting, error):
    config = how2(tmp_path, on_damaged=setting)
    meta, video, text = (
        ShardedHow2MetaProcessor(config),
        ShardedVideoProcessor(config),
        ShardedTextProcessor(config),
    )
    for file in tmp_path.glob("*train_2*_data.npy"):
        file.unlink()
    place = meta[9][0]
    for processor in (video, text):
        with pytest.raises(error, match="train_2.*no such shard file"):
            processor(place)


def test_reading_ahead_changes_nothing_that_is_read(tmp_path):
    config = how2(tmp_path)
    places = ShardedHow2VideoRetriMetaProcessor(config)[1][0]
    for processor in (ShardedVideoRetriVideoProcessor, ShardedVideoRetriTextProcessor):
        ahead, plain = processor(config)(places), processor(replace(config, read_ahead=False))(places)
        for one, other in zip(ahead, plain, strict=True):
            for key in one if isinstance(one, dict) else [slice(None)]:
                np.testing.assert_array_equal(one[key], other[key])


def test_shards_behind_a_url_give_the_same_items(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    config = how2(tmp_path)
    store = fsspec.filesystem("memory")
    for file in tmp_path.iterdir():
        if file.is_file():
            store.pipe_file(f"/shards/{file.name}", file.read_bytes())
    remote = replace(
        config,
        vfeat_dir="memory://shards",
        tfeat_dir="memory://shards/text.",
        cache_dir=str(tmp_path / "cache"),
    )
    items = []
    for settings in (config, remote):
        meta = ShardedHow2VideoRetriMetaProcessor(settings)
        places = meta[2][0]
        items.append(
            (
                places,
                ShardedVideoRetriVideoProcessor(settings)(places),
                ShardedVideoRetriTextProcessor(settings)(places),
            )
        )
    store.rm("/shards", recursive=True)
    assert items[0][0] == items[1][0]
    np.testing.assert_array_equal(np.stack(items[0][1]), np.stack(items[1][1]))
    np.testing.assert_array_equal(items[0][2][1]["cap"], items[1][2][1]["cap"])
