"""The index on disk, and search that equals brute force."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from mmpt.neighbours import exact as exact_module
from mmpt.neighbours.exact import ExactSearch, Moment, exact_scores, window_scores
from mmpt.neighbours.store import VectorStore
from mmpt.ops.late_interaction import token_similarity
from mmpt.ops.windows import window_ranges
from tests.conftest import ROOT

WIDTH = 40


def videos(seed, n=30, scale=1.0):
    """id, vectors that change slowly, times; some seconds are the same as the one before."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        count = int(rng.integers(1, 60))
        vectors = rng.standard_normal((count, WIDTH)) * scale
        for row in range(1, count):
            vectors[row] = (
                vectors[row - 1] if rng.random() < 0.2 else 0.9 * vectors[row - 1] + 0.4 * vectors[row]
            )
        starts = np.arange(count, dtype=np.float32)
        yield f"v{number}", vectors.astype(np.float32), np.stack([starts, starts + 3], axis=1)


@pytest.fixture(params=[True, False], ids=["cosine", "dot"])
def store(request, tmp_path):
    made = VectorStore.create(tmp_path / "index", WIDTH, request.param, {"model": "m"})
    made.add(videos(0), rows_per_segment=200)
    return made


def stored(store):
    """Everything that can be found, as brute force reads it: ids, times, vectors."""
    ids, times, vectors = [], [], []
    for part in store.mapped():
        for video, (first, count) in part.segment.videos.items():
            if video not in part.segment.removed:
                rows = slice(first, first + count)
                ids += [video] * count
                times.append(np.stack([part.rows.start_s[rows], part.rows.end_s[rows]], axis=1))
                vectors.append(part.exact[rows])
    return ids, np.concatenate(times), np.concatenate(vectors)


def brute_force(store, query, k, apart):
    ids, times, vectors = stored(store)
    query = query.astype(np.float64)[None]
    query = (query / np.linalg.norm(query, axis=1, keepdims=True) if store.unit else query)[0]
    scores, found = exact_scores(vectors, query), []
    for row in np.argsort(-scores, kind="stable"):
        one = Moment(ids[row], *map(float, times[row]), float(scores[row]))
        if not apart or not any(one.overlaps(better) for better in found):
            found.append(one)
        if len(found) == k:
            break
    return found


@pytest.mark.parametrize("apart", [True, False])
def test_the_answer_is_that_of_brute_force(store, apart):
    search, rng = ExactSearch(store), np.random.default_rng(5)
    _, _, vectors = stored(store)
    for number in range(10):
        query = (
            vectors[rng.integers(len(vectors))].astype(np.float32)
            if number % 2
            else rng.standard_normal(WIDTH)
        )
        for k in (1, 7) if number else (1, 7, 10_000):
            answer = search.search(query, k, apart)
            assert answer.hits == brute_force(store, query, k, apart)
    assert answer.looked.rows == len(vectors)


def test_videos_can_be_chosen_and_rows_are_numbered_through(store):
    search, query = ExactSearch(store), np.random.default_rng(11).standard_normal(WIDTH)
    store.remove(["v2"])
    search = ExactSearch(store)
    everything = brute_force(store, query, 10_000, True)
    for only in ({"v1", "v9", "v20", "nobody"}, {"nobody"}, set()):
        answer = search.search(query, 9, only=only)
        assert answer.hits == [hit for hit in everything if hit.video_id in only][:9]
    answer = search.search(query, 9)
    ids, times, vectors = stored(store)
    assert [(ids[n], *times[n]) for n in answer.numbers] == [hit[:3] for hit in answer.hits]
    assert (search.vectors[answer.numbers] == vectors[answer.numbers]).all()
    assert len(search.vectors) == len(vectors) and (search.vectors[3:300] == vectors[3:300]).all()


def test_few_rows_are_scored_exactly(tmp_path):
    store = VectorStore.create(tmp_path / "index", WIDTH, True, {})
    store.add(videos(1, 400))
    answer = ExactSearch(store).search(np.random.default_rng(2).standard_normal(WIDTH), 10, apart=False)
    assert 10 <= answer.looked.exact < len(store) / 20


