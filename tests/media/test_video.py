"""Decoding by time stamp."""

from __future__ import annotations

import struct
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from mmpt.media.audio import AudioError, read_audio, read_audio_windows
from mmpt.media.clock import Clock
from mmpt.media.video import (
    VIDEO_SUFFIXES,
    Damage,
    VideoError,
    _decode_needed,
    frame_at,
    open_media,
    probe,
    read_frames,
    read_seconds,
)
from tests.conftest import ODD, REAL, odd_file, real_path
from tests.media.media import write_audio, write_clip, write_video

av = pytest.importorskip("av")


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


def grey_levels(frames: np.ndarray) -> np.ndarray:
    """Which frame of a `write_clip` file each is."""
    return np.round(frames.mean((1, 2, 3)) / 2).astype(int)


@pytest.mark.parametrize("chosen", [[0, 3, 26, 27, 49, 59], [59], list(range(60)), [1, 1, 30, 30]])
def test_frames_chosen_by_number_are_those_of_a_whole_reading(tmp_path, chosen):
    path = write_clip(tmp_path / "v.mkv", 6)
    counted = []
    frames = read_frames(path, lambda n: counted.append(n) or chosen)
    assert counted == [60] and frames.shape[1:] == (48, 64, 3)
    np.testing.assert_allclose(grey_levels(frames), chosen, atol=1)


def test_frames_of_a_segment_are_counted_from_its_start(tmp_path):
    path = write_clip(tmp_path / "v.mkv", 6)
    frames = read_frames(path, lambda n: [0, n - 1], segment=(2.0, 4.0))
    np.testing.assert_allclose(grey_levels(frames), [20, 39], atol=1)
    with pytest.raises(VideoError, match="no frames at 7.0-9.0 s"):
        read_frames(path, lambda n: [0], segment=(7.0, 9.0))


@pytest.mark.parametrize("chunk_s", [1, 2, 16])
def test_chunks_join_to_the_same_video(tmp_path, chunk_s):
    path = write_video(tmp_path / "v.mkv", range(0, 3400, 200), shade=lambda i: 10 * i)
    chunks = list(read_seconds(path, fps=4, size=16, chunk_s=chunk_s))
    assert all(len(chunk) <= chunk_s for chunk in chunks)
    assert np.array_equal(np.concatenate(chunks), read(path, fps=4))


def test_one_frame_is_one_second(tmp_path):
    assert read(write_video(tmp_path / "v.mkv", [0]), fps=4).shape == (1, 4, 16, 16, 3)


@pytest.fixture
def upright(tmp_path):
    """A video filmed with the phone upright: stored lying, to be turned clockwise; its bright half belongs on
    top."""
    path = tmp_path / "v.mp4"
    write_video(path, [0, 100], shade=lambda i: np.where(np.arange(64) < 32, 200, 20)[None, :, None])
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # left becomes top
    content = path.read_bytes()
    track = content.index(plain, content.index(b"tkhd"))
    path.write_bytes(content[:track] + clockwise + content[track + len(plain) :])
    return path


def test_video_filmed_with_the_phone_upright_is_turned(upright):
    image = read(upright, fps=1)[0, 0].mean(axis=-1)
    assert image[:6].mean() > 150 > 60 > image[-6:].mean()


def test_thumbnail_is_upright_and_whole(upright):
    image = frame_at(upright, 0.0, height=32).mean(axis=-1)
    assert image.shape == (32, 24) and image[:12].mean() > 150 > 60 > image[-12:].mean()


@pytest.mark.parametrize(("time_s", "shown"), [(0, 0), (0.31, 3), (2.05, 20), (99, 29)])
def test_thumbnail_shows_the_frame_on_screen_at_that_time(tmp_path, time_s, shown):
    path = write_video(tmp_path / "v.mkv", range(0, 3000, 100), shade=lambda i: 8 * i)
    assert frame_at(path, time_s).mean() == pytest.approx(8 * shown, abs=4)


