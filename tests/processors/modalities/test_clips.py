"""Raw clips: sampling in time, augmentation in colour and space."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpt.processors.modalities.clips import (
    SPEC_AUGMENT,
    ClipAugment,
    brightness,
    colour_jitter,
    contrast,
    draw_box,
    gaussian_blur,
    grayscale,
    resized_crop,
    saturation,
    scale_short_side,
    spec_augment,
    uniform_crop,
)
from tests.conftest import golden_cases, load_golden

GDT_DATA = pytest.mark.parametrize("path", golden_cases("gdt_data*.npz"))
RELEASED_WEIGHTS = (0.114, 0.587, 0.299)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def frames():
    return torch.rand(4, 3, 20, 30, generator=rng())


@GDT_DATA
@pytest.mark.parametrize("name", ["grayscale", "brightness", "contrast", "saturation"])
def test_golden_gdt_data_frames_tchw(path, name):
    arrays = load_golden(path)
    frames, factor = torch.from_numpy(arrays["frames_tchw"]), 1 + float(arrays["jitter_delta"])
    change = {
        "grayscale": lambda x: grayscale(x, RELEASED_WEIGHTS).expand_as(x),
        "brightness": lambda x: brightness(x, factor),
        "contrast": lambda x: contrast(x, factor, RELEASED_WEIGHTS),
        "saturation": lambda x: saturation(x, factor, RELEASED_WEIGHTS),
    }[name]
    np.testing.assert_allclose(change(frames).numpy(), arrays[name], rtol=1e-5, atol=1e-6)


@GDT_DATA
@pytest.mark.parametrize(
    ("name", "shape"), [("uniform_crop_wide", (20, 30)), ("uniform_crop_tall", (30, 20))]
)
def test_golden_gdt_data_uniform_crop(path, name, shape):
    counting = torch.arange(600.0).view(1, *shape)
    for position, expected in enumerate(load_golden(path)[name]):
        assert torch.equal(uniform_crop(counting, 16, position)[0], torch.from_numpy(expected))


@GDT_DATA
def test_golden_gdt_data_resized_crop(path):
    arrays = load_golden(path)
    box = [int(x) for x in arrays["resized_crop_ijhw"]]
    got = resized_crop(torch.from_numpy(arrays["frames_tchw"]), *box, 4)
    np.testing.assert_allclose(got.numpy(), arrays["resized_crop"], rtol=1e-5, atol=1e-6)


def bands(hidden):
    """Lengths of the runs of true."""
    edges = np.diff(np.concatenate([[0], hidden.astype(int), [0]]))
    return np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)


@GDT_DATA
@pytest.mark.parametrize("strength", SPEC_AUGMENT)
def test_golden_gdt_data_specaug_masks_are_masks_that_are_drawn_here(path, strength):
    arrays = load_golden(path)
    assert tuple(arrays[f"specaug_params_{strength}"]) == SPEC_AUGMENT[strength]
    drawn = [(spec_augment(torch.ones(40, 99), strength, rng(seed)) == 0).numpy() for seed in range(200)]
    for axis in (0, 1):  # hidden filters, hidden times: as many bands, no wider, as those of the reference
        widths = {tuple(sorted(bands(mask.all(axis=1 - axis)))) for mask in drawn}
        assert tuple(sorted(bands(arrays[f"specaug_mask_{strength}"].all(axis=1 - axis)))) in widths


@pytest.mark.parametrize("change", [brightness, contrast, saturation])
def test_factor_one_changes_no_colour(frames, change):
    torch.testing.assert_close(change(frames, 1.0), frames)


def test_gray_frames_have_no_saturation_to_change(frames):
    gray = grayscale(frames).expand_as(frames)
    torch.testing.assert_close(saturation(gray, 1.7), gray)


def test_jitter_is_the_same_for_every_frame_of_a_still_clip(frames):
    still = frames[:1].expand(4, -1, -1, -1)
    got = colour_jitter(still, 0.4, rng())
    assert torch.equal(got[0], got[3]) and not torch.allclose(got, still)


def test_blur_keeps_the_mean_and_equals_the_slow_sum(frames):
    got = gaussian_blur(frames, 1.3, kernel=5)
    weights = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.3**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    around = frames[1, 2, 6:11, 13:18].numpy()
    assert float(got[1, 2, 8, 15]) == pytest.approx(float((around * weights).sum()), rel=1e-5)
    torch.testing.assert_close(gaussian_blur(torch.ones(1, 3, 8, 8), 0.7, 5), torch.ones(1, 3, 8, 8))


def test_boxes_have_the_asked_area_and_aspect_and_lie_inside():
    for seed in range(100):
        top, left, height, width = draw_box(120, 160, (0.14, 1.0), rng(seed))
        assert top >= 0 and left >= 0 and top + height <= 120 and left + width <= 160
        assert 0.13 < height * width / (120 * 160) <= 1 and 0.72 < width / height < 1.38


def test_box_of_a_very_long_frame_falls_back_to_its_centre():
    top, left, height, width = draw_box(10, 1000, (1.0, 1.0), rng())
    assert (top, height, width) == (0, 10, 13) and left == (1000 - 13) // 2


def test_crop_larger_than_the_frame_is_refused(frames):
    with pytest.raises(ValueError, match="20 x 30: needs sides >= size"):
        uniform_crop(frames, 24, 0)


def test_short_side_is_scaled_and_the_aspect_kept(frames):
    assert scale_short_side(frames, 10).shape == (4, 3, 10, 15)


@pytest.mark.parametrize("augment", [ClipAugment(size=16, scale=(18, 24)), ClipAugment.stica(size=16)])
def test_augmented_clip_depends_on_its_generator_alone(augment):
    video = torch.randint(0, 256, (5, 40, 60, 3), dtype=torch.uint8, generator=rng())
    got = augment(video, rng(1))
    assert got.shape == (3, 5, 16, 16) and got.dtype == torch.float32 and got.isfinite().all()
    assert torch.equal(got, augment(video, rng(1))) and not torch.equal(got, augment(video, rng(2)))


def test_without_draws_the_clip_is_scaled_cropped_and_normalised():
    plain = ClipAugment(size=16, scale=(16, 16), flip=0, jitter=0)
    video = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=rng())
    torch.testing.assert_close(plain(video, rng()), (video.permute(3, 0, 1, 2) / 255 - 0.45) / 0.225)


def test_test_views_are_left_centre_and_right():
    video = torch.zeros(1, 16, 40, 3, dtype=torch.uint8)
    video[:, :, 24:] = 255
    views = ClipAugment(size=16).views(video)
    assert views.shape == (3, 3, 1, 16, 16)
    assert (views.mean(dim=(1, 2, 3, 4)) * 0.225 + 0.45).tolist() == pytest.approx([0, 0.25, 1], abs=1e-5)


def test_unknown_strength_of_spec_augment_lists_the_known():
    with pytest.raises(ValueError, match="'na': expected mild, medium, heavy"):
        spec_augment(torch.ones(40, 99), "na", rng())
