import math

import pytest
import torch

from mmpt.losses import SequenceContrastLoss
from mmpt.losses.sequence import (
    bucket_score,
    scale_to_unit_interval,
    sequence_blocks,
    transport_log_plan,
    unit_mass_per_clip,
)
from mmpt.ops.sinkhorn import log_sinkhorn
from tests.conftest import load_golden
from tests.losses.norton_batches import CASES, batch_of, close, random_batch, section_of


def loss_of(golden, **changes):
    section = section_of(golden)
    shared = {name: section[name] for name in ("sinkhorn_iterations", "alpha_lse", "fusion_weight")}
    return SequenceContrastLoss({**section["sequence_contrast"], **shared, **changes})


@pytest.mark.parametrize("path", CASES)
def test_golden_norton_mmcontra_intermediate_values(path):
    golden = load_golden(path)
    loss, batch = loss_of(golden, compat=True), batch_of(golden)
    config = loss.config
    similarity = loss.clip_caption_similarity(**batch).detach()
    close(similarity, golden["clip_caption_similarity"], 1e-7)
    bucket = bucket_score(similarity, config.bucket_quantile)
    close(bucket, golden["bucket"], 1e-7)
    log_plan = transport_log_plan(
        sequence_blocks(similarity, config.sequence_length), bucket, config.epsilon, config.n_iters
    )
    close(log_plan, golden["log_plan"], 1e-6)
    close(loss.paragraph_video_logits(similarity), golden["paragraph_video_logits"], 1e-6)


@pytest.mark.parametrize("path", CASES)
def test_golden_norton_mmcontra_corrected_similarity_and_bucket(path):
    golden = load_golden(path)
    loss = loss_of(golden)
    similarity = loss.clip_caption_similarity(**batch_of(golden)).detach()
    close(similarity, golden["fixed_clip_caption_similarity"], 1e-12)
    close(bucket_score(similarity, loss.config.bucket_quantile), golden["fixed_bucket"], 1e-12)


@pytest.mark.parametrize("path", CASES)
def test_golden_norton_mmcontra_gradient_of_the_sequence_loss(path):
    golden = load_golden(path)
    batch = batch_of(golden)
    loss_of(golden, compat=True)(**batch).backward()
    for name in ("pooled_video", "pooled_text", "video_outputs", "text_outputs"):
        close(batch[name].grad, golden[f"grad_seq_{name}_f64"], 1e-6)


def slow_logits(similarity, length, quantile, epsilon, n_iters):
    """Pair by pair, with the bucket as an explicit extra row and column."""
    n = len(similarity) // length
    bucket = sorted(similarity.diagonal().tolist())[max(1, int(quantile * len(similarity))) - 1]
    log_mass = torch.tensor(
        [-math.log(2 * length)] * length + [math.log(length) - math.log(2 * length)], dtype=similarity.dtype
    )
    out = torch.zeros(n, n, dtype=similarity.dtype)
    for i in range(n):
        for j in range(n):
            block = similarity[i * length : (i + 1) * length, j * length : (j + 1) * length]
            padded = torch.full((length + 1, length + 1), bucket, dtype=similarity.dtype)
            padded[:length, :length] = block
            plan = log_sinkhorn(padded / epsilon, log_mass, log_mass, n_iters, method="log").exp()[
                :length, :length
            ]
            out[i, j] = (plan * length / plan.sum() * block).sum() / 0.07
    return out


def test_logits_equal_a_loop_over_pairs_of_sequences():
    similarity = torch.rand(12, 12, dtype=torch.float64)
    loss = SequenceContrastLoss({"threshold": 3, "prompt_ratio": 0.4, "scale": 0.2, "sinkhorn_iterations": 7})
    torch.testing.assert_close(
        loss.paragraph_video_logits(similarity), slow_logits(similarity, 3, 0.4, 0.2, 7)
    )


def test_plans_with_bucket_keep_real_rows_and_columns_at_most_one():
    plan = transport_log_plan(
        torch.rand(5, 4, 4, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64), 0.1, 200
    ).exp()
    assert (plan.sum(1) <= 1 + 1e-9).all() and (plan.sum(2) <= 1 + 1e-9).all()
    torch.testing.assert_close(
        unit_mass_per_clip(plan.log()).sum((1, 2)), torch.full((5,), 4.0, dtype=torch.float64)
    )


def test_matching_sequences_of_distinct_clips_align_near_the_diagonal():
    blocks = torch.eye(6, dtype=torch.float64)[None]
    plan = unit_mass_per_clip(transport_log_plan(blocks, torch.tensor(0.5, dtype=torch.float64), 0.1, 50))
    assert plan[0].diagonal().min() > 0.9


