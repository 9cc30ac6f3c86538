from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpt.ops.crops import Crop, FeatureCrop, map_tokens, window_size, window_sizes
from tests.conftest import golden_cases, load_golden


def draws(crop, shape, kind, n=300):
    generator = torch.Generator().manual_seed(0)
    found = [c for _ in range(n) for c in crop.sample(shape, generator) if c.kind == kind]
    spatial = {(c.h0, c.h1, c.w0, c.w1) for c in found}
    return spatial if kind.startswith("s") else {(c.t0, c.t1) for c in found}


@pytest.mark.parametrize("path", golden_cases("gdt_stica_draws*.npz"))
def test_golden_gdt_stica_draws_cover_what_the_released_sampler_covers(path):
    golden = load_golden(path)
    for name, rows in golden.items():
        if name == "seed":
            continue
        axis, size, steps = name.split("_")
        kind, steps = axis[0] + size[0], int(steps[1:])
        whole = {"temporal_large": 3 if steps == 4 else 6, "temporal_small": 2 if steps == 4 else 4}
        legacy = draws(FeatureCrop(compat=True, **whole), (steps, 7, 7), kind)
        assert {tuple(row) for row in rows.tolist()} <= legacy
        assert legacy < draws(FeatureCrop(**whole), (steps, 7, 7), kind)


@pytest.mark.parametrize("kind, expected", [("sl", 2 * 2), ("ss", 4 * 4), ("tl", 3), ("ts", 5)])
def test_every_valid_offset_is_drawn(kind, expected):
    assert len(draws(FeatureCrop(), (8, 7, 7), kind)) == expected


@pytest.mark.parametrize("path", golden_cases("gdt_stica_crops*.npz"))
def test_golden_gdt_stica_crops_mean_pool_and_tokens(path):
    golden = load_golden(path)
    features, steps = torch.tensor(golden["feature_map"]), int(golden["duration"])
    for kind in ("s_large", "s_small", "t_large", "t_small"):
        for number, box in enumerate(golden[kind].tolist()):
            crop = Crop("sl", 0, steps, *box) if kind.startswith("s") else Crop("tl", *box, 0, 7, 0, 7)
            part = crop.apply(features)
            np.testing.assert_allclose(
                part.mean((2, 3, 4)), golden[f"{kind}.gap"][number], rtol=1e-5, atol=1e-6
            )
            np.testing.assert_allclose(
                map_tokens(part, steps).transpose(1, 2),
                golden[f"{kind}.tokens"][number],
                rtol=1e-5,
                atol=1e-6,
            )


def test_counts_and_kinds_are_those_asked_for():
    kinds = [crop.kind for crop in FeatureCrop(num_small_tcrops=3).sample((8, 7, 7))]
    assert [kinds.count(kind) for kind in ("sl", "ss", "tl", "ts")] == [2, 4, 2, 3]
    assert (
        FeatureCrop(num_large_crops=1, num_small_crops=0, num_large_tcrops=0, num_small_tcrops=0).sample(
            (8, 7, 7)
        )
        == []
    )


def test_crops_repeat_with_the_generator():
    first, second = (FeatureCrop().sample((8, 7, 7), torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == second


def test_sequences_have_temporal_crops_only():
    crops = FeatureCrop(num_large_crops=0, num_small_crops=0).sample((10,))
    sequence = torch.arange(10.0)[None, :, None]
    assert all(crop.apply(sequence).flatten().tolist() == list(range(crop.t0, crop.t1)) for crop in crops)
    with pytest.raises(ValueError, match="spatial crops need feature maps"):
        FeatureCrop().sample((10,))


@pytest.mark.parametrize(
    "length, size, window",
    [
        (7, 6 / 7, 6),
        (7, 4 / 7, 4),
        (4, 0.75, 3),
        (4, 0.5, 2),
        (8, 0.75, 6),
        (5, 0.5, 3),
        (1, 0.1, 1),
        (9, 4, 4),
    ],
)
def test_window_sizes_are_fractions_or_whole_numbers(length, size, window):
    assert window_size(length, size) == window


def test_a_window_larger_than_the_axis_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        window_size(4, 6)


def test_tokens_of_a_sequence_are_stretched_by_adaptive_means():
    sequence = torch.tensor([[[0.0], [2.0], [4.0]]])
    assert torch.equal(map_tokens(sequence), sequence)
    assert map_tokens(sequence, 4).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


LENGTHS = torch.tensor([9, 3, 1, 8])


def test_every_clip_has_windows_of_its_own_inside_its_length():
    found = {row: set() for row in range(4)}
    for seed in range(200):
        (crop,) = FeatureCrop(num_large_crops=0, num_small_crops=0, num_large_tcrops=0).sample(
            (LENGTHS,), torch.Generator().manual_seed(seed)
        )
        for row, window in enumerate(zip(crop.t0.tolist(), crop.t1.tolist(), strict=True)):
            found[row].add(window)
    assert found == {
        0: {(s, s + 5) for s in range(5)},
        1: {(0, 2), (1, 3)},
        2: {(0, 1)},
        3: {(s, s + 4) for s in range(5)},
    }


@pytest.mark.parametrize("size", [0.5, 0.75, 4 / 7, 4, 12])
def test_windows_of_each_clip_have_the_size_of_a_clip_alone(size):
    alone = [
        window_size(length, min(size, length) if isinstance(size, int) else size)
        for length in LENGTHS.tolist()
    ]
    assert window_sizes(LENGTHS, size).tolist() == alone


@pytest.mark.parametrize("place", [(), (7, 7)])
def test_crops_of_each_clip_equal_those_cut_from_it_alone(place):
    features = (
        torch.randn(4, 5, 9, *place, dtype=torch.float64)
        if place
        else torch.randn(4, 9, 5, dtype=torch.float64)
    )
    crops = FeatureCrop() if place else FeatureCrop(num_large_crops=0, num_small_crops=0)
    for crop in crops.sample((LENGTHS, *place), torch.Generator().manual_seed(0)):
        found = crop.tokens(features, 6)
        for row in range(4):
            alone = crop._replace(t0=int(crop.t0[row]), t1=int(crop.t1[row]))
            torch.testing.assert_close(found[row : row + 1], alone.tokens(features[row : row + 1], 6))