@pytest.mark.parametrize(
    ("size", "stride", "alpha"), [(8, None, 1.0), (8, 3, 0.1), (1, None, 0.5), (200, 50, 1.0)]
)
def test_similarity_of_tokens_is_that_of_brute_force(tmp_path, size, stride, alpha):
    store = VectorStore.create(tmp_path / "index", WIDTH, True, {})
    store.add(videos(3), rows_per_segment=300)
    search, rng = ExactSearch(store), np.random.default_rng(4)
    for n_tokens in (1, 6):
        tokens = rng.standard_normal((n_tokens, WIDTH))
        unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
        expected, place = [], 0
        for part in store.mapped():
            for video, (first, count) in part.segment.videos.items():
                for start, end in window_ranges(count, size, stride):
                    rows = part.exact[first + start : first + end]
                    expected.append((-window_scores(rows[None], unit, alpha)[0], place, video, float(start)))
                    place += 1
        expected.sort()
        hits = search.search_tokens(tokens, 9, size, stride, alpha, apart=False).hits
        assert [(hit.video_id, hit.start_s, hit.score) for hit in hits] == [
            (v, s, -x) for x, _, v, s in expected[:9]
        ]


def test_scores_of_tokens_are_those_that_norton_trains(tmp_path):
    store = VectorStore.create(tmp_path / "index", WIDTH, True, {})
    store.add(videos(6, 3))
    tokens = np.random.default_rng(7).standard_normal((5, WIDTH))
    part = next(iter(store.mapped()))
    video, (first, count) = next(iter(part.segment.videos.items()))
    rows = torch.from_numpy(np.array(part.exact[first : first + count])).double()
    ones = torch.ones(1, 5, dtype=torch.bool), torch.ones(1, count, dtype=torch.bool)
    trained, _ = token_similarity(torch.from_numpy(tokens)[None], rows[None], *ones)
    found = ExactSearch(store).search_tokens(tokens, 3, 1000, apart=False).hits
    score = next(hit.score for hit in found if hit.video_id == video)
    assert score == pytest.approx(float(trained), abs=1e-3)  # rows of float16 are not quite of unit length


def test_videos_come_go_and_change(store):
    query = np.random.default_rng(8).standard_normal(WIDTH)
    best = ExactSearch(store).search(query, 1).hits[0].video_id
    store.remove([best])
    assert best not in store.videos
    assert ExactSearch(store).search(query, 5).hits == brute_force(store, query, 5, True)
    store.add([(best, np.stack([query] * 2), np.array([[0, 1], [1, 2]]))])
    assert ExactSearch(store).search(query, 1).hits[0].video_id == best
    before = ExactSearch(store).search(query, 5).hits
    store.compact()
    again = VectorStore(store.folder)
    assert len(again.segments) == 1 and ExactSearch(again).search(query, 5).hits == before
    again.verify()
    with pytest.raises(KeyError, match="holds no video 'nobody'"):
        store.remove(["nobody"])


def test_removing_everything_leaves_nothing_to_find(store):
    store.remove(list(store.videos))
    assert ExactSearch(store).search(np.ones(WIDTH), 3).hits == []


def test_damage_is_named(store):
    path = store.folder / store.segments[0].name / "codes.i8"
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="codes.i8: damaged"):
        store.verify()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="codes.i8: missing, or not [0-9]+ bytes"):
        list(VectorStore(store.folder).mapped())
    (store.folder / "index.json").write_text('{"format": 9}')
    with pytest.raises(ValueError, match="index.json: not an index"):
        VectorStore(store.folder)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((2, WIDTH), np.nan), "v: vectors hold NaN"),
        (np.ones((2, 3)), r"v: vectors \(2, 3\)"),
        (np.ones((0, WIDTH)), "at least 1"),
    ],
)
def test_vectors_that_cannot_be_used_are_named_and_nothing_is_lost(store, vectors, message):
    known = store.videos
    times = np.zeros((len(vectors), 2))
    with pytest.raises(ValueError, match=message):
        store.add([("new", np.ones((1, WIDTH)), np.zeros((1, 2))), ("v", vectors, times)])
    assert VectorStore(store.folder).videos == known