def test_a_bucket_that_takes_everything_leaves_finite_plans():
    plan = unit_mass_per_clip(transport_log_plan(torch.rand(3, 4, 4), torch.tensor(1e4), 0.1, 50))
    assert torch.isfinite(plan).all()
    torch.testing.assert_close(plan.sum((1, 2)), torch.full((3,), 4.0))


def test_a_bucket_that_takes_nothing_tends_to_no_bucket():
    blocks = torch.rand(3, 4, 4, dtype=torch.float64)
    plans = [
        unit_mass_per_clip(transport_log_plan(blocks, bucket, 0.1, 2000))
        for bucket in (blocks.new_tensor(-1e4), None)
    ]
    torch.testing.assert_close(*plans, rtol=0, atol=1e-3)


def test_without_bucket_rows_and_columns_have_mass_one():
    plan = transport_log_plan(torch.rand(2, 5, 5, dtype=torch.float64), None, 0.1, 500).exp()
    torch.testing.assert_close(plan.sum(1), torch.ones(2, 5, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(2), torch.ones(2, 5, dtype=torch.float64))


@pytest.mark.parametrize(("quantile", "k"), [(0.0, 1), (0.05, 1), (0.5, 5), (1.0, 10)])
def test_bucket_is_the_kth_smallest_aligned_similarity(quantile, k):
    similarity = torch.rand(10, 10)
    assert bucket_score(similarity, quantile) == similarity.diagonal().sort().values[k - 1]


def test_unit_interval_spans_zero_to_one_with_gradient_through_both_ends():
    scores = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    scaled = scale_to_unit_interval(scores)
    assert scaled.min() == 0 and scaled.max() == 1
    assert torch.autograd.gradcheck(scale_to_unit_interval, (scores,))


def test_equal_scores_scale_to_zero_with_finite_gradient():
    scores = torch.ones(3, 3, requires_grad=True)
    scaled = scale_to_unit_interval(scores)
    scaled.sum().backward()
    assert not scaled.any() and torch.isfinite(scores.grad).all()


def test_logit_scale_of_the_batch_replaces_the_fixed_temperature():
    batch, loss = random_batch(), SequenceContrastLoss({"threshold": 4})
    fixed = loss(**batch)
    torch.testing.assert_close(
        loss(**batch, logit_scale=torch.tensor(math.log(1 / 0.07), dtype=torch.float64)), fixed
    )
    assert (loss(**batch, logit_scale=torch.tensor(1.0)) - fixed).abs() > 1e-3


def test_sequences_of_the_same_video_can_be_left_out_of_the_negatives():
    batch = random_batch()
    loss = SequenceContrastLoss({"threshold": 4, "mask_same_video": True})
    logits = loss.paragraph_video_logits(loss.clip_caption_similarity(**batch))
    for i, j in ((0, 1), (1, 0), (2, 3), (3, 2)):
        logits[i, j] = -torch.inf
    expected = (
        sum(logits[i].logsumexp(0) + logits[:, i].logsumexp(0) - 2 * logits[i, i] for i in range(4)) / 4
    )
    torch.testing.assert_close(loss(**batch, clips_per_video=8), expected)
    with pytest.raises(ValueError, match="mask_same_video needs clips_per_video"):
        loss(**batch)


def test_hard_maximum_and_pooled_vectors_alone_are_switches():
    batch = random_batch()
    switches = ({"alpha_lse": 0}, {"alpha_lse": None}, {"fusion_weight": None}, {})
    values = [SequenceContrastLoss({"threshold": 4, **switch})(**batch) for switch in switches]
    assert torch.equal(values[0], values[1])
    assert len({round(v.item(), 9) for v in values}) == 3


def test_sequence_loss_gradient_is_that_of_finite_differences_when_the_plan_is_held():
    """The plan is a constant for the gradient: with one step of huge epsilon it does not move, and the loss
    is then checkable."""
    batch = random_batch(4, 3, 2, 4)
    names = ("pooled_video", "pooled_text", "video_outputs", "text_outputs")
    loss = SequenceContrastLoss({"threshold": 2, "scale": 1e9})
    masks = {name: batch[name] for name in batch if name not in names}
    function = lambda *tensors: loss(**dict(zip(names, tensors, strict=True)), **masks)  # noqa: E731
    assert torch.autograd.gradcheck(function, [batch[name].requires_grad_() for name in names])
