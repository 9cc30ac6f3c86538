"""Full-video retrieval: golden numbers, what a constant does, columns and facts of the report."""

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import FullVideoBGRetrievalMetric, FullVideoRetrievalMetric
from mmpt.evaluators.tasks.fullvideo import CURVE
from tests.conftest import golden_cases, load_golden
from tests.evaluators.ragged import ragged

COMPAT = EvalConfig(compat=True, bootstrap=0)
EXACT = EvalConfig(bootstrap=0)


def toy(n_videos=6, width=16, seed=0, noise=0.5):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 6, (n_videos,), generator=generator).tolist()
    ids = [f"video{i}" for i, length in enumerate(lengths) for _ in range(length)]
    video = torch.randn(len(ids), width, generator=generator, dtype=torch.float64)
    return ids, video, video + noise * torch.randn(len(ids), width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("background", ["removed", "kept"])
@pytest.mark.parametrize("constant", [-64.0, 2.0, 1024.0])
def test_a_constant_added_to_all_scores_changes_no_rank(background, constant):
    scores, rows, cols = ragged(background=background == "kept")
    scores = np.round(scores * 1024) / 1024  # adding the constant is exact
    if background == "kept":
        metric, lengths = FullVideoBGRetrievalMetric, {"text_lengths": rows, "video_lengths": cols}
    else:
        metric, lengths = FullVideoRetrievalMetric, {"video_ids": np.repeat(np.arange(len(rows)), rows)}
    plain, moved = (metric(EXACT).evaluate(scores=x, **lengths) for x in (scores, scores + constant))
    assert plain.values == moved.values
    for name, ranks in plain.per_query.items():
        assert (ranks == moved.per_query[name]).all(), name


def test_the_published_forms_rest_on_a_constant_and_the_curve_shows_it():
    ids, video, text = toy(n_videos=24, noise=2.0)
    result = FullVideoRetrievalMetric(EXACT).evaluate(pooled_text=text, pooled_video=video, video_ids=ids)
    curve = {
        name.removeprefix(CURVE): list(values.values())
        for name, values in result.facts.items()
        if name.startswith(CURVE)
    }
    for name in ("Cap. Avg.", "DTW", "OTAM", "monotone", "OT"):
        assert len(set(curve[name])) == 1
    for name in ("exact-DTW", "exact-OTAM"):
        assert max(curve[name]) - min(curve[name]) > 0.5


def test_shuffled_captions_fall_by_every_measure_of_order():
    ids, video, text = toy(n_videos=24, noise=0.5)
    rows = {name: [row for row, of in enumerate(ids) if of == name] for name in dict.fromkeys(ids)}
    backwards = text[[row for of_video in rows.values() for row in reversed(of_video)]]
    ordered, shuffled = (
        FullVideoRetrievalMetric(EXACT)(pooled_text=x, pooled_video=video, video_ids=ids)
        for x in (text, backwards)
    )
    assert ordered["R1"] == shuffled["R1"]
    for name in ("DTW-R1", "OTAM-R1", "monotone-R1"):
        assert shuffled[name] < ordered[name] - 0.2, name


def test_the_order_of_the_videos_changes_nothing():
    ids, video, text = toy()
    names = list(dict.fromkeys(ids))[::-1]
    order = [row for name in names for row, of in enumerate(ids) if of == name]
    plain, turned = (
        FullVideoRetrievalMetric(EXACT)(
            pooled_text=text[rows], pooled_video=video[rows], video_ids=[ids[row] for row in rows]
        )
        for rows in (range(len(ids)), order)
    )
    assert plain == pytest.approx(turned)


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_fullvideo_numbers(path):
    arrays = load_golden(path)
    found = FullVideoRetrievalMetric(COMPAT)(
        scores=arrays["fullvideo_scores"], video_ids=arrays["fullvideo_clip_video_index"]
    )
    np.testing.assert_allclose(
        [found[name] for name in arrays["fullvideo_metric_names"]], arrays["fullvideo_metrics"], rtol=1e-6
    )


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
def test_golden_norton_metrics_bg_numbers(path):
    arrays = load_golden(path)
    lengths = {name: arrays[f"bg_{name}"].tolist() for name in ("text_lengths", "video_lengths")}
    found = FullVideoBGRetrievalMetric(COMPAT)(scores=arrays["bg_scores"], **lengths)
    np.testing.assert_allclose(
        [found[name] for name in arrays["fullvideo_metric_names"]], arrays["bg_metrics"], rtol=1e-6
    )


@pytest.mark.parametrize("path", golden_cases("tempclr_fullvideo*.npz"))
def test_golden_tempclr_fullvideo_numbers(path):
    arrays = load_golden(path)
    config = EvalConfig(protocol="tempclr", compat=True, bootstrap=0)
    for i in range(int(arrays["n_cases"])):
        rows, cols = arrays[f"c{i}_text_lengths"].tolist(), arrays[f"c{i}_video_lengths"].tolist()
        if rows == cols:
            ids = np.repeat(arrays[f"c{i}_video_ids"], rows)
            found = FullVideoRetrievalMetric(config)(scores=arrays[f"c{i}_sim"], video_ids=ids)
        else:
            found = FullVideoBGRetrievalMetric(config)(
                scores=arrays[f"c{i}_sim"], text_lengths=rows, video_lengths=cols
            )
        for name in ("R1", "R5", "R10", "DTW-R1", "DTW-R5", "DTW-R10", "OTAM-R1", "OTAM-R5", "OTAM-R10"):
            assert found[name] == pytest.approx(arrays[f"c{i}_upstream_{name}"]), (i, name)
            if "-" in name:
                assert found[f"exact-{name}"] == pytest.approx(arrays[f"c{i}_{name}"]), (i, name)


def test_clips_of_a_video_need_not_be_neighbours():
    ids, video, text = toy()
    order = np.random.default_rng(0).permutation(len(ids))
    grouped = sorted(order, key=lambda row: ids[row])
    plain, mixed = (
        FullVideoRetrievalMetric(EXACT)(
            pooled_text=text[rows], pooled_video=video[rows], video_ids=[ids[row] for row in rows]
        )
        for rows in (grouped, order)
    )
    assert plain == mixed


def test_every_measure_has_raw_and_centred_columns():
    ids, video, text = toy()
    result = FullVideoRetrievalMetric(EXACT).evaluate(pooled_text=text, pooled_video=video, video_ids=ids)
    measures = {name.removesuffix("-R1") for name in result.values if name.endswith("-R1")}
    assert measures == {
        "DTW",
        "OTAM",
        "OT",
        "monotone",
        "cosine",
        "cosine-DTW",
        "cosine-OTAM",
        "cosine-OT",
        "cosine-monotone",
    }
    assert result.per_query["ids"].tolist() == list(dict.fromkeys(ids))


def test_a_perfect_model_finds_every_video_by_every_exact_measure():
    ids, video, _ = toy()
    video = 10 * torch.nn.functional.normalize(video, dim=1)
    found = FullVideoRetrievalMetric(EXACT)(pooled_text=video, pooled_video=video, video_ids=ids)
    assert found["R1"] == found["OT-R1"] == found["cosine-R1"] == found["cosine-OT-R1"] == 1


def test_background_windows_that_match_nothing_do_not_hide_the_video():
    ids, video, _ = toy(width=64)
    lengths = [ids.count(name) for name in dict.fromkeys(ids)]
    noise = 0.01 * torch.randn(
        len(lengths), 3, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    unit = torch.nn.functional.normalize(video, dim=1)
    windows = torch.cat([torch.cat(pair) for pair in zip(unit.split(lengths), noise, strict=True)])
    found = FullVideoBGRetrievalMetric(EXACT)(
        pooled_text=unit,
        pooled_video=windows,
        text_lengths=lengths,
        video_lengths=[length + 3 for length in lengths],
    )
    assert found["R1"] == found["OT-R1"] == 1


def test_ranks_stand_in_the_order_of_the_videos():
    ids, video, _ = toy()
    text = 10 * torch.nn.functional.normalize(video, dim=1)
    wrong = [row for row, name in enumerate(ids) if name == "video1"]
    text[wrong] *= -1
    result = FullVideoRetrievalMetric(EXACT).evaluate(pooled_text=text, pooled_video=video, video_ids=ids)
    assert (result.per_query["ranks"] > 1).tolist() == [name == "video1" for name in result.per_query["ids"]]


def test_ids_that_do_not_match_the_scores_are_refused():
    with pytest.raises(ValueError, match="3 video ids for 4 captions and 4 clips"):
        FullVideoRetrievalMetric(EXACT)(scores=np.eye(4), video_ids=["a", "a", "b"])


def test_lengths_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="video_lengths: 2 videos with 5 rows in all, expected 2 with 4"):
        FullVideoBGRetrievalMetric(EXACT)(scores=np.eye(4), text_lengths=[2, 2], video_lengths=[2, 3])
    with pytest.raises(ValueError, match="text_lengths"):
        FullVideoBGRetrievalMetric(EXACT)(scores=np.eye(4), text_lengths=[4, 0], video_lengths=[2, 2])


def test_compat_gives_the_plain_names_to_the_released_values_and_keeps_the_others_beside_them():
    ids, video, text = toy()
    arrays = {"pooled_text": text, "pooled_video": video, "video_ids": ids}
    plain, compat = FullVideoRetrievalMetric(EXACT)(**arrays), FullVideoRetrievalMetric(COMPAT)(**arrays)
    for name in ("DTW-R1", "OTAM-R1"):
        assert compat[f"shift-free-{name}"] == plain[name] and f"exact-{name}" in compat
    assert not any("exact" in name or "historic" in name for name in plain)
