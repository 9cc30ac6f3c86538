"""One clock for pictures and sound, whatever the time stamps say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmpt.media.audio import AudioError, read_audio_windows
from mmpt.media.video import Damage, VideoError, frame_at, probe, read_clip, read_seconds
from tests.conftest import ODD, ROOT, odd_file, real_path
from tests.media.media import write_stamped

av = pytest.importorskip("av")

EXPECTED = json.loads((ODD / "expected.json").read_text()) if (ODD / "expected.json").is_file() else {}
MEDIA = {name: right for name, right in EXPECTED.items() if not name.endswith(".csv")}
RATE = 8000


def odd(*kinds):
    """Names of odd files whose right answer says one of these things."""
    names = [name for name, right in MEDIA.items() if set(kinds) & set(right)]
    skip = pytest.mark.skip(reason=f"no odd files in {ODD} (set MMPT_ODD)")
    return names or [pytest.param("none", marks=skip)]


def video_rows(path, **options):
    return sum(len(seconds) for seconds in read_seconds(path, fps=5, size=16, **options))


def sound_rows(path):
    return np.concatenate(list(read_audio_windows(path, RATE)))


@pytest.mark.parametrize("name", odd("video_rows", "video_rows_at_least"))
def test_an_odd_video_has_its_seconds(name):
    rows, right = video_rows(ODD / name), MEDIA[name]
    assert rows == right.get("video_rows", rows) and rows >= right.get("video_rows_at_least", 0)


@pytest.mark.parametrize("name", odd("audio_rows"))
def test_an_odd_sound_has_its_seconds(name):
    assert len(sound_rows(ODD / name)) == MEDIA[name]["audio_rows"]


@pytest.mark.parametrize("name", odd("audio"))
def test_a_hole_in_the_sound_is_silence(name):
    loud = [np.abs(second.astype(float)).mean() > 500 for second in sound_rows(ODD / name)]
    assert ["loud" if it else "silent" for it in loud] == MEDIA[name]["audio"]


@pytest.mark.parametrize("name", odd("clip_at"))
def test_a_seek_that_lands_late_goes_back(name):
    right = MEDIA[name]
    for time in right["clip_at"]:
        luma = read_clip(ODD / name, time, 1, 25).mean() * 219 / 255  # of limited range, over black
        assert luma / 10 == pytest.approx(time, abs=right["tolerance_s"] + 0.2)  # colours are rounded
        assert np.array_equal(read_clip(ODD / name, time, 1, 25, 48)[0], frame_at(ODD / name, time, 48))


@pytest.mark.parametrize("name", odd("frames_ffmpeg"))
def test_damage_is_concealed_counted_and_can_be_refused(name):
    damage = Damage()
    assert video_rows(ODD / name, damage=damage) == MEDIA[name]["video_rows"]
    assert 0.04 <= damage.concealed_s <= 0.7 and damage.missing_s == 0
    with pytest.raises(VideoError, match=f"{name}: damaged: .* 0 % are accepted"):
        video_rows(ODD / name, max_damage=0)


def test_clips_of_a_file_without_a_length_can_be_taken():
    assert probe(odd_file("noduration.webm")).duration_s == pytest.approx(4, abs=0.1)


def test_a_file_cut_short_is_refused_and_what_is_missing_is_said(tmp_path):
    whole = next(iter(sorted(real_path("videos").glob("*.mp4"))))
    content = whole.read_bytes()
    if content.index(b"moov") > len(content) // 2:
        pytest.skip("the real video keeps its head at the end")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match=r"cut.mp4: damaged: .* [1-9][\d.]* s are missing at the end"):
        video_rows(cut)


def test_a_single_wrong_stamp_in_a_stream_without_decoding_times_is_dropped(tmp_path):
    frames = [(k / 10, 20 + k) for k in range(40)]
    frames[20] = (300.0, 40)
    with pytest.raises((ValueError, av.error.FFmpegError)):  # a muxer of order refuses it ...
        write_stamped(tmp_path / "v.mp4", frames, [])
    frames[20] = (2.0, 40)
    assert video_rows(write_stamped(tmp_path / "v.mkv", frames, [(0, 4, 1000)])) == 4


@pytest.mark.parametrize("times", [(0, 8, 16, 20), (0, 50, 100), (0, 5, 10, 15, 20, 60)])
def test_slides_stay_on_screen_until_the_next_one(tmp_path, times):
    path = write_stamped(tmp_path / "v.mkv", [(time, 2 * time) for time in times], [])
    seconds = np.concatenate(list(read_seconds(path, fps=5, size=16)))
    shown = [max(time for time in times if time <= second) for second in range(times[-1] + 1)]
    assert seconds[:-1, 0].mean((1, 2, 3)) == pytest.approx([2 * time for time in shown[:-1]], abs=6)
    assert len(seconds) == len(shown)


def test_a_recording_that_begins_late_on_its_clock_is_whole(tmp_path):
    frames = [(1e5 + k / 10, 50 + k) for k in range(30)]
    path = write_stamped(tmp_path / "v.mkv", frames, [(1e5, 3, 1000)])
    damage = Damage()
    assert video_rows(path, damage=damage) == len(sound_rows(path)) == 3 and not damage
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"1\.\d s are missing at the end, of 3\.0 s"):
        video_rows(path)


def test_a_list_of_other_files_is_no_video(tmp_path):
    write_stamped(tmp_path / "other.mkv", [(k / 10, 50) for k in range(20)], [(0, 2, 1000)])
    (tmp_path / "v.mp4").write_text("ffconcat version 1.0\nfile other.mkv\n")
    with pytest.raises(VideoError, match="v.mp4: damaged or not a video"):
        video_rows(tmp_path / "v.mp4")
    with pytest.raises(AudioError, match="v.mp4: damaged audio"):
        sound_rows(tmp_path / "v.mp4")


def test_whatever_a_reader_raises_is_the_failure_of_its_file(tmp_path, monkeypatch):
    path = write_stamped(tmp_path / "v.mkv", [(k / 10, 50) for k in range(20)], [(0, 2, 1000)])
    monkeypatch.setattr("mmpt.media.video._upright", lambda image, frame: 1 / 0)
    with pytest.raises(VideoError, match=r"v.mkv: cannot be read \(ZeroDivisionError: division by zero\)"):
        video_rows(path)


def test_sound_of_a_folder_is_named():
    with pytest.raises(AudioError, match="a folder"):
        sound_rows(ROOT / "mmpt")


def test_damaged_sound_is_silent_and_counted():
    damage = Damage()
    rows = sum(map(len, read_audio_windows(odd_file("one_damaged_packet.mp4"), RATE, damage=damage)))
    assert rows == 20 and damage.concealed_s < 1