def test_a_writer_that_is_killed_leaves_the_last_whole_index(tmp_path):
    code = (
        "import numpy as np; from mmpt.neighbours.store import VectorStore\n"
        f"s = VectorStore.create({str(tmp_path / 'i')!r}, 8, True, {{}})\n"
        "def items():\n"
        "    for n in range(10**6): yield f'v{n}', np.random.rand(50, 8), np.zeros((50, 2))\n"
        "s.add(items(), rows_per_segment=500)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    path, deadline = tmp_path / "i" / "index.json", time.monotonic() + 60
    while time.monotonic() < deadline and not (
        path.is_file() and len(json.loads(path.read_text())["segments"]) > 2
    ):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = VectorStore(tmp_path / "i")
    store.verify()
    n = len(store.videos)
    assert n >= 20 and n % 10 == 0
    store.add([("late", np.ones((1, 8)), np.zeros((1, 2)))])
    assert len(VectorStore(tmp_path / "i").videos) == n + 1
    assert {p.name for p in (tmp_path / "i").iterdir() if p.is_dir()} == {s.name for s in store.segments}


def test_bounds_hold_for_vectors_of_any_shape(tmp_path):
    """Spikes, tiny and huge numbers, zeros: where rounding is worst."""
    rng = np.random.default_rng(9)
    vectors = rng.standard_normal((600, WIDTH)) * 10.0 ** rng.uniform(-3, 3, (600, 1))
    vectors[::7, 3] *= 40
    vectors[::11] = 0
    store = VectorStore.create(tmp_path / "index", WIDTH, False, {})
    starts = np.arange(600.0)
    store.add([("v", vectors, np.stack([starts, starts + 1], axis=1))])
    search = ExactSearch(store)
    for number in range(20):
        query = rng.standard_normal(WIDTH) * 10.0 ** rng.uniform(-4, 4)
        assert search.search(query, 12).hits == brute_force(store, query, 12, True), number


@pytest.mark.parametrize("kind", ["numba", "torch"])
@pytest.mark.parametrize(("n", "width"), [(1, 3), (7, 512), (1030, 40), (5, 2048)])
def test_products_of_bytes_are_whole_numbers_of_any_size(kind, n, width, monkeypatch):
    if kind == "numba":
        pytest.importorskip("numba")
    else:
        monkeypatch.setitem(sys.modules, "mmpt.neighbours._numba", None)
    rng = np.random.default_rng(0)
    query = np.where(rng.random((1, width)) < 0.5, 1.0, -1.0)
    whole, step, lost = exact_module._rounded(query)
    codes = rng.integers(-127, 128, (n, width)).astype(np.int8)
    codes[0] = np.sign(query) * 127  # as large a sum as there is
    products = exact_module._products_of_one.__wrapped__()(codes, whole[0])
    assert products.tolist() == (codes.astype(np.int64) @ whole[0].astype(np.int64)).tolist()
    assert lost == pytest.approx(0, abs=1e-9) and whole * step == pytest.approx(query)


def test_the_answer_without_numba_is_the_same(store, monkeypatch):
    query = np.random.default_rng(10).standard_normal(WIDTH)
    expected = ExactSearch(store).search(query, 7)
    monkeypatch.setitem(sys.modules, "mmpt.neighbours._numba", None)
    monkeypatch.setattr(exact_module, "_products_of_one", exact_module._products_of_one.__wrapped__)
    assert ExactSearch(store).search(query, 7) == expected


def test_exact_rows_are_read_in_any_order_and_a_file_that_shrank_is_named(store):
    part = next(store.mapped())
    everything, rows = part.exact[:], np.array([[3, 4, 5], [7, 0, 0]])
    assert everything.shape == (part.segment.n_rows, WIDTH) and len(part.exact) == len(everything)
    assert (part.exact[rows] == everything[rows]).all() and part.exact[rows[:0]].shape == (0, 3, WIDTH)
    assert (part.exact[5:50:7] == everything[5:50:7]).all()
    with open(part.exact.path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match="exact.f16: has become shorter"):
        part.exact[rows]