def test_video_without_frames_is_an_error_with_its_name(tmp_path):
    write_video(tmp_path / "v.mkv", [])
    with pytest.raises(VideoError, match=r"v\.mkv: "):
        read(tmp_path / "v.mkv")


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("mpeg4", "yuv420p"), ("mjpeg", "yuvj420p"), ("ffv1", "bgr0"), ("ffv1", "gray")]
)
def test_stored_range_and_channel_order_do_not_matter(tmp_path, codec, pix_fmt):
    colour = (128, 128, 128) if pix_fmt == "gray" else (230, 120, 20)
    path = write_video(tmp_path / "v.mkv", [0, 100], shade=lambda i: colour, codec=codec, pix_fmt=pix_fmt)
    np.testing.assert_allclose(read(path, fps=1)[0, 0].mean(axis=(0, 1)), colour, atol=5)


def test_black_and_white_of_limited_range_are_0_and_255(tmp_path):
    path = write_video(tmp_path / "v.mkv", [0, 1000], shade=lambda i: 255 * i)
    black, white = read(path, fps=1)[:, 0].mean(axis=(1, 2, 3))
    assert black < 3 and white > 252


def test_10000_seconds_are_read_in_bounded_memory(tmp_path):
    path = write_video(tmp_path / "v.mkv", range(0, 10_000_000, 2000), shade=lambda i: i % 250, size=(32, 32))
    tracemalloc.start()
    n_seconds = sum(len(chunk) for chunk in read_seconds(path, fps=1, size=32, chunk_s=16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 9998 <= n_seconds <= 10000 and peak < 2e6  # all seconds at once: 31 MB


def test_of_several_video_tracks_the_one_that_players_choose_is_read():
    assert (
        read(real_path("videos", "nasa_with_audio.mp4"), fps=1).shape[0] == 14
    )  # the first, smaller track has 13 s


def test_unknown_decoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected pyav or torchcodec"):
        list(read_seconds(tmp_path / "v.mp4", decoder="decord"))


@pytest.fixture
def torchcodec():
    """Skips where torchcodec is absent, or finds no FFmpeg libraries on the system."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec cannot be used here: {str(error).splitlines()[0]}")
    return VideoDecoder


FILES = [
    path
    for folder in (ODD, REAL / "videos")
    for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
    if path.suffix in VIDEO_SUFFIXES
]
NO_FILES = pytest.param(None, marks=pytest.mark.skip(reason=f"neither {ODD} nor {REAL} is here"))


@pytest.mark.parametrize("path", FILES or [NO_FILES], ids=lambda path: path and path.name)
def test_torchcodec_and_pyav_show_the_same_frames_of_odd_and_real_videos(torchcodec, path):
    ours, theirs = (
        read(path, fps=3, size=32, decoder=decoder).astype(float) for decoder in ("pyav", "torchcodec")
    )
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean(axis=(2, 3, 4)).max() < 3  # a neighbouring frame differs by more


def test_torchcodec_and_pyav_show_the_same_frames_of_variable_rate(torchcodec, tmp_path):
    path = write_video(tmp_path / "v.mkv", [0, 100, 500, 600, 1400, 1500])
    ours, theirs = (read(path, fps=10, decoder=decoder).astype(float) for decoder in ("pyav", "torchcodec"))
    np.testing.assert_allclose(ours, theirs, atol=4)


def test_torchcodec_turns_upright_videos_too(torchcodec, upright):
    image = read(upright, fps=1, decoder="torchcodec")[0, 0].mean(axis=-1)
    assert image[:6].mean() > 150 > 60 > image[-6:].mean()


def test_torchcodec_names_a_damaged_file(torchcodec, tmp_path):
    (tmp_path / "v.mp4").write_bytes(bytes(1000))
    with pytest.raises(VideoError, match=r"v\.mp4: damaged"):
        read(tmp_path / "v.mp4", fps=1, decoder="torchcodec")


def test_where_torchcodec_stops_pyav_goes_on_and_the_log_says_so(torchcodec, caplog):
    damage = Damage()
    read(odd_file("one_damaged_packet.mp4"), fps=2, decoder="torchcodec", damage=damage)
    assert damage.concealed_s > 0 and "PyAV decodes from" in caplog.text


def test_missing_file_text_file_and_audio_file_are_named(tmp_path):
    (tmp_path / "note.mp4").write_text("not a video")
    write_audio(tmp_path / "sound.wav", np.zeros((2, 800), np.int16), layout="stereo")
    for name, reason in [
        ("absent.mp4", "no such file"),
        ("note.mp4", "damaged or not a video"),
        ("sound.wav", "no video stream"),
    ]:
        with pytest.raises(VideoError, match=f"{name}: .*{reason}"):
            read(tmp_path / name)
    assert read_audio(tmp_path / "sound.wav", 16000).shape[0] == pytest.approx(1600, abs=40)


def test_real_video_has_its_seconds_and_upright_square_frames():
    path = real_path("videos", "weightlifter.mp4")
    seconds = read(path, fps=3, size=32)
    assert seconds.shape == (19, 3, 32, 32, 3)  # 18.1 s
    assert seconds[0].std() > 10
    info = probe(path)
    assert (info.width, info.height, info.has_audio) == (320, 240, True) and info.duration_s == pytest.approx(
        18.158
    )


def test_corrupted_video_is_an_error_with_its_name_where_no_damage_is_accepted():
    with pytest.raises(VideoError, match=r"corrupted\.mp4: damaged"):
        read(real_path("videos", "corrupted.mp4"), fps=1, max_damage=0)


def test_audio_of_a_real_video_is_mono_at_the_asked_rate():
    wave = read_audio(real_path("videos", "nasa_with_audio.mp4"), 16000)
    assert wave.dtype == np.int16 and wave.ndim == 1 and len(wave) / 16000 == pytest.approx(13.0, abs=0.1)
    assert np.abs(wave).max() > 100


def test_video_without_audio_is_an_error_with_its_name():
    with pytest.raises(AudioError, match="lion_tree_monkey.mp4: holds no audio"):
        read_audio(real_path("videos", "lion_tree_monkey.mp4"))


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_any_number_of_channels_becomes_one(tmp_path, layout, channels):
    tone = (8000 * np.sin(np.arange(8000) / 10)).astype(np.int16)
    path = write_audio(tmp_path / "a.wav", np.tile(tone, (channels, 1)), layout=layout)
    wave = read_audio(path, 8000)
    assert wave.shape == (8000,) and np.corrcoef(wave, tone)[0, 1] > 0.999
    assert 0.5 < np.abs(wave).max() / 8000 < 4


@pytest.mark.parametrize(("window_s", "chunk_s"), [(1, 16), (1, 1), (3, 2), (4, 16)])
def test_every_second_of_sound_gets_its_window(tmp_path, window_s, chunk_s):
    rate, n = 800, 5
    wave = np.repeat(np.arange(1, n + 1, dtype=np.int16), rate)[: -rate // 2]
    path = write_audio(tmp_path / "a.wav", wave[None], rate=rate)
    windows = np.concatenate(list(read_audio_windows(path, rate, window_s, chunk_s)))
    assert windows.shape == (n, window_s * rate)
    before = (window_s - 1) // 2
    padded = np.pad(wave, (before * rate, (window_s + 1) * rate))
    for second, window in enumerate(windows):
        assert np.array_equal(window, padded[second * rate : (second + window_s) * rate])


@pytest.mark.parametrize("kind", ["mkv", "mp4", "avi"])
def test_a_title_in_another_encoding_does_no_harm(tmp_path, kind):
    path = tmp_path / f"v.{kind}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "title"
        stream, sound = (
            container.add_stream("mpeg4", rate=4),
            container.add_stream("mp3", rate=16000, layout="mono"),
        )
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24"))
        )
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format="s16p", layout="mono")
        piece.sample_rate = 16000
        container.mux([*stream.encode(), *sound.encode(piece), *sound.encode()])
    path.write_bytes(path.read_bytes().replace(b"title", b"caf\xe9\xff"))
    assert read(path, fps=4).shape == (1, 4, 16, 16, 3) and len(read_audio(path))


def test_video_of_an_unknown_kind_is_an_error_with_its_name(tmp_path):
    path = write_video(tmp_path / "v.avi", [0, 500])
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"XQZ7"))
    for use in (probe, lambda file: frame_at(file, 0), read):
        with pytest.raises(VideoError, match="v.avi: FFmpeg has no decoder"):
            use(path)


def test_damage_anywhere_is_an_error_with_the_name_of_the_file_or_none(tmp_path):
    whole, rng, path = (
        write_clip(tmp_path / "whole.mkv", 2, rate=2000).read_bytes(),
        np.random.default_rng(0),
        tmp_path / "v.mkv",
    )
    n_refused = 0
    for _ in range(40):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(len(damaged) if rng.random() < 0.5 else 800, size=rng.choice([1, 10, 50]))
        damaged[places] = rng.integers(256, size=len(places))
        path.write_bytes(damaged.tobytes())
        for use in (probe, lambda file: read(file, fps=4), lambda file: list(read_audio_windows(file, 2000))):
            try:
                use(path)
            except (VideoError, AudioError) as error:
                assert str(error).startswith(str(path))
                n_refused += 1
    assert n_refused > 10


@pytest.mark.parametrize("window_s", [1, 2, 3])
def test_sound_may_end_with_a_chunk(tmp_path, window_s):
    path = write_audio(tmp_path / "a.wav", np.ones((1, 8 * 256), np.int16), rate=256)
    windows = np.concatenate(list(read_audio_windows(path, 256, window_s, chunk_s=4)))
    assert windows.shape == (8, window_s * 256)


@pytest.mark.parametrize(("video_ms", "sound_ms"), [(0, 1500), (1500, 0), (700, 700)])
def test_seconds_of_sound_count_from_the_first_frame(tmp_path, video_ms, sound_ms):
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        video, audio = (
            container.add_stream("mpeg4", rate=10),
            container.add_stream("pcm_s16le", rate=1000, layout="mono"),
        )
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for i in range(30):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = i + video_ms // 100, Fraction(1, 10)
            piece = av.AudioFrame.from_ndarray(
                np.full((1, 100), 100 * i + sound_ms + 1, np.int16), format="s16", layout="mono"
            )
            piece.sample_rate, piece.pts, piece.time_base = 1000, 100 * i + sound_ms, Fraction(1, 1000)
            container.mux([*video.encode(frame), *audio.encode(piece)])
        container.mux([*video.encode(), *audio.encode()])
    wave = np.concatenate(list(read_audio_windows(tmp_path / "v.mkv", 1000))).ravel()
    heard = np.flatnonzero(wave)
    assert heard[0] == max(0, sound_ms - video_ms)
    np.testing.assert_array_equal(
        wave[heard], (heard + video_ms) // 100 * 100 + 1
    )  # the sound tells its own time


def test_long_sound_is_read_in_bounded_memory(tmp_path):
    path = write_audio(tmp_path / "a.wav", np.ones((1, 3_000_000), np.int16), rate=8000)
    tracemalloc.start()
    n = sum(len(windows) for windows in read_audio_windows(path, 8000, window_s=2, chunk_s=8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 375 and peak < 1.5e6  # all at once: 6 MB


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """H.264 as the web has it, with frames that no other is built from, at an uneven rate; frame i is a grey
    of its own."""
    path = tmp_path_factory.mktemp("predicted") / "v.mp4"
    times = np.cumsum([0, *np.random.default_rng(0).integers(20, 60, 119)]).tolist()
    return write_video(path, times, shade=lambda i: 2 * i, codec="libx264"), times


@pytest.mark.parametrize("fps", [1, 3, 7, 30, 100])
def test_frames_left_undecoded_are_not_missed(predicted, fps):
    path, times = predicted
    shown = read(path, fps=fps)[:, :, 8, 8, 0].astype(float).ravel()
    asked = np.arange(int(fps * times[-1] / 1000)) / fps * 1000
    expected = 2 * (np.searchsorted(times, asked + 1e-3, side="right") - 1)
    np.testing.assert_allclose(shown[: len(asked)], expected, atol=2)


def test_frames_that_are_neither_shown_nor_built_upon_are_not_decoded(predicted):
    path, times = predicted
    counts = []
    for step in (0.5, 1e-3):
        with open_media(path, "video") as (container, stream):
            counts.append(sum(1 for _ in _decode_needed(Clock(container, stream), stream, [], step)))
    assert counts[0] < 0.75 * counts[1] and counts[1] == len(times)
