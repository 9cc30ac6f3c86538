"""Full-video retrieval: golden matrices and numbers, a slow loop, independence of padding and tiling."""

import numpy as np
import pytest
import torch

from mmpt.config import EvalConfig
from mmpt.evaluators import FullVideoBGRetrievalMetric, FullVideoRetrievalMetric
from mmpt.evaluators.ranking import ScoreMatrix
from mmpt.evaluators.tasks import fullvideo
from mmpt.evaluators.tasks.fullvideo import PROTOCOLS, Groups, align_pair, paragraph_scores
from tests.conftest import golden_cases, load_golden


def matrices(scores, captions, clips, protocol):
    """Measure -> (paragraphs, videos)."""
    whole = {}
    n_videos = len(clips.lengths)
    for queries, found in paragraph_scores(ScoreMatrix(scores), captions, clips, protocol):
        for measure, tile in found.items():
            whole.setdefault(measure, torch.full((n_videos, n_videos), torch.nan, dtype=tile.dtype))[
                queries
            ] = tile
    return {measure: matrix.numpy() for measure, matrix in whole.items()}


@pytest.mark.parametrize("path", golden_cases("norton_metrics*.npz"))
@pytest.mark.parametrize("group", ["fullvideo", "bg"])
def test_golden_norton_metrics_fullvideo_and_bg_matrices(path, group):
    arrays = load_golden(path)
    if group == "fullvideo":
        index = arrays["fullvideo_clip_video_index"]
        captions = clips = Groups.from_lists(
            [np.flatnonzero(index == video) for video in range(index.max() + 1)]
        )
        found = matrices(arrays["fullvideo_scores"], captions, clips, PROTOCOLS["norton", "removed"])
    else:
        captions, clips = (
            Groups.from_lengths(arrays["bg_text_lengths"]),
            Groups.from_lengths(arrays["bg_video_lengths"]),
        )
        found = matrices(arrays["bg_scores"], captions, clips, PROTOCOLS["norton", "kept"])
    np.testing.assert_allclose(found[""], arrays[f"{group}_matrix_capavg"], rtol=1e-6)
    for measure, key in ("DTW", "dtw"), ("OTAM", "otam"):
        np.testing.assert_allclose(found[f"historic-{measure}"], arrays[f"{group}_matrix_{key}"], rtol=2e-4)
        np.testing.assert_allclose(found[measure], arrays[f"{group}_exact_{key}"], rtol=1e-6)


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
        found = matrices(case["sim"], captions, clips, PROTOCOLS["tempclr", background])
        np.testing.assert_allclose(found[""], case["score_cap"], rtol=1e-4)
        np.testing.assert_allclose(found[""], case["upstream_score_cap"], rtol=1e-4)
        for measure, key in ("DTW", "dtw"), ("OTAM", "otam"):
            np.testing.assert_allclose(found[measure], case[f"score_{key}"], rtol=1e-6)
            np.testing.assert_allclose(found[f"historic-{measure}"], case[f"upstream_score_{key}"], rtol=1e-4)


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


def test_all_measures_equal_a_slow_loop_over_pairs():
    scores, rows, cols = ragged()
    found = matrices(
        scores, Groups.from_lengths(rows), Groups.from_lengths(cols), PROTOCOLS["tempclr", "removed"]
    )
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    for i, j, block in blocks_of(scores, rows, cols):
        assert found[""][i, j] == pytest.approx(block.max(1).mean())
        assert found["DTW"][i, j] == pytest.approx(-slow_dtw((1 - block) * rows.max() ** 2 / block.size))
    for i, j, block in blocks_of(scaled, rows, cols):
        u, v, kernel = np.ones(len(block)), np.ones(block.shape[1]), np.exp(block / 0.1)
        for _ in range(50):
            u = 1 / len(block) / (kernel @ v)
            v = 1 / block.shape[1] / (u @ kernel)
        assert found["OT"][i, j] == pytest.approx((u[:, None] * kernel * v * block).sum())


def test_kept_windows_are_the_best_ones_in_temporal_order():
    scores, rows, cols = ragged(background=True)
    found = matrices(
        scores, Groups.from_lengths(rows), Groups.from_lengths(cols), PROTOCOLS["norton", "kept"]
    )
    for i, j, block in blocks_of(scores, rows, cols):
        keep = min(int(1.3 * len(block)), block.shape[1])
        kept = block[:, np.sort(np.argsort(-block.max(0), kind="stable")[:keep])]
        cost = (3 - kept) * rows.max() * cols.max() / kept.size
        assert found["DTW"][i, j] == pytest.approx(-slow_dtw(cost))


