import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mmpt.losses import NCE, MMContraLoss, T2VContraLoss, V2TContraLoss, build_loss, nce
from mmpt.losses.nce import soft_targets
from tests.conftest import load_golden
from tests.losses.norton_batches import CASES, INPUTS, batch_of, close, random_batch, section_of
from tests.two_processes import WORLD, run_on_two_ranks


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("MMContraLoss", {"sinkhorn_iterations": 5}),
        ("T2VContraLoss", {}),
        ("V2TContraLoss", {}),
        ("MILNCELoss", {}),
    ],
)
def test_a_temperature_divides_the_dot_products_unless_a_learned_one_takes_its_place(name, keys):
    batch, build = random_batch(), lambda **more: build_loss({"loss_cls": name, **keys, **more})
    divided = build()(pooled_video=batch["pooled_video"] / 0.2, pooled_text=batch["pooled_text"])
    torch.testing.assert_close(build(temperature=0.2)(**batch), divided)
    learned = torch.tensor(math.log(1 / 0.2), dtype=torch.float64, requires_grad=True)
    value = build(temperature=0.5)(**batch, logit_scale=learned)
    torch.testing.assert_close(value, divided)
    value.backward()
    assert learned.grad.abs() > 0
    assert torch.equal(build()(**batch, logit_scale=learned), build()(**batch))  # the published form has none


NORTON = {"sinkhorn_iterations": 50, "beta": 0.3, "sequence_contrast": {"threshold": 4}}


def loss_and_gradients(loss, batch):
    batch = {
        name: value.clone().requires_grad_() if value.is_floating_point() else value
        for name, value in batch.items()
    }
    value = loss(**batch)
    value.backward()
    return value.detach(), {
        name: x.grad for name, x in batch.items() if x.is_floating_point() and x.grad is not None
    }


@pytest.mark.parametrize("path", CASES)
def test_golden_norton_mmcontra_historic_values_and_gradients_float64(path):
    golden = load_golden(path)
    batch = batch_of(golden)
    logit_scale = torch.tensor(math.log(1 / 0.07), dtype=torch.float64, requires_grad=True)
    loss = MMContraLoss(section_of(golden, compat=True))
    value = loss(**batch, logit_scale=logit_scale)
    value.backward()
    close(value.detach(), golden["loss_total_f64"], 1e-8)
    close(loss.terms["sequence"], golden["loss_seq_f64"], 1e-8)
    close(loss.terms["video_to_text"] + loss.terms["text_to_video"], golden["loss_clip_f64"], 1e-8)
    for name in INPUTS:
        close(batch[name].grad, golden[f"grad_total_{name}_f64"], 1e-7)
    close(
        logit_scale.grad, golden["grad_total_logit_scale_f64"], 1e-6
    )  # the original computes in float32 here and there


@pytest.mark.parametrize("path", CASES)
def test_golden_norton_mmcontra_historic_values_and_gradients_float32(path):
    golden = load_golden(path)
    batch = batch_of(golden, torch.float32)
    value = MMContraLoss(section_of(golden, compat=True))(**batch)
    value.backward()
    assert torch.isfinite(value)
    suffix = "f32" if math.isfinite(golden["loss_total_f32"]) else "f64"
    close(value.detach(), golden[f"loss_total_{suffix}"], 2e-4)
    for name in INPUTS[:2]:
        close(batch[name].grad, golden[f"grad_total_{name}_{suffix}"], 2e-4)
    for name in INPUTS[2:]:
        close(batch[name].grad, golden[f"grad_total_{name}_f64"], 2e-4)


@pytest.mark.parametrize("path", CASES)
def test_golden_norton_mmcontra_corrected_values_and_gradients(path):
    golden = load_golden(path)
    batch = batch_of(golden)
    loss = MMContraLoss(section_of(golden))
    value = loss(**batch)
    value.backward()
    close(value.detach(), golden["fixed_loss_total"], 1e-12)
    close(loss.terms["sequence"], golden["fixed_loss_seq"], 1e-12)
    for name in INPUTS:
        close(batch[name].grad, golden[f"fixed_grad_{name}"], 1e-10)


@pytest.mark.parametrize("path", CASES)
def test_golden_norton_mmcontra_plain_losses(path):
    golden = load_golden(path)
    batch = batch_of(golden)
    value = MMContraLoss()(**batch)
    value.backward()
    close(value.detach(), golden["videoclip_loss"], 1e-12)
    for name in INPUTS[:2]:
        close(batch[name].grad, golden[f"videoclip_grad_{name}"], 1e-12)
    close(T2VContraLoss()(**batch).detach(), golden["t2v_loss"], 1e-12)
    close(V2TContraLoss()(**batch).detach(), golden["v2t_loss"], 1e-12)


@pytest.mark.parametrize("path", CASES)
def test_golden_norton_mmcontra_soft_targets(path):
    golden = load_golden(path)
    scores = torch.tensor(golden["pooled_video"] @ golden["pooled_text"].T)
    n_iters = section_of(golden)["sinkhorn_iterations"]
    close(soft_targets(scores, n_iters), golden["soft_target_Q"], 1e-6)


