"""Decoding by time stamp."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest

from mmpt.utils.audio import AudioError, read_audio
from mmpt.utils.video import VideoError, probe, read_seconds
from tests.conftest import real_path

av = pytest.importorskip("av")


def write_video(path, times_ms, shade=lambda i: 20 * i, size=(64, 48), codec="mpeg4"):
    """A video whose frame i has grey value shade(i) and is shown from times_ms[i] on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times_ms):
            image = np.full((size[1], size[0], 3), shade(i), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read(path, **options):
    return np.concatenate(list(read_seconds(path, **({"size": 16} | options))))


def test_frames_are_chosen_by_time_in_a_video_of_variable_rate(tmp_path):
    times = [0, 100, 500, 600, 1400, 1500]
    path = write_video(tmp_path / "v.mkv", times)
    seconds = read(path, fps=10)
    shown = seconds[:, :, 8, 8, 0].astype(float).ravel()
    expected = [np.searchsorted(times, 100 * k, side="right") - 1 for k in range(16)]
    np.testing.assert_allclose(shown[:16], [20 * i for i in expected], atol=6)
    assert seconds.shape == (2, 10, 16, 16, 3) and not shown[17:].any()


@pytest.mark.parametrize("chunk_s", [1, 2, 16])
def test_chunks_join_to_the_same_video(tmp_path, chunk_s):
    path = write_video(tmp_path / "v.mkv", range(0, 3400, 200), shade=lambda i: 10 * i)
    chunks = list(read_seconds(path, fps=4, size=16, chunk_s=chunk_s))
    assert all(len(chunk) <= chunk_s for chunk in chunks)
    assert np.array_equal(np.concatenate(chunks), read(path, fps=4))


def test_one_frame_is_one_second(tmp_path):
    assert read(write_video(tmp_path / "v.mkv", [0]), fps=4).shape == (1, 4, 16, 16, 3)


def test_video_filmed_with_the_phone_upright_is_turned(tmp_path):
    path = tmp_path / "v.mp4"
    bright_left = lambda i: np.where(np.arange(64) < 32, 200, 20)[None, :, None]  # noqa: E731
    write_video(path, [0, 100], shade=bright_left)
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # left becomes top
    content = path.read_bytes()
    track = content.index(plain, content.index(b"tkhd"))
    path.write_bytes(content[:track] + clockwise + content[track + len(plain) :])
    image = read(path, fps=1)[0, 0].mean(axis=-1)
    assert image[:6].mean() > 150 > 60 > image[-6:].mean()


def test_missing_file_text_file_and_audio_file_are_named(tmp_path):
    (tmp_path / "note.mp4").write_text("not a video")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 800), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for name, reason in [("absent.mp4", "no such file"), ("note.mp4", "damaged or not a video"), ("sound.wav", "no video stream")]:
        with pytest.raises(VideoError, match=f"{name}: .*{reason}"):
            read(tmp_path / name)
    assert read_audio(tmp_path / "sound.wav", 16000).shape[0] == pytest.approx(1600, abs=40)


def test_real_video_has_its_seconds_and_upright_square_frames():
    path = real_path("videos", "weightlifter.mp4")
    seconds = read(path, fps=3, size=32)
    assert seconds.shape == (19, 3, 32, 32, 3)  # 18.1 s
    assert seconds[0].std() > 10
    info = probe(path)
    assert (info.width, info.height, info.has_audio) == (320, 240, True) and info.duration_s == pytest.approx(18.158)


def test_corrupted_video_is_an_error_with_its_name():
    with pytest.raises(VideoError, match=r"corrupted\.mp4: damaged"):
        read(real_path("videos", "corrupted.mp4"), fps=1)


def test_audio_of_a_real_video_is_mono_at_the_asked_rate():
    wave = read_audio(real_path("videos", "nasa_with_audio.mp4"), 16000)
    assert wave.dtype == np.int16 and wave.ndim == 1 and len(wave) / 16000 == pytest.approx(13.0, abs=0.1)
    assert np.abs(wave).max() > 100


def test_video_without_audio_is_an_error_with_its_name():
    with pytest.raises(AudioError, match="lion_tree_monkey.mp4: holds no audio"):
        read_audio(real_path("videos", "lion_tree_monkey.mp4"))
