import json

import numpy as np

from mmpt.utils import ShardedTensor, load_plain_pickle


def annotation(root, name):
    return json.loads((root / "clips" / f"{name}.json").read_text())


def test_sound_shards_hold_the_videos_that_have_a_track(world, root):
    meta = load_plain_pickle(root / "how2" / "audio" / "train_meta.pkl")
    with_sound = [video for video in world.videos("train") if world.sound(video) is not None]
    assert [name for shard in sorted(meta) for name in meta[shard]] == [video.id for video in with_sound]
    assert 0 < len(with_sound) < world.count("train")
    np.testing.assert_array_equal(
        ShardedTensor.load(root / "how2" / "audio" / "train_0")[3], world.sound(with_sound[3])
    )


def test_maps_of_every_fourth_training_video_are_shards_and_of_test_videos_files(world, root):
    meta = load_plain_pickle(root / "how2" / "maps" / "train_meta.pkl")
    assert [name for shard in sorted(meta) for name in meta[shard]] == [
        video.id for video in world.videos("train")
    ][::4]
    np.testing.assert_array_equal(
        ShardedTensor.load(root / "how2" / "maps" / "train_0")[1], world.maps(world.video("train", 4))
    )
    video = world.video("test", 0)
    stored = np.load(root / "maps" / f"{video.id}.npy")
    assert stored.shape == (video.length_s, 4, 4, 32) and len(stored) == len(world.features(video))


def test_whole_videos_have_their_sound_beside_them(world, root):
    for video in world.videos("test"):
        path, sound = root / "audio" / f"{video.id}.npy", world.sound(video)
        assert path.exists() == (sound is not None)
        if sound is not None:
            np.testing.assert_array_equal(np.load(path), sound)


def test_a_clip_says_where_it_lies_what_it_shows_and_what_is_said_in_it(world, root):
    rows = annotation(root, "train")
    assert len(rows) == sum(len(video.segments) for video in world.videos("train"))
    video, row = world.video("train", 0), rows[1]
    assert (row["clip_id"], row["video_id"]) == (f"{video.id}_1", video.id)
    assert row["segment"] == [video.segments[1].start_s, video.segments[1].end_s]
    assert row["caption"] == [world.captions(video)[1]]
    start, end = row["segment"]
    said = [s.text for s in world.narration(video) if start <= (s.start_s + s.end_s) / 2 < end]
    assert row["subtitle"] == " ".join(said)


def test_silent_clips_have_an_empty_subtitle_and_most_clips_speak(root):
    subtitles = [row["subtitle"] for row in annotation(root, "train")]
    assert 0.05 < np.mean([text == "" for text in subtitles]) < 0.7


def test_whole_videos_are_listed_with_all_that_is_said(world, root):
    rows = annotation(root, "videos_train")
    assert [row["video_id"] for row in rows] == [video.id for video in world.videos("train")]
    assert rows[3]["subtitle"] == " ".join(s.text for s in world.narration(world.video("train", 3)))
    assert all(row["caption"] == "" and "segment" not in row for row in rows)


def test_the_gallery_comes_with_one_caption_and_with_five(world, root):
    one, five = annotation(root, "test"), annotation(root, "test_captions")
    assert len(one) == len(five) == len(world.gallery())
    assert {len(row["caption"]) for row in one} == {1} and {len(row["caption"]) for row in five} == {5}
