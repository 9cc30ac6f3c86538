"""TempCLR's losses: reference arrays, the loss recomputed by loops, properties of the draws, errors."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt.config import DatasetConfig
from mmpt.losses import build_loss, tempclr
from mmpt.losses.tempclr import (
    FewShotAlignmentLoss,
    TempCLRLocalisationLoss,
    TempCLRLoss,
    disjoint_clips,
    draw_frame_orders,
    draw_orders,
    draw_step_orders,
    few_shot_logits,
    sequence_clips,
    spread,
)
from mmpt.ops.windows import mean_by_second, window_seconds
from tests.conftest import golden_cases, load_golden
from tests.ops.slow_alignment import loop_dtw, loop_otam

TIMES = ("text_start", "text_end", "video_start", "video_end")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cases(path):
    golden = load_golden(path)
    for i in range(int(golden["n_cases"])):
        arrays = {
            name.removeprefix(f"c{i}_"): value for name, value in golden.items() if name.startswith(f"c{i}_")
        }
        yield {
            name: torch.from_numpy(value) if value.ndim else value.item() for name, value in arrays.items()
        }


def close(actual, expected, dtype):
    expected = np.asarray(expected)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(
        torch.as_tensor(actual).detach(), expected, rtol=tolerance, atol=tolerance * scale
    )


def pretraining_batch(n_videos=3, clips=16, dim=12, seed=0, dtype=torch.float64, gap=3):
    start = torch.arange(clips).repeat(n_videos) * gap
    return {
        "pooled_video": torch.randn(n_videos * clips, dim, generator=seeded(seed), dtype=torch.float64)
        .to(dtype)
        .requires_grad_(),
        "pooled_text": torch.randn(n_videos * clips, dim, generator=seeded(seed + 1), dtype=torch.float64)
        .to(dtype)
        .requires_grad_(),
        **dict.fromkeys(("text_start", "video_start"), start),
        **dict.fromkeys(("text_end", "video_end"), start + 2),
        "clips_per_video": clips,
    }


@pytest.mark.parametrize("path", golden_cases("tempclr_retri_loss.npz"))
def test_golden_tempclr_retri_loss(path, monkeypatch):
    for case in cases(path):
        clips = case["clip_per_video"]
        kept = disjoint_clips(*(case[name].view(-1, clips) for name in TIMES))
        for row, expected in zip(kept, case["kept"], strict=True):
            assert row.nonzero().flatten().tolist() == expected[expected >= 0].tolist()
        chosen, qualifies = sequence_clips(kept, case["threshold"])
        assert (chosen + torch.arange(len(kept))[:, None] * clips)[qualifies].tolist() == case[
            "selected"
        ].tolist()

        def golden_orders(n_draws, n_orders, length, generator, case=case, qualifies=qualifies):
            orders = torch.arange(length).repeat(n_draws, n_orders, 1)
            orders[qualifies] = case["negatives"].view(-1, n_orders, length)
            return orders

        monkeypatch.setattr(tempclr, "draw_orders", golden_orders)
        video, text = (case[name].clone().requires_grad_() for name in ("pooled_video", "pooled_text"))
        names = ("metric", "total_sample_size")
        loss = TempCLRLoss(
            {
                "sampling_threshold": case["threshold"],
                "alignment_loss_coeff": case["coeff"],
                **{n: case[n] for n in names},
            }
        )
        batch = {
            "pooled_video": video,
            "pooled_text": text,
            "clips_per_video": clips,
            **{name: case[name] for name in TIMES},
        }
        total = loss(**batch)
        total.backward()
        close(loss.terms["alignment"], case["align_loss"], video.dtype)
        close(loss.terms["contrastive"], case["contrastive_loss"], video.dtype)
        close(total, case["total_loss"], video.dtype)
        close(video.grad, case["total_grad_video"], video.dtype)
        close(text.grad, case["total_grad_text"], video.dtype)
        assert loss.terms["qualifying_share"].item() == pytest.approx(len(case["selected"]) / len(kept))


@pytest.mark.parametrize("path", golden_cases("tempclr_local_loss.npz"))
def test_golden_tempclr_local_loss(path, monkeypatch):
    for case in cases(path):
        if "negative_steps" in case:
            monkeypatch.setattr(
                tempclr, "draw_step_orders", lambda steps, n, generator, case=case: case["negative_steps"]
            )
            monkeypatch.setattr(
                tempclr, "draw_frame_orders", lambda classes, n, generator, case=case: case["negative_frames"]
            )
        video, text = (case[name].clone().requires_grad_() for name in ("video_seq", "pooled_text"))
        names = ("metric", "total_sample_size", "video_sampling_multiplier", "inner_shuffling")
        loss = TempCLRLocalisationLoss(
            {"alignment_loss_coeff": case["coeff"], **{name: case[name] for name in names if name in case}}
        )
        given = {"targets": case["targets"][None], "sequence_targets": case["sequence_targets"]}
        total = loss(logits=video @ text.T, video_seq=video, pooled_text=text, **given)
        total.backward()
        close(loss.terms["alignment"], case["align_loss"], video.dtype)
        close(loss.terms["bce"], case["bce_loss"], video.dtype)
        close(total, case["total_loss"], video.dtype)
        close(video.grad, case["total_grad_video"], video.dtype)
        close(text.grad, case["total_grad_text"], video.dtype)


@pytest.mark.parametrize("path", golden_cases("tempclr_fewshot.npz"))
@pytest.mark.parametrize("metric", ["otam", "dtw"])
def test_golden_tempclr_fewshot(path, metric):
    for case in cases(path):
        support, query = (case[name].clone().requires_grad_() for name in ("support", "query"))
        loss = FewShotAlignmentLoss({"metric": metric, "way": case[f"{metric}_logits"].shape[1]})
        close(
            few_shot_logits(support, case["support_labels"], query, loss.config),
            case[f"{metric}_logits"],
            query.dtype,
        )
        value = loss(
            support=support,
            query=query,
            support_labels=case["support_labels"],
            query_labels=case["query_labels"],
        )
        value.backward()
        close(value, case[f"{metric}_loss"], query.dtype)
        close(support.grad, case[f"{metric}_grad_support"], query.dtype)
        close(query.grad, case[f"{metric}_grad_query"], query.dtype)
        assert loss.terms["accuracy"].item() == pytest.approx(case[f"{metric}_acc"])


@pytest.mark.parametrize("metric", ["dtw", "otam"])
def test_pretraining_loss_equals_a_loop_over_videos_and_orders(metric):
    batch = pretraining_batch()
    loss = TempCLRLoss(
        {"metric": metric, "total_sample_size": 4, "sampling_threshold": 3, "alignment_loss_coeff": 1.0}
    )
    total = loss(**batch, generator=seeded(5))
    orders = draw_orders(3, 3, 3, seeded(5))
    video, text = (
        batch["pooled_video"].detach().view(3, 16, -1),
        batch["pooled_text"].detach().view(3, 16, -1),
    )
    expected = 0.0
    for v in range(3):
        x, y = text[v, [0, 7, 15]], video[v, [0, 7, 15]]  # all 16 clips are disjoint
        distances = []
        for order in [[0, 1, 2], *orders[v].tolist()]:
            d = np.array(
                [[1 - (a @ b).item() / (a.norm() * b.norm() + 0.01).item() for b in y] for a in x[order]]
            )
            distances.append(loop_dtw(d, 0.1) if metric == "dtw" else loop_otam(d, 0.1) + loop_otam(d.T, 0.1))
        expected += (distances[0] + math.log(sum(math.exp(-d) for d in distances))) / 3
    assert total.item() == pytest.approx(expected, rel=1e-9)


def test_a_clip_that_starts_where_the_last_ended_is_not_kept():
    start = torch.tensor([[0, 2, 3, 8]])
    assert disjoint_clips(start, start + 2, start, start + 2).tolist() == [[True, False, True, True]]
    ends_late = torch.tensor([[9, 2, 9, 9]])
    assert disjoint_clips(start, start + 1, start, ends_late).tolist() == [[True, False, False, False]]


def test_spread_is_the_truncated_linspace():
    for n, count in itertools.product(range(1, 60), range(1, 60)):
        np.testing.assert_array_equal(
            spread(torch.tensor(n), count), np.linspace(0, n - 1, count).astype(np.int64)
        )


def test_orders_are_distinct_and_never_the_identity():
    for length, n_orders in [(2, 1), (3, 5), (5, 31), (5, 119), (10, 200), (24, 50)]:
        orders = draw_orders(4, n_orders, length, seeded())
        assert (
            orders.shape == (4, n_orders, length) and (orders.sort(-1).values == torch.arange(length)).all()
        )
        for drawn in orders.tolist():
            assert len({tuple(range(length)), *map(tuple, drawn)}) == n_orders + 1


def test_orders_are_uniform_over_all_but_the_identity():
    drawn = draw_orders(4000, 2, 3, seeded()).flatten(0, 1).tolist()
    counts = [drawn.count(list(order)) for order in itertools.permutations(range(3))]
    assert counts[0] == 0 and all(abs(count - 1600) < 5 * 40 for count in counts[1:])


def test_orders_depend_on_the_generator_alone():
    assert torch.equal(draw_orders(2, 10, 6, seeded(3)), draw_orders(2, 10, 6, seeded(3)))
    assert not torch.equal(draw_orders(2, 10, 6, seeded(3)), draw_orders(2, 10, 6, seeded(4)))


def test_more_orders_than_exist_are_refused_when_drawn():
    with pytest.raises(ValueError, match="5 shuffled orders"):
        draw_orders(1, 6, 3)


def test_step_orders_never_show_the_true_sequence_and_keep_its_steps():
    steps = torch.tensor([4, 1, 4])
    orders = draw_step_orders(steps, 200, seeded())
    assert not (orders == steps).all(-1).any() and (orders.sort(-1).values == torch.tensor([1, 4, 4])).all()


def test_frames_are_shuffled_only_within_their_run():
    classes = torch.tensor([2, 2, 2, 0, 0, 2, 2])
    orders = draw_frame_orders(classes, 200, seeded())
    assert (classes[orders] == classes).all() and (orders[:, :3] < 3).all() and (orders[:, 5:] > 4).all()
    assert len(orders.unique(dim=0)) == math.factorial(3) * 2 * 2


def localisation_batch(dtype=torch.float64):
    video = torch.randn(7, 6, generator=seeded(), dtype=torch.float64).to(dtype).requires_grad_()
    text = torch.randn(3, 6, generator=seeded(1), dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 1, 0]])
    labels = {"targets": targets, "sequence_targets": torch.tensor([[0, 0, 2, 1]])}
    return {"video_seq": video, "pooled_text": text, "logits": video @ text.T, **labels}


def test_localisation_merges_windows_before_it_aligns():
    batch = localisation_batch()
    vmasks = torch.tensor([[[1, 1, 1, 1], [1, 1, 1, 0]]]).bool()
    loss = TempCLRLocalisationLoss({"sliding_window": 2, "alignment_loss_coeff": 1.0})
    merged = loss(**batch, vmasks=vmasks, generator=seeded())
    second = window_seconds(vmasks[0], 2)
    video, targets = (
        mean_by_second(batch["video_seq"], second),
        mean_by_second(batch["targets"].double(), second),
    )
    by_hand = loss.alignment(video, batch["pooled_text"], targets, batch["sequence_targets"], seeded())
    historic = TempCLRLocalisationLoss({"compat": True, "alignment_loss_coeff": 1.0})
    as_they_come = historic(**batch, vmasks=vmasks, generator=seeded())
    assert merged.item() == pytest.approx(by_hand.item()) and merged.item() != pytest.approx(
        as_they_come.item()
    )


def test_localisation_drops_the_alignment_in_evaluation_but_keeps_its_share():
    loss = TempCLRLocalisationLoss().eval()
    value = loss(**localisation_batch())
    assert loss.terms["alignment"] == 0 and value.item() == pytest.approx(0.88 * loss.terms["bce"].item())


def test_localisation_without_two_labelled_frames_has_no_alignment():
    batch = localisation_batch() | {"targets": torch.zeros(7, 3)}
    loss = TempCLRLocalisationLoss()
    loss(**batch).backward()
    assert loss.terms["alignment"] == 0 and batch["video_seq"].grad.isfinite().all()


def test_localisation_without_inner_shuffling_leaves_frames_in_place(monkeypatch):
    monkeypatch.setattr(tempclr, "draw_frame_orders", None)
    assert TempCLRLocalisationLoss({"inner_shuffling": False})(**localisation_batch()).isfinite()


@pytest.mark.parametrize("metric", ["dtw", "otam"])
def test_equal_costs_give_the_log_of_the_number_of_orders(metric):
    batch = pretraining_batch()
    batch["pooled_text"] = torch.ones_like(batch["pooled_text"])
    batch["pooled_video"] = torch.ones_like(batch["pooled_video"]).requires_grad_()
    loss = TempCLRLoss({"metric": metric})
    loss(**batch).backward()
    assert (
        loss.terms["alignment"].item() == pytest.approx(math.log(32))
        and batch["pooled_video"].grad.isfinite().all()
    )


def test_no_qualifying_video_leaves_the_contrastive_share():
    batch = pretraining_batch(gap=0)
    loss = TempCLRLoss()
    value = loss(**batch)
    value.backward()
    assert loss.terms["alignment"] == 0 and loss.terms["qualifying_share"] == 0
    assert (
        value.item() == pytest.approx(0.3 * loss.terms["contrastive"].item())
        and batch["pooled_text"].grad.isfinite().all()
    )


def test_the_qualifying_share_counts_videos():
    batch = pretraining_batch(n_videos=4)
    for name in TIMES:
        batch[name] = batch[name].clone()
        batch[name][16:32] = batch[name][16]
    loss = TempCLRLoss()
    loss(**batch)
    assert loss.terms["qualifying_share"].item() == 0.75


def test_a_sequence_in_order_scores_better_than_one_reversed():
    batch = pretraining_batch(n_videos=2, clips=6, dim=6)
    batch["pooled_video"] = torch.eye(6).repeat(2, 1)
    right, wrong = TempCLRLoss({"alignment_loss_coeff": 1.0}), TempCLRLoss({"alignment_loss_coeff": 1.0})
    right(**batch | {"pooled_text": torch.eye(6).repeat(2, 1)}, generator=seeded())
    wrong(**batch | {"pooled_text": torch.eye(6).flip(0).repeat(2, 1)}, generator=seeded())
    assert right.terms["alignment"] < math.log(32) < wrong.terms["alignment"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 50.0])
def test_half_precision_zero_and_large_vectors_give_finite_losses_and_gradients(dtype, scale):
    batch = pretraining_batch(dtype=dtype)
    video, text = (
        (batch[name] * scale).detach().requires_grad_() for name in ("pooled_video", "pooled_text")
    )
    TempCLRLoss({"metric": "otam"})(**batch | {"pooled_video": video, "pooled_text": text}).backward()
    assert video.grad.dtype == dtype and video.grad.isfinite().all() and text.grad.isfinite().all()


def test_one_video_of_duplicate_clips_is_finite():
    batch = pretraining_batch(n_videos=1)
    batch["pooled_video"] = batch["pooled_video"][:1].detach().repeat(16, 1).requires_grad_()
    TempCLRLoss()(**batch).backward()
    assert batch["pooled_video"].grad.isfinite().all()


def test_few_shot_takes_the_mean_over_a_class_whatever_the_order_of_supports():
    support, query = torch.randn(6, 4, 5, generator=seeded()), torch.randn(3, 4, 5, generator=seeded(1))
    labels = torch.tensor([0, 1, 0, 2, 1, 2])
    config = FewShotAlignmentLoss({"way": 3}).config
    logits = few_shot_logits(support, labels, query, config)
    shuffle = torch.tensor([3, 1, 0, 5, 4, 2])
    assert torch.allclose(
        logits, few_shot_logits(support[shuffle], labels[shuffle], query, config), atol=1e-5
    )


def test_losses_are_found_by_name_with_yaml_keys():
    keys = {"metric": "otam", "sampling_threshold": 6, "total_sample_size": 8, "alignment_loss_coeff": 0.5}
    config = build_loss({"loss_cls": "TempCLRLoss", **keys}).config
    assert (config.metric, config.sequence_length, config.n_orders, config.weight) == ("otam", 6, 8, 0.5)
    keys = {"video_sampling_multiplier": 3, "inner_shuffling": False, "alignment_loss_coeff": 0.2}
    config = build_loss({"loss_cls": "TempCLRLocalisationLoss", **keys}).config
    assert (config.frames_per_step, config.shuffle_frames, config.weight) == (3, False, 0.2)
    assert build_loss({"loss_cls": "FewShotAlignmentLoss"}).config.metric == "otam"


def test_reads_names_what_model_and_batch_must_give():
    assert set(TempCLRLoss().reads) == {"pooled_video", "pooled_text", *TIMES, "clips_per_video"}
    assert set(TempCLRLocalisationLoss().reads) == {
        "logits",
        "targets",
        "video_seq",
        "pooled_text",
        "sequence_targets",
    }


@pytest.mark.parametrize(
    "loss, keys, words",
    [
        (TempCLRLoss, {"metric": "dwt"}, "metric: expected one of dtw, otam, got 'dwt'"),
        (TempCLRLoss, {"sampling_threshold": 4}, "only 24 orders"),
        (TempCLRLoss, {"sampling_threshold": 1}, "at least 2"),
        (TempCLRLoss, {"total_sample_size": 1}, "total_sample_size: expected .* at least 2, got 1"),
        (
            TempCLRLoss,
            {"alignment_loss_coeff": 1.5},
            "alignment_loss_coeff: expected .* at least 0 and at most 1, got 1.5",
        ),
        (TempCLRLoss, {"lbda": 0.0}, "lbda: expected .* above 0, got 0.0"),
        (
            TempCLRLocalisationLoss,
            {"video_sampling_multiplier": 0},
            "video_sampling_multiplier: expected .* at least 1",
        ),
    ],
)
def test_values_out_of_range_are_named(loss, keys, words):
    with pytest.raises(ValueError, match=words):
        loss(keys)


def test_too_few_clips_per_video_are_refused_before_training():
    with pytest.raises(ValueError, match="clip_per_video=4"):
        TempCLRLoss().check(clips_per_video=4)
    TempCLRLoss().check(clips_per_video=16)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"sort_clips": False}, "dataset.sort_clips"), ({"clip_per_video": None}, "clip_per_video is missing")],
)
def test_data_without_an_order_of_several_clips_are_refused_before_training(change, words):
    data = DatasetConfig(clip_per_video=16)
    TempCLRLoss().check_data(data)
    with pytest.raises(ValueError, match=words):
        TempCLRLoss().check_data(replace(data, **change))