@pytest.mark.parametrize("bins", [1, 2, 8])
@pytest.mark.parametrize("background", ["removed", "kept"])
def test_scores_do_not_depend_on_tiling(background, bins, monkeypatch):
    scores, rows, cols = ragged(background=background == "kept")
    args = scores, Groups.from_lengths(rows), Groups.from_lengths(cols), PROTOCOLS["norton", background]
    whole = matrices(*args)
    monkeypatch.setattr(fullvideo, "_TILE_ELEMENTS", 1)
    monkeypatch.setattr(fullvideo, "_BINS", bins)
    for measure, matrix in matrices(*args).items():
        np.testing.assert_allclose(matrix, whole[measure], rtol=1e-6, err_msg=measure)


def test_a_longer_video_elsewhere_changes_a_pair_only_by_the_common_scale():
    scores, rows, _ = ragged()
    short = Groups.from_lists([[0, 1], [2, 3, 4]])
    longer = Groups.from_lists([[0, 1], [2, 3, 4], list(range(5, 5 + 9))])
    two = matrices(scores, short, short, PROTOCOLS["norton", "removed"])
    three = matrices(scores, longer, longer, PROTOCOLS["norton", "removed"])
    np.testing.assert_allclose(three["DTW"][:2, :2], two["DTW"] * (9 / 3) ** 2)
    np.testing.assert_allclose(three["OTAM"][:2, :2], two["OTAM"] * (9 / 3) ** 2)


def test_transport_of_one_clip_per_side_is_its_score():
    scores = np.array([[0.2, 0.9], [0.4, 0.1]])
    one = Groups.from_lists([[0], [1]])
    found = matrices(scores, one, one, PROTOCOLS["norton", "removed"])
    np.testing.assert_allclose(found["OT"], (scores - 0.1) / 0.8)


@pytest.mark.parametrize("protocol", PROTOCOLS.values())
def test_the_alignment_of_a_pair_is_the_one_behind_its_scores(protocol):
    scores = torch.randn(9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    captions, clips = Groups.from_lengths([2, 4, 3]), Groups.from_lengths([3, 3, 6])
    found = matrices(scores, captions, clips, protocol)
    pair = align_pair(ScoreMatrix(scores), captions, clips, 1, 2, protocol)
    area = 4 * 6 / pair.cost.numel()
    assert -area * pair.cost[pair.dtw].sum() == pytest.approx(found["DTW"][1, 2])
    scaled = (protocol.dtw_offset - pair.cost - scores.min()) / (scores.max() - scores.min())
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


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("path", golden_cases("tempclr_fullvideo*.npz"))
def test_golden_tempclr_fullvideo_numbers(path, compat):
    arrays = load_golden(path)
    config = EvalConfig(protocol="tempclr", compat=compat, bootstrap=0)
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
            assert found[name] == pytest.approx(arrays[f"c{i}_{'upstream_' if compat else ''}{name}"]), (
                i,
                name,
            )
            if not compat and "-" in name:
                assert found[f"historic-{name}"] == pytest.approx(arrays[f"c{i}_upstream_{name}"]), (i, name)


def toy(n_videos=6, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 6, (n_videos,), generator=generator).tolist()
    ids = [f"video{i}" for i, length in enumerate(lengths) for _ in range(length)]
    video = torch.randn(len(ids), width, generator=generator, dtype=torch.float64)
    return ids, video, video + 0.5 * torch.randn(len(ids), width, generator=generator, dtype=torch.float64)


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


def test_every_measure_has_raw_and_centred_columns_and_historic_ones_stay_raw():
    ids, video, text = toy()
    result = FullVideoRetrievalMetric(EXACT).evaluate(pooled_text=text, pooled_video=video, video_ids=ids)
    measures = {name.removesuffix("-R1") for name in result.values if name.endswith("-R1")}
    assert measures == {
        "DTW",
        "OTAM",
        "OT",
        "historic-DTW",
        "historic-OTAM",
        "cosine",
        "cosine-DTW",
        "cosine-OTAM",
        "cosine-OT",
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
