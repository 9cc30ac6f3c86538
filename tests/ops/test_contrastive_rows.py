import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmpt.ops import precision
from mmpt.ops.contrastive import info_nce, milnce, milnce_of_rows, nce_of_rows, row_logsumexp, rows


class LargestTensor(TorchDispatchMode):
    """Numbers of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(rows, "TILE_ROWS", 3)
    monkeypatch.setattr(rows, "TILE_NUMBERS", {"cpu": 3 * 4})


def vectors(count, width=6, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(count, width, dtype=torch.float64).requires_grad_() for _ in range(2)]


def test_tiles_give_the_logsumexp_and_gradients_of_the_whole_matrix(small_tiles):
    queries, candidates = vectors(13)
    weights = torch.randn(10, dtype=torch.float64)
    skip = torch.arange(10) + 2
    excluded = torch.rand(10, 13) < 0.3
    found = row_logsumexp(queries[:10], candidates, skip, lambda r, c: excluded[r, c])
    gradients = torch.autograd.grad((found * weights).sum(), (queries, candidates))
    scores = (queries[:10] @ candidates.T).masked_fill(excluded, -torch.inf)
    exact = scores.scatter(1, skip[:, None], -torch.inf).logsumexp(1)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad((exact * weights).sum(), (queries, candidates))
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)


def test_a_row_without_candidates_is_minus_infinity_and_passes_no_gradient():
    queries, candidates = vectors(3)
    found = row_logsumexp(queries, candidates, excluded=lambda r, c: torch.ones(3, 3, dtype=torch.bool)[r, c])
    assert found.isneginf().all()
    assert not any(x.any() for x in torch.autograd.grad(found.sum(), (queries, candidates)))


@pytest.mark.parametrize("n_ranks", [1, 4])
def test_the_mean_over_ranks_of_own_rows_is_the_loss_of_one_process(small_tiles, n_ranks):
    video, text = vectors(12)
    own = 12 // n_ranks
    parts = [
        nce_of_rows(video[first : first + own], text, first)
        + nce_of_rows(text[first : first + own], video, first)
        for first in range(0, 12, own)
    ]
    scores = video @ text.T
    expected = info_nce(scores) + info_nce(scores.T)
    torch.testing.assert_close(sum(parts) / n_ranks, expected, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad(x, (video, text)) for x in (sum(parts) / n_ranks, expected))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_ranks", [1, 4])
def test_milnce_of_own_rows_is_that_of_one_process(small_tiles, n_ranks):
    video, _ = vectors(8)
    text, _ = vectors(8 * 3, seed=1)
    own = 8 // n_ranks
    parts = [
        milnce_of_rows(video[first : first + own], text[3 * first : 3 * (first + own)], video, text, first)
        for first in range(0, 8, own)
    ]
    expected = milnce((video @ text.T).view(8, 8, 3))
    torch.testing.assert_close(sum(parts) / n_ranks, expected, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad(x, (video, text)) for x in (sum(parts) / n_ranks, expected))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_pairs_that_are_no_negatives_are_left_out_but_never_a_query_s_own(small_tiles):
    video, text = vectors(12)
    excluded = torch.rand(12, 12) < 0.5
    found = nce_of_rows(video[4:8], text, 4, lambda r, c: excluded[r, c])
    own = torch.eye(12, dtype=torch.bool)
    scores = (video @ text.T).masked_fill(excluded & ~own, -torch.inf)
    exact = (scores.logsumexp(1) - scores.diagonal())[4:8].mean()
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


def test_half_precision_vectors_are_scored_in_float32_and_get_gradients_of_their_type():
    video, text = ((10 * x).detach().half().requires_grad_() for x in vectors(5))
    loss = nce_of_rows(video, text)
    loss.backward()
    assert loss.dtype == torch.float32 and video.grad.dtype == torch.float16
    torch.testing.assert_close(loss, info_nce(video.float() @ text.float().T))


def test_one_rank_of_many_makes_no_tensor_larger_than_the_joined_vectors(monkeypatch):
    n_ranks, own, width = 32, 8, 4
    monkeypatch.setattr(rows, "TILE_NUMBERS", {"cpu": own * 16})
    video, text = (x.detach().float().requires_grad_() for x in vectors(n_ranks * own, width))
    with LargestTensor() as counted:
        (nce_of_rows(video[:own], text) + milnce_of_rows(video[:own], text[:own], video, text)).backward()
    assert counted.largest <= n_ranks * own * width < own * n_ranks * own


def test_on_a_gpu_half_precision_vectors_are_multiplied_as_they_are():
    video, text = (
        torch.empty(6, 4, dtype=torch.bfloat16, device="meta", requires_grad=True) for _ in range(2)
    )
    loss = nce_of_rows(video, text)
    loss.backward()
    assert loss.dtype == torch.float32 and text.grad.dtype == torch.bfloat16
    assert precision.wide_product(video.detach(), text.detach()).dtype == torch.float32
