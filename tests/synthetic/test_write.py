import json

import numpy as np

from mmpt.synthetic.vocabulary import WordPiece
from mmpt.utils import ShardedTensor, load_plain_pickle
from mmpt.utils.shardedtensor import read_manifest


def test_lists_and_meta_pickles_name_the_videos_in_one_order(world, root):
    for split in ("train", "val"):
        listed = (root / "how2" / f"how2_s3d_{split}.lst").read_text().split()
        meta = load_plain_pickle(root / "how2" / "feat" / f"{split}_meta.pkl")
        assert (
            listed
            == [video.id for video in world.videos(split)]
            == [name for k in sorted(meta) for name in meta[k]]
        )
    assert len(load_plain_pickle(root / "how2" / "feat" / "train_meta.pkl")) == 3  # 48 videos, 16 a shard


def test_video_shards_hold_the_features(world, root):
    shard = ShardedTensor.load(root / "how2" / "feat" / "train_1", mmap_mode="r")
    assert shard.data.dtype == np.float16 and len(shard) == 16
    np.testing.assert_array_equal(shard[2], world.features(world.video("train", 18)))


def test_token_shards_hold_times_and_padded_ids_of_the_narration(world, root):
    tokenize = WordPiece.load(root / "model")
    sentences = world.narration(world.video("train", 18))
    times = ShardedTensor.load(root / "how2" / "feat" / "narration.train_1.startends")
    tokens = ShardedTensor.load(root / "how2" / "feat" / "narration.train_1.caps_ids")
    assert (times.data.dtype, tokens.data.dtype, tokens.data.shape[1]) == (np.float32, np.int32, 32)
    np.testing.assert_allclose(times[2], [(s.start_s, s.end_s) for s in sentences], atol=1e-4)
    assert [[i for i in row if i >= 0] for row in tokens[2].tolist()] == [tokenize(s.text) for s in sentences]


def test_the_caption_pickle_holds_json_strings(world, root):
    captions = load_plain_pickle(root / "how2" / "caption.pkl")
    assert len(captions) == world.count("train") + world.count("val")
    one = json.loads(captions["val00000"])
    assert one["text"] == [s.text for s in world.narration(world.video("val", 0))]
    assert len(one["start"]) == len(one["end"]) == len(one["text"])


def test_the_manifest_carries_the_feature_passport(root):
    entry = read_manifest(root / "how2" / "feat")["train_0"]
    assert entry["passport"]["backbone"] == "synthetic" and entry["passport"]["seconds_per_feature"] == 1.0
    assert entry["items"] == 16 and entry["dtype"] == "float16"
