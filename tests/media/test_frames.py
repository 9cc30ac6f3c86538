"""Which frames a model sees, and how their pixels are cut and scaled."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt.media.frames import PIXELS, TRANSFORMS, chunk_positions, model_pixels
from tests.conftest import golden_cases, load_golden


@pytest.mark.parametrize("case", golden_cases("release_frames*.npz"))
def test_golden_release_frames_chosen_and_scaled(case):
    golden = load_golden(case)
    for name in sorted({key.split(".")[0] for key in golden}):
        frames = golden[f"{name}.frames_rgb"]
        chosen = chunk_positions(len(frames), int(golden[f"{name}.sample_num"]))
        assert (chosen == golden[f"{name}.indices"]).all()
        for transform in TRANSFORMS:
            for statistics in ("clip", "imagenet"):
                pixels = model_pixels(
                    frames[chosen], int(golden[f"{name}.resolution"]), transform, statistics
                )
                assert np.abs(pixels - golden[f"{name}.{transform}.{statistics}"]).max() < 3e-7


@pytest.mark.parametrize("case", golden_cases("release_fbank*.npz"))
def test_golden_release_fbank_middles_of_chunks(case):
    for n, n_chunks, *expected in load_golden(case)["chunk_middle_index"]:
        assert chunk_positions(n, n_chunks).tolist() == [place for place in expected if place >= 0]


def test_drawn_positions_lie_in_their_chunks_and_cover_them():
    drawn = np.array([chunk_positions(10, 4, np.random.default_rng(seed)) for seed in range(200)])
    assert [sorted(set(column)) for column in drawn.T] == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]
    assert chunk_positions(2, 4, np.random.default_rng(0)).tolist() == [0, 1, 1, 1]


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="nothing to choose from"):
        chunk_positions(0, 2)


def ramp(height: int, width: int) -> np.ndarray:
    """Two equal frames whose value grows from left to right."""
    return np.broadcast_to(np.arange(width, dtype=np.uint8)[:, None], (2, height, width, 3))


def test_a_training_crop_is_the_same_for_all_frames_and_sometimes_mirrored():
    crops = [
        model_pixels(ramp(40, 44), 8, "crop_flip", rng=np.random.default_rng(seed)) for seed in range(40)
    ]
    assert all((crop[0] == crop[1]).all() for crop in crops)
    rising = [crop[0, 0, 0, -1] > crop[0, 0, 0, 0] for crop in crops]
    assert 10 < sum(rising) < 30
    assert len({crop.tobytes() for crop in crops}) > 15


def test_a_picture_too_long_for_a_square_of_its_area_is_cut_in_the_middle():
    crop = model_pixels(ramp(20, 60), 20, "crop_flip", rng=np.random.default_rng(0))[0, 0, 0]
    mean, std = PIXELS["clip"].mean[0], PIXELS["clip"].std[0]
    values = np.sort(np.round((crop * std + mean) * 255).astype(int))
    assert values.tolist() == list(range(20, 40))


@pytest.mark.parametrize(
    "options, named", [({"transform": "crop"}, "crop_flip"), ({"statistics": "openai"}, "imagenet")]
)
def test_an_unknown_option_is_refused_with_the_known_ones(options, named):
    with pytest.raises(ValueError, match=named):
        model_pixels(ramp(8, 8), 4, **options)
