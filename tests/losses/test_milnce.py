import pytest
import torch

from mmpt.losses import MILNCELoss
from tests.two_processes import WORLD, run_on_two_ranks


def slow_milnce(video, text, times=1):
    total = 0.0
    for i in range(len(video)):
        positive = sum(torch.exp(video[i] @ t) for t in text[i])
        negative = sum(
            torch.exp(video[i] @ text[j][c]) + torch.exp(video[j] @ text[i][c])
            for j in range(len(video))
            if j != i
            for c in range(text.shape[1])
        )
        total = total - torch.log(positive / (times * positive + negative))
    return total / len(video)


def pair(clips=4, candidates=3, width=5):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(clips, width), draw(clips, candidates, width)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("candidates", [1, 3])
def test_equals_a_loop_over_clips_and_candidates(flat, candidates):
    video, text = pair(candidates=candidates)
    got = MILNCELoss()(pooled_video=video, pooled_text=text.flatten(0, 1) if flat else text)
    torch.testing.assert_close(got, slow_milnce(video, text))


def test_compat_counts_the_positives_twice_whether_or_not_the_scores_are_stored(monkeypatch):
    video, text = pair()
    loss = MILNCELoss(compat=True)
    for stored in (2**26, 0):
        monkeypatch.setattr("mmpt.losses.nce.MOST_STORED", stored)
        got = loss(pooled_video=video, pooled_text=text)
        torch.testing.assert_close(got, slow_milnce(video, text, times=2))


@pytest.mark.parametrize("compat", [False, True])
def test_gradient_is_that_of_finite_differences(compat):
    video, text = pair(3, 2, 3)
    function = lambda v, t: MILNCELoss(compat=compat)(pooled_video=v, pooled_text=t)  # noqa: E731
    assert torch.autograd.gradcheck(function, (video.requires_grad_(), text.requires_grad_()))


def test_the_order_of_the_candidates_does_not_matter():
    video, text = pair()
    values = [MILNCELoss()(pooled_video=video, pooled_text=captions) for captions in (text, text.flip(1))]
    torch.testing.assert_close(*values)


def test_one_clip_alone_costs_nothing_and_extreme_half_precision_stays_finite():
    video, text = pair(1)
    assert MILNCELoss()(pooled_video=video, pooled_text=text).item() == pytest.approx(0)
    video, text = (100 * x.half() for x in pair())
    assert torch.isfinite(MILNCELoss()(pooled_video=video.requires_grad_(), pooled_text=text))


def test_uneven_candidates_are_refused():
    with pytest.raises(ValueError, match="same number of candidates for each of the 4 clips"):
        MILNCELoss()(pooled_video=torch.zeros(4, 2), pooled_text=torch.zeros(6, 2))


def _check_global_negatives(rank, folder):
    video, text = pair(6)
    whole = [x.clone().requires_grad_() for x in (video, text)]
    MILNCELoss()(pooled_video=whole[0], pooled_text=whole[1]).backward()
    mine = [x.chunk(WORLD)[rank].clone().requires_grad_() for x in (video, text)]
    loss = MILNCELoss({"global_negatives": True})(pooled_video=mine[0], pooled_text=mine[1])
    loss.backward()
    torch.testing.assert_close(loss, slow_milnce(video, text))
    for local, joined in zip(mine, whole, strict=True):
        torch.testing.assert_close(local.grad / WORLD, joined.grad.chunk(WORLD)[rank])


def test_two_ranks_with_global_negatives_equal_one_process(tmp_path):
    run_on_two_ranks(_check_global_negatives, tmp_path)