def test_golden_norton_other_losses_nce():
    golden = load_golden("norton_other_losses.npz")
    close(NCE()(align_scores=torch.tensor(golden["nce_align_scores"])), golden["nce_loss"], 1e-10)


def test_nce_puts_all_negatives_behind_each_positive():
    scores = torch.randn(6, 2, dtype=torch.float64)
    positives, negatives = scores[:3, 0], scores[3:, 0]
    expected = torch.stack([torch.cat([p[None], negatives]).logsumexp(0) - p for p in positives]).mean()
    torch.testing.assert_close(NCE()(align_scores=scores), expected)


def test_videoclip_loss_is_the_sum_of_a_loop_over_rows_and_columns():
    batch = random_batch()
    scores = batch["pooled_video"] @ batch["pooled_text"].T
    expected = (
        sum(scores[i].logsumexp(0) + scores[:, i].logsumexp(0) - 2 * scores[i, i] for i in range(16)) / 16
    )
    torch.testing.assert_close(MMContraLoss()(**batch), expected)
    torch.testing.assert_close(T2VContraLoss()(**batch) + V2TContraLoss()(**batch), expected)


@pytest.mark.parametrize(
    "off", [{"beta": 0}, {"beta": 0, "sequence_contrast": {"sequence_contrast_weight": None}}]
)
def test_norton_without_its_parts_is_videoclip(off):
    batch = random_batch()
    assert torch.equal(MMContraLoss({"sinkhorn_iterations": 50, **off})(**batch), MMContraLoss()(**batch))


def test_soft_targets_of_a_permutation_like_matrix_are_that_permutation():
    permutation = torch.eye(5, dtype=torch.float64)[[3, 1, 4, 0, 2]]
    targets = soft_targets(80 * permutation, 50)
    torch.testing.assert_close(targets, permutation)
    torch.testing.assert_close(
        soft_targets(torch.randn(5, 5, dtype=torch.float64), 500).sum(1), torch.ones(5, dtype=torch.float64)
    )


def test_sequence_weight_scales_the_paragraph_term_only():
    batch = random_batch()
    sections = [{"threshold": 4, "sequence_contrast_weight": weight} for weight in (0.0, 1.0, 2.0)]
    values = [MMContraLoss({**NORTON, "sequence_contrast": section})(**batch) for section in sections]
    torch.testing.assert_close(values[2] - values[1], values[1] - values[0])


def test_permuting_whole_sequences_changes_nothing():
    batch = random_batch()
    order = torch.arange(16).view(4, 4)[[2, 0, 3, 1]].flatten()
    torch.testing.assert_close(
        MMContraLoss(NORTON)(**{k: v[order] for k, v in batch.items()}), MMContraLoss(NORTON)(**batch)
    )


def test_only_the_historic_form_depends_on_padding():
    batch = random_batch()
    longer = batch | {
        "text_outputs": torch.nn.functional.pad(batch["text_outputs"], (0, 0, 0, 6), value=3.0),
        "text_mask_outputs": torch.nn.functional.pad(batch["text_mask_outputs"], (0, 6)),
    }
    torch.testing.assert_close(MMContraLoss(NORTON)(**longer), MMContraLoss(NORTON)(**batch))
    historic = MMContraLoss({**NORTON, "compat": True})
    assert (historic(**longer) - historic(**batch)).abs() > 1e-3


def test_what_the_loss_reads_follows_its_parts():
    assert MMContraLoss().reads == ("pooled_video", "pooled_text")
    assert "text_mask_outputs" in MMContraLoss(NORTON).reads
    assert MMContraLoss({**NORTON, "fusion_weight": None}).reads == ("pooled_video", "pooled_text")
    pooled = {name: value for name, value in random_batch().items() if name.startswith("pooled")}
    assert torch.isfinite(MMContraLoss({**NORTON, "fusion_weight": None})(**pooled))
    with pytest.raises(TypeError, match="reads .*video_outputs"):
        MMContraLoss(NORTON)(pooled_video=torch.ones(8, 2), pooled_text=torch.ones(8, 2))


def test_sizes_that_do_not_divide_are_refused_with_a_size_that_works():
    with pytest.raises(ValueError, match=r"clip_per_video=15 .*threshold=8.*Use 16\."):
        MMContraLoss({"sequence_contrast": {}}).check(clips_per_video=15)
    MMContraLoss({"sequence_contrast": {}}).check(clips_per_video=16)
    with pytest.raises(ValueError, match="14 clips in the batch do not divide .* use a batch of 12 clips"):
        MMContraLoss(NORTON)(**random_batch(14))


@pytest.mark.parametrize(
    "fault", [{"beta": 1.5}, {"sinkhorn_iterations": 0}, {"sequence_contrast": {"scale": 0}}]
)
def test_values_out_of_range_are_refused_with_their_key(fault):
    with pytest.raises(ValueError, match=f"{next(iter(fault))}.*expected"):
        MMContraLoss({**NORTON, **fault})


