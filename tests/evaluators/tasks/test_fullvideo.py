"""Full-video retrieval: golden matrices and numbers, a slow loop, independence of padding and tiling."""

import itertools

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import FullVideoBGRetrievalMetric, FullVideoRetrievalMetric
from mmpt.evaluators.ranking import ScoreMatrix
from mmpt.evaluators.tasks import fullvideo
from mmpt.evaluators.tasks.fullvideo import (
    KEEP,
    Groups,
    Spread,
    align_pair,
    caption_average,
    keep_best,
    paragraph_scores,
    shift_free_measures,
)
from mmpt.historic.full_video import PROTOCOLS, published_measures
from tests.conftest import golden_cases, load_golden


def matrices(scores, captions, clips, measure):
    """Measure -> (paragraphs, videos)."""
    whole = {}
    n_videos = len(clips.lengths)
    for queries, found in paragraph_scores(ScoreMatrix(scores), captions, clips, measure):
        for name, tile in found.items():
            whole.setdefault(name, torch.full((n_videos, n_videos), torch.nan, dtype=tile.dtype))[queries] = (
                tile
            )
    return {name: matrix.numpy() for name, matrix in whole.items()}


def published(scores, captions, clips, protocol, background):
    """As the releases measure, on the clips that they keep."""
    largest = captions.index.shape[1], clips.index.shape[1]

    def measure(block):
        found = {"": caption_average(block)}
        block = keep_best(block, KEEP) if background == "kept" else block
        lengths = block.rows, block.cols
        return found | published_measures(block.scores, lengths, largest, PROTOCOLS[protocol, background])

    return matrices(scores, captions, clips, measure)


def shift_free(scores, captions, clips, keep=None):
    spread = Spread.of(ScoreMatrix(scores))
    return matrices(scores, captions, clips, lambda block: shift_free_measures(block, spread, keep))


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
@pytest.mark.parametrize("group", ["fullvideo", "bg"])
def test_golden_norton_metrics_fullvideo_and_bg_matrices(path, group):
    arrays = load_golden(path)
    if group == "fullvideo":
        index = arrays["fullvideo_clip_video_index"]
        captions = clips = Groups.from_lists(
            [np.flatnonzero(index == video) for video in range(index.max() + 1)]
        )
        found = published(arrays["fullvideo_scores"], captions, clips, "norton", "removed")
    else:
        captions, clips = (
            Groups.from_lengths(arrays["bg_text_lengths"]),
            Groups.from_lengths(arrays["bg_video_lengths"]),
        )
        found = published(arrays["bg_scores"], captions, clips, "norton", "kept")
    np.testing.assert_allclose(found[""], arrays[f"{group}_matrix_capavg"], rtol=1e-6)
    for measure, key in ("DTW", "dtw"), ("OTAM", "otam"):
        np.testing.assert_allclose(found[f"historic-{measure}"], arrays[f"{group}_matrix_{key}"], rtol=1e-5)
        np.testing.assert_allclose(found[f"exact-{measure}"], arrays[f"{group}_exact_{key}"], rtol=1e-6)


@pytest.mark.parametrize("path", golden_cases("tempclr_fullvideo*.npz"))
def test_golden_tempclr_fullvideo_matrices(path):
    arrays = load_golden(path)
    for i in range(int(arrays["n_cases"])):
        case = {
            name.removeprefix(f"c{i}_"): value for name, value in arrays.items() if name.startswith(f"c{i}_")
        }
        background = "removed" if np.array_equal(case["text_lengths"], case["video_lengths"]) else "kept"
        captions, clips = (
            Groups.from_lengths(case["text_lengths"]),
            Groups.from_lengths(case["video_lengths"]),
        )
        found = published(case["sim"], captions, clips, "tempclr", background)
        np.testing.assert_allclose(found[""], case["score_cap"], rtol=1e-5)
        np.testing.assert_allclose(found[""], case["upstream_score_cap"], rtol=1e-5)
        for measure, key in ("DTW", "dtw"), ("OTAM", "otam"):
            np.testing.assert_allclose(found[f"exact-{measure}"], case[f"score_{key}"], rtol=1e-6)
            np.testing.assert_allclose(found[f"historic-{measure}"], case[f"upstream_score_{key}"], rtol=1e-5)


