"""Log mel energies of Kaldi, and slices of them."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt.media.fbank import fbank_slices, kaldi_fbank, mel_triangles
from tests.conftest import golden_cases, load_golden

FULL_SCALE = 2**15
FLOAT32 = 1e-6  # rounding of log energies up to 16
RELEASED = 3e-4  # what the release's own float32 sums are away from exact ones


@pytest.mark.parametrize("case", golden_cases("release_fbank*.npz"))
def test_golden_release_fbank_log_energies(case):
    golden = load_golden(case)
    for n_filters in (64, 128):
        energies = kaldi_fbank(golden["wav"] * FULL_SCALE, n_filters)
        assert np.abs(energies - golden[f"fbank_{n_filters}_raw_f64"]).max() < FLOAT32
        assert np.abs(energies - golden[f"fbank_{n_filters}_raw"]).max() < RELEASED
    assert (mel_triangles(64) == golden["mel_banks_64"]).all()


@pytest.mark.parametrize("case", golden_cases("release_fbank*.npz"))
def test_golden_release_fbank_slices(case):
    golden = load_golden(case)
    energies = kaldi_fbank(golden["wav"] * FULL_SCALE)
    for name in sorted({key.split(".")[0] for key in golden if key.startswith("slices")}):
        found = fbank_slices(
            energies, int(golden[f"{name}.target_length"]), int(golden[f"{name}.sample_num"])
        )
        assert found.shape == golden[f"{name}.out"].shape
        assert (
            np.abs(found - golden[f"{name}.out"]).max() < RELEASED / 13
        )  # the deviation that it is divided by


def test_a_drawn_slice_lies_in_its_chunk():
    energies = np.repeat(np.arange(75.0)[:, None], 2, axis=1)
    drawn = {tuple(fbank_slices(energies, 10, 2, np.random.default_rng(seed))[:, 0, 0]) for seed in range(50)}
    middle = fbank_slices(energies, 10, 2)[:, 0, 0]
    assert tuple(middle) in drawn and len(drawn) > 10
    assert all(first < second for first, second in drawn)


def test_sound_shorter_than_a_frame_gives_silence():
    assert kaldi_fbank(np.ones(399)).shape == (0, 64)
    assert not fbank_slices(kaldi_fbank(np.ones(399)), 16, 2).any()


def test_stereo_is_refused():
    with pytest.raises(ValueError, match="mono"):
        kaldi_fbank(np.ones((2, 800)))


def test_energies_of_ast_are_those_of_its_feature_extractor():
    extractor = pytest.importorskip("transformers").ASTFeatureExtractor()
    wave = (3000 * np.random.default_rng(0).standard_normal(16000 * 11)).astype(np.int16)
    expected = extractor(wave / np.float32(2**15), sampling_rate=16000)["input_values"][0]
    found = fbank_slices(kaldi_fbank(wave, 128, "ast")[:1024], 1024, 1, convention="ast")[0]
    assert np.abs(found - expected).max() < 1e-4
