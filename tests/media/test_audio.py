"""Log mel spectrograms."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt.media.audio import log_mel, mel_filters, spectrogram
from tests.conftest import golden_cases, load_golden


@pytest.mark.parametrize("path", golden_cases("gdt_data*.npz"))
def test_golden_gdt_data_spectrograms(path):
    arrays = load_golden(path)
    wave, rate = arrays["wav_int16"], int(arrays["sample_rate"])
    start, tail = float(arrays["from_sec"]), float(arrays["from_sec_tail"])
    check = lambda got, name: np.testing.assert_allclose(got, arrays[name], rtol=5e-6, atol=5e-6)  # noqa: E731
    check(spectrogram(wave, rate, start, normalise=False), "spec_type1")
    check(spectrogram(wave, rate, start), "spec_type1_znorm")
    check(spectrogram(wave, rate, tail, n_filters=257, normalise=False), "spec_type2_tail")
    two = spectrogram(wave, rate, 0, n_seconds=2, n_filters=257, normalise=False)
    assert two.shape == tuple(arrays["spec_type2_2s_shape"])
    check(two[:, :, -4:], "spec_type2_2s_last_cols")
    check(two[:, :40, :20], "spec_type2_2s_head")


def test_log_mel_of_one_frame_equals_the_slow_sums():
    wave = np.random.default_rng(0).normal(size=160) * 100
    emphasised = [wave[0]] + [wave[t] - 0.97 * wave[t - 1] for t in range(1, 160)]
    spectrum = [
        abs(sum(x * np.exp(-2j * np.pi * k * t / 1024) for t, x in enumerate(emphasised))) ** 2 / 1024
        for k in range(513)
    ]
    expected = np.log(mel_filters(8000, 5) @ np.array(spectrum))
    np.testing.assert_allclose(log_mel(wave, 8000, 5), expected[:, None], rtol=1e-9)


def test_short_waveform_leaves_zero_frames_at_the_end():
    got = spectrogram(np.ones(2400), 24000)
    assert got.shape == (1, 40, 99) and not got[..., 9:].any() and got[..., :9].any()


def test_silence_is_finite():
    assert np.isfinite(spectrogram(np.zeros(24000), 24000, n_filters=257)).all()


def test_stereo_is_refused():
    with pytest.raises(ValueError, match=r"mono waveform.*\(100, 2\)"):
        log_mel(np.zeros((100, 2)), 24000, 40)