def slow_dtw(cost):
    rows, cols = cost.shape
    total = np.full((rows + 1, cols + 1), np.inf)
    total[0, 0] = 0
    for i in range(rows):
        for j in range(cols):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return total[-1, -1]


def ragged(seed=0, background=False):
    """Random scores over five videos of unequal length."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(2, 6, 5)
    cols = rng.integers(4, 12, 5) if background else rows
    return rng.normal(size=(rows.sum(), cols.sum())), rows, cols


def blocks_of(scores, rows, cols):
    row_edges, col_edges = np.cumsum([0, *rows]), np.cumsum([0, *cols])
    for i in range(len(rows)):
        for j in range(len(cols)):
            yield i, j, scores[row_edges[i] : row_edges[i + 1], col_edges[j] : col_edges[j + 1]]


def slow_otam(cost):
    """Every column takes one row; rows never go back; the first and last column may take several."""
    rows, cols = cost.shape
    total = np.full((rows + 1, cols + 2), np.inf)
    total[:, 0] = 0
    padded = np.pad(cost, ((0, 0), (1, 1)))
    best = np.zeros((rows, cols + 2))
    best[0] = padded[0].cumsum()
    for i in range(1, rows):
        for j in range(1, cols + 2):
            ways = [best[i - 1, j - 1], best[i, j - 1]]
            ways += [best[i - 1, j]] if j in (1, cols + 1) else []
            best[i, j] = padded[i, j] + min(ways)
    return best[-1, -1]


def test_all_measures_equal_a_slow_loop_over_pairs():
    scores, rows, cols = ragged(background=True)
    found = shift_free(scores, Groups.from_lengths(rows), Groups.from_lengths(cols))
    for i, j, block in blocks_of(scores, rows, cols):
        n, m = block.shape
        cost = scores.max() - block
        assert found[""][i, j] == pytest.approx(block.max(1).mean())
        assert found["DTW"][i, j] == pytest.approx(-slow_dtw(cost) / max(n, m))
        assert found["OTAM"][i, j] == pytest.approx(-slow_otam(cost) / m - slow_otam(cost.T) / n)
        ways = itertools.combinations_with_replacement(range(m), n)
        assert found["monotone"][i, j] == pytest.approx(max(block[range(n), way].mean() for way in ways))
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    for i, j, block in blocks_of(scaled, rows, cols):
        u, v, kernel = np.ones(len(block)), np.ones(block.shape[1]), np.exp(block / 0.1)
        for _ in range(50):
            u = 1 / len(block) / (kernel @ v)
            v = 1 / block.shape[1] / (u @ kernel)
        assert found["OT"][i, j] == pytest.approx((u[:, None] * kernel * v * block).sum())


def test_two_captions_and_two_clips_have_a_closed_form():
    scores = np.array([[0.9, 0.2], [0.4, 0.7]])
    two = Groups.from_lists([[0, 1]])
    found = {name: float(matrix[0, 0]) for name, matrix in shift_free(scores, two, two).items()}
    assert found["DTW"] == pytest.approx(-((0.9 - 0.9) + (0.9 - 0.7)) / 2)
    assert found["monotone"] == pytest.approx((0.9 + 0.7) / 2) and found[""] == pytest.approx(0.8)
    assert found["OTAM"] == pytest.approx(-0.2 / 2 - 0.2 / 2)


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
        name.removeprefix(fullvideo.CURVE): list(values.values())
        for name, values in result.facts.items()
        if name.startswith(fullvideo.CURVE)
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


def test_transport_keeps_the_best_windows_in_temporal_order():
    scores, rows, cols = ragged(background=True)
    captions, clips = Groups.from_lengths(rows), Groups.from_lengths(cols)
    found = matrices(scores, captions, clips, lambda block: {"": caption_average(keep_best(block, KEEP))})
    dtw = published(scores, captions, clips, "norton", "kept")["exact-DTW"]
    for i, j, block in blocks_of(scores, rows, cols):
        keep = min(int(KEEP * len(block)), block.shape[1])
        kept = block[:, np.sort(np.argsort(-block.max(0), kind="stable")[:keep])]
        assert found[""][i, j] == pytest.approx(kept.max(1).mean())
        assert dtw[i, j] == pytest.approx(-slow_dtw((3 - kept) * rows.max() * cols.max() / kept.size))


@pytest.mark.parametrize("bins", [1, 2, 8])
@pytest.mark.parametrize("background", ["removed", "kept"])
def test_scores_do_not_depend_on_tiling(background, bins, monkeypatch):
    scores, rows, cols = ragged(background=background == "kept")
    args = scores, Groups.from_lengths(rows), Groups.from_lengths(cols)
    whole = shift_free(*args) | published(*args, "norton", background)
    monkeypatch.setattr(fullvideo, "_TILE_ELEMENTS", 1)
    monkeypatch.setattr(fullvideo, "_BINS", bins)
    for measure, matrix in (shift_free(*args) | published(*args, "norton", background)).items():
        np.testing.assert_allclose(matrix, whole[measure], rtol=1e-6, err_msg=measure)


def test_a_longer_video_elsewhere_changes_a_published_pair_only_by_the_common_scale():
    scores, _, _ = ragged()
    short = Groups.from_lists([[0, 1], [2, 3, 4]])
    longer = Groups.from_lists([[0, 1], [2, 3, 4], list(range(5, 5 + 9))])
    two, three = (published(scores, groups, groups, "norton", "removed") for groups in (short, longer))
    np.testing.assert_allclose(three["exact-DTW"][:2, :2], two["exact-DTW"] * (9 / 3) ** 2)
    np.testing.assert_allclose(three["exact-OTAM"][:2, :2], two["exact-OTAM"] * (9 / 3) ** 2)


def test_transport_of_one_clip_per_side_is_its_score():
    scores = np.array([[0.2, 0.9], [0.4, 0.1]])
    one = Groups.from_lists([[0], [1]])
    np.testing.assert_allclose(shift_free(scores, one, one)["OT"], (scores - 0.1) / 0.8)


@pytest.mark.parametrize("keep", [None, KEEP])
def test_the_alignment_of_a_pair_is_the_one_behind_its_scores(keep):
    scores = torch.randn(9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    captions, clips = Groups.from_lengths([2, 4, 3]), Groups.from_lengths([3, 3, 6])
    found = shift_free(scores, captions, clips, keep)
    pair = align_pair(ScoreMatrix(scores), captions, clips, 1, 2, keep)
    if keep is None:
        assert -pair.cost[pair.dtw].sum() / 6 == pytest.approx(found["DTW"][1, 2])
    scaled = (scores.max() - pair.cost - scores.min()) / (scores.max() - scores.min())
    assert (pair.plan * scaled).sum() == pytest.approx(found["OT"][1, 2])
    rows, cols = pair.otam.nonzero().T
    assert (rows.diff() >= 0).all() and (cols.diff() >= 0).all()


COMPAT = EvalConfig(compat=True, bootstrap=0)
EXACT = EvalConfig(bootstrap=0)


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


def toy(n_videos=6, width=16, seed=0, noise=0.5):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 6, (n_videos,), generator=generator).tolist()
    ids = [f"video{i}" for i, length in enumerate(lengths) for _ in range(length)]
    video = torch.randn(len(ids), width, generator=generator, dtype=torch.float64)
    return ids, video, video + noise * torch.randn(len(ids), width, generator=generator, dtype=torch.float64)


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
