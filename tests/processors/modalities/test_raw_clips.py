"""Clips of video and sound straight from files."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from mmpt.config import load_config
from mmpt.config.schema import DatasetConfig
from mmpt.datasets import build_dataset
from mmpt.media.audio import read_audio_around
from mmpt.media.video import read_clip
from mmpt.processors.base import MissingData
from mmpt.processors.modalities.raw_clips import RawAVAligner, RawAVProcessor, RawClipMetaProcessor, RawClips
from mmpt.utils.seed import ItemRandom
from tests.conftest import ROOT, real_path
from tests.media.media import write_audio, write_clip, write_video

av = pytest.importorskip("av")
RAW = {"frames": 6, "fps": 6, "size": 16, "sample_rate": 8000, "filters": 40}


def config(raw=None, **options):
    return DatasetConfig(**{"raw": RAW | (raw or {}), "split": "train"} | options)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "v.mkv", 10)


def item(path, seed=0, raw=None, **options):
    settings = config(raw, **options)
    return RawAVAligner(settings)(path, RawAVProcessor(settings)(path), None, ItemRandom(seed))


def shown_s(video):
    """Times of the frames of an unaugmented clip (3, T, S, S), from their greys."""
    return (video.mean(dim=(0, 2, 3)) * 0.225 + 0.45) * 255 / 20


@pytest.mark.parametrize(("start_s", "fps"), [(0.0, 4), (3.25, 10), (6.1, 3), (9.5, 5)])
def test_clip_shows_the_frames_of_its_moment_anywhere_in_a_file(clip, start_s, fps):
    frames = read_clip(clip, start_s, 4, fps)
    assert frames.shape == (4, 48, 64, 3)
    asked = np.minimum(start_s + np.arange(4) / fps, 9.95)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)) / 2, np.floor(10 * asked + 1e-6), atol=0.6)


def test_clip_of_a_large_video_is_read_small(clip):
    assert read_clip(clip, 0, 1, 1, short_side=24).shape == (1, 24, 32, 3)
    assert read_clip(clip, 0, 1, 1, short_side=240).shape == (1, 48, 64, 3)


@pytest.mark.parametrize("start_s", [0.0, 2.5, 7.0])
def test_sound_around_a_moment_is_that_of_the_whole_track(clip, start_s):
    wave, offset_s = read_audio_around(clip, start_s, 1.0, 8000)
    start = round(offset_s * 8000)
    loud = np.abs(wave[start : start + 4000].astype(float)).max()
    assert start >= 0 and len(wave) - start >= 8000 and len(wave) < 4 * 8000
    assert loud == pytest.approx(1000 * (1 + int(start_s)), rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_frames_and_sound_are_of_the_same_moment(clip, seed):
    made = item(clip, seed, split="valid")
    times = shown_s(made["video"])
    np.testing.assert_allclose(np.diff(times), 1 / 6, atol=0.12)
    energy = made["audio"][0, 20:].mean(dim=0) * 17.89 + 1.93  # log of amplitude squared, up to a constant
    quiet = (
        torch.from_numpy(np.log((1 + np.floor(float(times[0]) + 0.02 + np.arange(99) / 100)) ** 2)) - energy
    )[5:90]
    assert quiet.std() < 0.5


def test_clips_lie_anywhere_in_the_file_and_draws_are_repeatable(clip):
    starts = [float(shown_s(item(clip, seed, split="valid")["video"])[0]) for seed in range(12)]
    assert min(starts) < 3 and max(starts) > 6 and max(starts) <= 9.1
    assert torch.equal(item(clip, 3)["video"], item(clip, 3)["video"])


def test_views_are_reversed_shifted_and_both(clip):
    views = {
        "views": ["orig", "rev", "shift", "shiftrev"],
        "subsampling": 4,
        "min_shift": 3,
        "split": "valid",
    }
    made = item(clip, 1, **views)
    assert made["video"].shape == (4, 3, 6, 16, 16) and made["audio"].shape == (4, 1, 40, 99)
    assert made["view_valid"].tolist() == [True] * 4
    orig, rev, shift, shiftrev = (shown_s(video) for video in made["video"])
    torch.testing.assert_close(rev, orig.flip(0))
    torch.testing.assert_close(shiftrev, shift.flip(0))
    assert abs(float(shift[0] - orig[0])) >= 2.9
    assert torch.equal(made["audio"][1], made["audio"][0].flip(-1))


def test_views_are_augmented_each_by_itself(clip):
    made = item(clip, 1, views=["orig", "rev"], subsampling=2)
    assert not torch.allclose(made["video"][0], made["video"][1].flip(1), atol=1e-3)
    assert not torch.allclose(made["audio"][0], made["audio"][1].flip(-1), atol=1e-3)


def test_view_that_cannot_be_shifted_is_marked(tmp_path):
    path = write_clip(tmp_path / "v.mkv", 1)
    length = RawAVProcessor(config(raw={"frames": 1}))(path).info.duration_s
    made = RawAVAligner(config(views=["orig", "shift"], subsampling=2))
    assert made.places(1.0, np.random.default_rng(0)) == (0.0, 0.0) and length == pytest.approx(1.0, abs=0.2)
    if length == 1.0:
        assert item(path, views=["orig", "shift"], subsampling=2)["view_valid"].tolist() == [True, False]


def test_file_without_sound_too_short_or_damaged_is_missing_data(tmp_path):
    silent = write_video(tmp_path / "silent.mkv", range(0, 3000, 300))
    (tmp_path / "note.mp4").write_text("no video")
    write_audio(tmp_path / "sound.wav", np.zeros((1, 800), np.int16))
    for path, reason in [
        (silent, "no audio"),
        (tmp_path / "note.mp4", "damaged"),
        (tmp_path / "sound.wav", "no video stream"),
    ]:
        with pytest.raises(MissingData, match=reason):
            RawAVProcessor(config())(path)
    with pytest.raises(MissingData, match="a clip needs 4"):
        RawAVProcessor(config(raw={"sound_s": 4}))(write_clip(tmp_path / "v.mkv", 2))


def test_files_are_listed_from_a_folder_or_a_text_file(tmp_path):
    (tmp_path / "class").mkdir()
    for name in ("class/b.mp4", "a.mkv", "note.txt"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("class/b.mp4\n")
    assert [path.name for path, _ in RawClipMetaProcessor(config(train_path=str(tmp_path))).data] == [
        "a.mkv",
        "b.mp4",
    ]
    assert [path for path, _ in RawClipMetaProcessor(config(train_path=str(tmp_path / "list.txt"))).data] == [
        tmp_path / "class/b.mp4"
    ]
    with pytest.raises(FileNotFoundError, match="dataset.train_path="):
        RawClipMetaProcessor(config(train_path=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"frame": 3}, "Did you mean .*frames"),
        ({"size": 0}, "at least 1, got 0"),
        ({"spec_augment": "na"}, "expected one of mild"),
    ],
)
def test_bad_settings_are_named(raw, message):
    with pytest.raises(ValueError, match=message):
        RawClips.of(DatasetConfig(raw=raw))


def test_data_set_of_real_videos_skips_those_without_sound(caplog):
    path = ROOT / "projects/retri/gdt/raw_k400_av.yaml"
    overrides = [f"dataset.train_path={real_path('videos')}", "dataset.raw={frames: 8, fps: 8, size: 32}"]
    dataset = build_dataset(load_config(path, overrides), "train")
    with caplog.at_level(logging.WARNING):
        items = [dataset[i] for i in range(len(dataset))]
    assert {made["video_id"] for made in items} == {
        "nasa_with_audio",
        "weightlifter",
    } and dataset.n_skipped == 4
    assert (
        "corrupted.mp4: holds no audio track" in caplog.text
        and "lion_tree_monkey.mp4: holds no audio track" in caplog.text
    )
    batch = dataset.collate(items[:2])
    assert batch["video"].shape == (2, 4, 3, 8, 32, 32) and batch["audio"].shape == (2, 4, 1, 40, 99)
    assert batch["video"].isfinite().all() and batch["audio"].isfinite().all()
