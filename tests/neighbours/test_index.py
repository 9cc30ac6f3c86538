"""Neighbour search and batches of near neighbours."""

import random
import sys

import numpy as np
import pytest
import torch

from mmpt.neighbours.index import VectorRetriever
from mmpt.neighbours.pool import VideoVectorPool, video_vectors
from tests.conftest import golden_cases, load_golden


def stored(vectors, **settings):
    retriever = VectorRetriever(**settings)
    retriever.add([str(i) for i in range(len(vectors))], vectors)
    return retriever


@pytest.mark.parametrize("path", golden_cases("norton_retrieval_batches*.npz"))
def test_golden_norton_retrieval_batches_vectors_neighbours_and_groups(path):
    g = load_golden(path)
    pool = VideoVectorPool(VectorRetriever())
    ids = [str(i) for i in range(int(g["num_videos"]))]
    pool.add(ids, torch.tensor(g["pooled_video"]), torch.tensor(g["pooled_text"]), int(g["clip_per_video"]))
    np.testing.assert_allclose(pool.retriever.vectors, g["video_vectors"], rtol=2e-6, atol=1e-6)
    found = pool.retriever.search_by_video_ids(ids, int(g["num_cands"]))
    assert [[int(v) for v in row] for row in found] == [
        [v for v in row if v >= 0] for row in g["neighbours"].tolist()
    ]
    groups = pool.retriever.batches(
        int(g["num_video_per_batch"]), int(g["num_cands"]), random.Random(int(g["seed"]))
    )
    assert [[int(v) for v in group] for group in groups] == g["batches"].tolist()


@pytest.mark.parametrize("metric", ["l2", "innerproduct"])
def test_exact_search_equals_a_loop_over_all_vectors(metric):
    vectors = torch.randn(37, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = stored(vectors, metric=metric, chunk=8).search_by_video_ids(["3", "30"], 6)
    for query, row in zip((3, 30), found, strict=True):
        if metric == "l2":
            closeness = [-float((vectors[query] - v).square().sum()) for v in vectors]
        else:
            closeness = [float(vectors[query] @ v) for v in vectors]
        order = sorted(range(37), key=lambda i: -closeness[i])[:6]
        assert row == [str(query), *[str(i) for i in order if i != query][:5]]


def test_groups_always_have_the_size_the_loss_needs():
    groups = stored(torch.randn(50, 4)).batches(8, 12, random.Random(1))
    assert len(groups) == 6 and all(len(set(group)) == 8 for group in groups)


def test_too_few_candidates_for_a_group_are_refused():
    with pytest.raises(ValueError, match="a batch of 8 videos .* needs as many"):
        stored(torch.randn(50, 4)).batches(8, 7, random.Random(1))


def test_a_vector_with_nan_is_refused_by_the_id_of_its_video():
    vectors = torch.zeros(3, 2)
    vectors[1, 0] = float("nan")
    with pytest.raises(ValueError, match="vectors of 1 hold NaN"):
        stored(vectors)


def test_an_id_that_comes_twice_keeps_its_first_vector():
    retriever = VectorRetriever()
    retriever.add(["a", "b"], torch.tensor([[1.0], [2.0]]))
    retriever.add(["b", "c"], torch.tensor([[9.0], [3.0]]))
    assert retriever.ids == ["a", "b", "c"] and retriever.vectors.flatten().tolist() == [1, 2, 3]


def test_a_video_vector_is_the_mean_over_clips_and_modalities():
    video, text = torch.randn(6, 3), torch.randn(6, 3)
    expected = torch.stack(
        [(video[i * 2 : i * 2 + 2].mean(0) + text[i * 2 : i * 2 + 2].mean(0)) / 2 for i in range(3)]
    )
    torch.testing.assert_close(video_vectors(video, text, 2), expected)


def neighbours(vectors, **settings):
    ids = [str(i) for i in range(0, len(vectors), 7)]
    return [set(row) for row in stored(vectors, **settings).search_by_video_ids(ids, 10)]


def agreement(found, true):
    return sum(len(a & b) for a, b in zip(found, true, strict=True)) / sum(map(len, true))


@pytest.mark.parametrize(("index", "metric"), [("flatl2", "l2"), ("innerproduct", "innerproduct")])
def test_a_faiss_index_searched_in_all_cells_finds_the_exact_neighbours(index, metric):
    pytest.importorskip("faiss")
    vectors = torch.randn(600, 64, generator=torch.Generator().manual_seed(0))
    assert neighbours(vectors, index=index, centroids=8, nprobe=8) == neighbours(vectors, metric=metric)


def test_more_cells_searched_find_more_of_the_true_neighbours():
    pytest.importorskip("faiss")
    vectors = torch.randn(600, 64, generator=torch.Generator().manual_seed(0))
    exact = neighbours(vectors)
    shares = [
        agreement(neighbours(vectors, index="flatl2", centroids=8, nprobe=nprobe), exact)
        for nprobe in (1, 3, 8)
    ]
    assert 0.2 < shares[0] < shares[1] < shares[2] == 1


def test_the_quantised_index_finds_most_true_neighbours():
    pytest.importorskip("faiss")
    vectors = torch.randn(600, 64, generator=torch.Generator().manual_seed(0))
    assert agreement(neighbours(vectors, index="pq", centroids=8, nprobe=8), neighbours(vectors)) > 0.7


def test_the_quantised_index_says_when_there_are_too_few_videos():
    pytest.importorskip("faiss")
    with pytest.raises(
        ValueError,
        match="retri_index=pq needs at least 256 videos .* got 50 of width 64. Use retri_index: flatl2",
    ):
        neighbours(torch.randn(50, 64), index="pq")


@pytest.mark.parametrize("index", ["flatl2", "innerproduct"])
def test_groups_from_a_sparse_cell_are_filled_up_to_their_size(index):
    pytest.importorskip("faiss")
    vectors = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    vectors[:4] += 100  # a cell of its own, smaller than a group
    groups = stored(vectors, index=index, centroids=3).batches(8, 12, random.Random(1))
    assert len(groups) == 15 and all(len(set(group)) == 8 for group in groups)


def test_a_faiss_index_without_faiss_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match="'faiss'.*pip install"):
        VectorRetriever(index="flatl2")


def test_few_queries_are_compared_at_once_when_many_vectors_are_stored(monkeypatch):
    vectors = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    whole = neighbours(vectors)
    monkeypatch.setattr("mmpt.neighbours.index.MAX_SCORES", 100)  # two queries
    assert neighbours(vectors) == whole


def test_an_unknown_index_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="known: exact, flatl2, innerproduct, pq"):
        VectorRetriever(index="hnsw")
