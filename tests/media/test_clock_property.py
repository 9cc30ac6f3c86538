"""Rows of pictures and sound of files made on the fly, against what was put into them."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt.media.audio import read_audio_windows
from mmpt.media.video import read_seconds
from tests.media.media import write_stamped

pytest.importorskip("av")
pytest.importorskip("hypothesis")

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

RATE = 8000


@st.composite
def recordings(draw):
    """Length, times of frames, seconds with sound, and what happens to the clock: nothing, a jump (from
    which second, by how much), or that it starts again with a second recording."""
    length = draw(st.integers(3, 6))
    gaps = draw(st.sampled_from([(0.1, 0.1), (1 / 30, 1 / 30), (0.02, 0.3), (0.05, 0.9)]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    times = [0.0]
    while times[-1] < length - 0.3:
        times.append(round(times[-1] + rng.uniform(*gaps), 3))
    begin, hole = draw(st.integers(0, 1)), draw(st.integers(1, length))
    heard = [s for s in range(begin, length) if s != hole]
    jump = st.tuples(st.integers(1, length - 1), st.sampled_from([40.0, 20_000.0]))
    return length, times, heard, draw(st.one_of(st.none(), jump, st.just("again")))


def near(values, row):
    """The values that a row may have, as its place is right to one row."""
    around = values[max(0, row - 1) : row + 2]
    return around.min(), around.max()


@settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])
@given(recordings())
def test_rows_of_pictures_and_sound_agree_with_the_truth_to_one_row(tmp_path_factory, recording):
    length, times, heard, clock = recording
    frames = [(time, 20 + 25 * int(time)) for time in times if time < length]
    # a Matroska file says how long it is by its stamps, a transport stream does not; nor has that one holes
    seconds = heard if clock is None else range(length)
    sounds = [(s, 1, 1000 * (s + 1) * (s in heard)) for s in seconds]
    path = tmp_path_factory.mktemp("v") / ("v.mkv" if clock is None else "v.ts")
    write_stamped(path, frames, sounds, clock if isinstance(clock, tuple) else None)
    n_times = 2 if clock == "again" else 1
    path.write_bytes(n_times * path.read_bytes())
    shown = np.concatenate(list(read_seconds(path, fps=10, size=16)))
    loud = np.abs(np.concatenate(list(read_audio_windows(path, RATE))).astype(float)).mean(1)
    assert abs(len(shown) - n_times * length) <= 1
    assert abs(len(loud) - (n_times - 1) * length - max(seconds) - 1) <= 1
    shades = np.tile([20.0 + 25 * s for s in range(length)], 3)
    for row, second in enumerate(shown[:-1]):
        least, most = near(shades, row)
        assert least - 6 < second[5].mean() < most + 6
    volumes = np.tile([1000.0 * (s + 1) * (s in heard) for s in range(length)], 3)
    if clock is None:
        volumes[length:] = 0
    for row, volume in enumerate(loud):
        least, most = near(volumes, row)
        assert least - 350 < volume < most + 350
