"""Modalities read from files: found by id, cut and scaled as an encoder takes them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.config.schema import Config, DatasetConfig
from mmpt.datasets import build_dataset
from mmpt.media.frames import model_pixels
from mmpt.processors.base import MissingData
from mmpt.processors.modalities.modalities import Modality, read_modalities
from mmpt.synthetic.vocabulary import build_vocabulary, write_model_folder
from tests.media.media import write_audio, write_clip

av = pytest.importorskip("av")


def save_picture(path, value, size=(20, 16)):
    frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), value, np.uint8), format="rgb24")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = *size, "rgb24"
        container.mux([*stream.encode(frame), *stream.encode()])


def levels(pixels: np.ndarray) -> list[int]:
    """Mean grey value of standardised frames (n, 3, S, S)."""
    zero, one = (model_pixels(np.full((1, 4, 4, 3), v, np.uint8), 4)[0, 0, 0, 0] for v in (0, 255))
    return np.round(255 * (pixels[:, 0].mean((1, 2)) - zero) / (one - zero)).astype(int).tolist()


@pytest.fixture
def frames(tmp_path):
    return Modality(name="video", path=str(tmp_path), raw="frames", size=8).files()


def test_a_video_gives_the_middle_frame_of_each_chunk(frames, tmp_path):
    write_clip(tmp_path / "v.mkv", 4)
    pixels = frames.read("v", None, 4, None)
    assert pixels.shape == (4, 3, 8, 8) and pixels.dtype == np.float32
    np.testing.assert_allclose(levels(pixels), [2 * k for k in (4, 14, 24, 34)], atol=2)


def test_a_segment_of_a_video_is_cut_out(frames, tmp_path):
    write_clip(tmp_path / "v.mkv", 4)
    np.testing.assert_allclose(levels(frames.read("v", (2.0, 3.0), 1, None)), [48], atol=2)


def test_a_folder_of_pictures_gives_them_in_the_order_of_their_names_and_repeats_the_last(frames, tmp_path):
    (tmp_path / "v").mkdir()
    for number, value in enumerate((30, 60, 90)):
        save_picture(tmp_path / "v" / f"frame_{number:04}.png", value)
    assert levels(frames.read("v", None, 5, None)) == [30, 60, 90, 90, 90]
    assert levels(frames.read("v", (1, 2), 1, None)) == [60]


def test_one_picture_is_one_frame_and_an_id_may_carry_its_suffix(frames, tmp_path):
    save_picture(tmp_path / "a.png", 120)
    assert levels(frames.read("a.png", None, 1, None)) == levels(frames.read("a", None, 1, None)) == [120]


@pytest.mark.parametrize("name, shape", [("v_depth.npy", (4, 6, 8, 3)), ("v.npy", (4, 6, 8))])
def test_an_array_of_depth_is_read_under_the_name_that_its_maker_gives(tmp_path, name, shape):
    stream = Modality(name="depth", path=str(tmp_path), raw="frames", size=8).files()
    values = np.arange(4, dtype=np.uint8).reshape(4, *([1] * (len(shape) - 1)))
    np.save(tmp_path / name, 10 * np.broadcast_to(values, shape))
    assert "v" in stream and levels(stream.read("v", None, 2, None)) == [0, 20]


def test_an_id_may_name_sub_folders(frames, tmp_path):
    (tmp_path / "train").mkdir()
    save_picture(tmp_path / "train" / "v0.png", 50)
    assert "train/v0" in frames and "v0" not in frames and "test/v0" not in frames


def test_sound_becomes_normalised_slices(tmp_path):
    rng = np.random.default_rng(0)
    write_audio(tmp_path / "v.wav", rng.integers(-9999, 9999, (1, 16000 * 3)).astype(np.int16), rate=16000)
    stream = Modality(name="audio", path=str(tmp_path), raw="sound", slice_frames=128).files()
    slices = stream.read("v", None, 2, None)
    assert slices.shape == (2, 128, 64) and slices.dtype == np.float32
    assert not stream.read("v", (0, 1), 1, None)[:, 98:].any()  # a second has 98 frames, zeros behind them
    assert stream.read("v", None, 2, np.random.default_rng(1)).shape == (2, 128, 64)


@pytest.mark.parametrize("content", [b"no video", b""])
def test_a_damaged_file_is_named(frames, tmp_path, content):
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(MissingData, match="dataset.modalities.video: .*v.mp4"):
        frames.read("v", None, 1, None)


def test_a_video_without_sound_has_no_sound(tmp_path):
    save_picture(tmp_path / "v.png", 1)
    (tmp_path / "v.mkv").write_bytes((tmp_path / "v.png").read_bytes())
    with pytest.raises(MissingData, match="no audio track"):
        Modality(name="audio", path=str(tmp_path), raw="sound").files().read("v", None, 1, None)


@pytest.fixture
def config(tmp_path):
    write_model_folder(tmp_path / "model", build_vocabulary(["ab cd ef"] * 2), dropout=0.0)
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("v0", "v1"):
        write_clip(folder / f"{name}.mkv", 2)
    rows = [{"video_id": name, "desc": "ab cd", "subtitle": "ef"} for name in ("v0", "v1")]
    (tmp_path / "anno.json").write_text(json.dumps(rows))
    dataset = DatasetConfig(
        meta_processor="ModalityMetaProcessor",
        video_processor="ModalityVideoProcessor",
        text_processor="ModalityTextProcessor",
        aligner="ModalityAligner",
        bert_name=str(tmp_path / "model"),
        train_path=str(tmp_path / "anno.json"),
        test_path=str(tmp_path / "anno.json"),
        on_missing="mask",
        max_video_len=4,
        max_len=14,
        modalities={
            "video": {
                "path": str(folder),
                "raw": "frames",
                "size": 8,
                "transform": "crop_flip",
                "max_len": 3,
            },
            "audio": {"path": str(folder), "raw": "sound", "slice_frames": 64, "max_len": 2},
            "subtitle": {"max_len": 6},
        },
    )
    return Config(dataset=dataset)


def test_items_hold_what_encoders_read(config):
    item = build_dataset(config, "train")[0]
    assert item["video_feats"].shape == (3, 3, 8, 8) and item["video_masks"].all()
    assert item["audio_feats"].shape == (2, 64, 64) and item["present"].all()


def test_training_draws_anew_each_epoch_and_a_test_does_not(config):
    train, test = build_dataset(config, "train"), build_dataset(config, "test")
    first = [dataset[0]["video_feats"] for dataset in (train, test)]
    assert torch.equal(train[0]["video_feats"], first[0])
    for dataset in (train, test):
        dataset.set_epoch(7)
    assert not torch.equal(train[0]["video_feats"], first[0])
    assert torch.equal(test[0]["video_feats"], first[1])


def test_a_damaged_file_is_a_missing_modality_where_those_are_masked(config, caplog):
    path = f"{config.dataset.modalities['video']['path']}/v1.mkv"
    open(path, "wb").close()
    item = build_dataset(config, "test")[1]
    assert item["present"].tolist() == [False, False, True] and not item["video_feats"].any()
    assert "v1.mkv" in caplog.text
    refusing = replace(config, dataset=replace(config.dataset, on_missing="error"))
    with pytest.raises(MissingData, match="v1.mkv"):
        build_dataset(refusing, "test")[1]


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"raw": "pictures"}, "video.raw: expected one of frames, sound"),
        ({"raw": "frames", "transform": "crop"}, "video.transform: expected one of none, crop_flip"),
        ({"raw": "frames", "pixels": "eva"}, "video.pixels: expected one of clip, imagenet, siglip"),
        ({"raw": "frames", "size": 0}, "video.size: expected a finite number and at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(config, entry, message):
    modalities = {"video": {"path": "x", **entry}}
    with pytest.raises(ValueError, match=message):
        read_modalities(replace(config.dataset, modalities=modalities))