@pytest.mark.parametrize("stored", [True, False])
def test_duplicate_clips_are_not_negatives(monkeypatch, stored):
    if not stored:
        monkeypatch.setattr(nce, "MOST_STORED", 0)
    batch = random_batch(8)
    spans = {
        "video_start": torch.tensor([0, 0, 5, 9, 0, 3, 5, 9]),
        "video_end": torch.tensor([4, 4, 8, 12, 4, 6, 8, 12]),
    }
    spans |= {
        "text_start": torch.tensor([0, 0, 1, 1, 0, 1, 2, 3]),
        "text_end": torch.tensor([1, 2, 3, 3, 1, 2, 3, 4]),
    }
    scores = batch["pooled_video"] @ batch["pooled_text"].T
    for i, j in (
        (0, 1),
        (2, 3),
    ):  # the same seconds; the same captions; equal spans of the other video (4..7) are another thing
        scores[i, j] = scores[j, i] = -torch.inf
    expected = (
        sum(scores[i].logsumexp(0) + scores[:, i].logsumexp(0) - 2 * scores[i, i] for i in range(8)) / 8
    )
    got = MMContraLoss({"mask_duplicate_clips": True})(**batch, **spans, clips_per_video=4)
    torch.testing.assert_close(got, expected)
    softened = MMContraLoss({"mask_duplicate_clips": True, "sinkhorn_iterations": 20})(
        **batch, **spans, clips_per_video=4
    )
    assert torch.isfinite(softened)
    with pytest.raises(ValueError, match="mask_duplicate_clips needs video_start"):
        MMContraLoss({"mask_duplicate_clips": True})(**batch)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_with_extreme_scores_give_finite_float32(dtype):
    batch = {
        k: (v * 60).to(dtype) if v.is_floating_point() else v
        for k, v in random_batch(dtype=torch.float32, width=64).items()
    }
    value, gradients = loss_and_gradients(MMContraLoss(NORTON), batch)
    assert (
        value.dtype == torch.float32
        and torch.isfinite(value)
        and all(torch.isfinite(g).all() for g in gradients.values())
    )


def test_autocast_rounds_nothing_but_the_factors_of_token_products():
    batch = random_batch(dtype=torch.float32)
    pooled = {name: value for name, value in batch.items() if name.startswith("pooled")}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens, vectors = MMContraLoss(NORTON)(**batch), MMContraLoss()(**pooled)
    assert torch.equal(vectors, MMContraLoss()(**pooled))
    torch.testing.assert_close(tokens, MMContraLoss(NORTON)(**batch), rtol=1e-3, atol=0)


@pytest.mark.parametrize("collapsed", ["equal vectors", "all masked", "zeros"])
def test_degenerate_batches_are_finite_with_finite_gradients(collapsed):
    batch = random_batch(dtype=torch.float32)
    for name in INPUTS:
        if collapsed == "equal vectors":
            batch[name] = torch.ones_like(batch[name])
        if collapsed == "zeros":
            batch[name] = torch.zeros_like(batch[name])
    if collapsed == "all masked":
        batch = {k: torch.zeros_like(v) if v.dtype == torch.bool else v for k, v in batch.items()}
    value, gradients = loss_and_gradients(MMContraLoss(NORTON), batch)
    assert torch.isfinite(value) and all(torch.isfinite(g).all() for g in gradients.values())


def test_a_batch_of_one_clip_is_finite():
    value, gradients = loss_and_gradients(
        MMContraLoss({**NORTON, "sequence_contrast": {"threshold": 1}}), random_batch(1)
    )
    assert torch.isfinite(value) and all(torch.isfinite(g).all() for g in gradients.values())


def _check_global_negatives(rank, folder):
    whole = random_batch(16)
    mine = {name: value.chunk(WORLD)[rank] for name, value in whole.items()}
    learned = {"temperature": 0.5}
    for cls, section in (
        (MMContraLoss, NORTON),
        (MMContraLoss, learned),
        (MMContraLoss, {**NORTON, "fusion_weight": None}),
        (T2VContraLoss, {}),
        (V2TContraLoss, learned),
    ):
        expected, expected_gradients = loss_and_gradients(cls(section), whole)
        value, gradients = loss_and_gradients(cls({**section, "global_negatives": True}), mine)
        torch.testing.assert_close(value, expected)
        for name, gradient in gradients.items():  # data-parallel training averages over ranks
            torch.testing.assert_close(
                gradient / WORLD, expected_gradients[name].chunk(WORLD)[rank], rtol=1e-9, atol=1e-12
            )


def test_two_ranks_with_global_negatives_equal_one_process_on_the_joined_batch(tmp_path):
    run_on_two_ranks(_check_global_negatives, tmp_path)


def test_the_peak_of_forward_and_backward_holds_neither_all_token_pairs_nor_copies_of_the_tokens():
    n, words, frames, width = 256, 31, 18, 32
    batch = random_batch(n, words, frames, width, dtype=torch.float32)
    loss = MMContraLoss({**NORTON, "sequence_contrast": {"threshold": 8}})
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss_and_gradients(loss, batch)
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    token_pairs = 4 * n * n * words * frames
    assert peak < token_pairs / 10
