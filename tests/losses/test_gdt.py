from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mmpt.losses.gdt as gdt_losses
from mmpt.config import DatasetConfig
from mmpt.losses import GDTLoss
from mmpt.ops.gdt import GDTHypothesis
from tests.conftest import golden_cases, load_golden
from tests.ops.vectors import unit
from tests.simulated_ranks import SimulatedRanks

SUFFIXES = {"rank": "", "released": "_asis", "global": "_global"}


def views_of(hypothesis, n=3, d=8, seed=0, dtype=torch.float64):
    """View-major embeddings of two modalities."""
    n_views = len(GDTHypothesis.parse(hypothesis).views)
    return {
        "pooled_video": unit(n_views * n, d, seed=seed, dtype=dtype).requires_grad_(),
        "pooled_text": unit(n_views * n, d, seed=seed + 1, dtype=dtype).requires_grad_(),
    }


def by_loops(hypothesis, video, text, temperature=0.07, scope="global", world=1, valid=None):
    """The definition from the inspectable masks; keys detached."""
    hypothesis = GDTHypothesis.parse(hypothesis)
    n = len(video) // len(hypothesis.views)
    full = []
    for x in (video, text):  # put the views in their canonical places
        table = [torch.zeros(n, x.shape[1], dtype=x.dtype)] * 4
        for place, view in enumerate(hypothesis.views):
            table[view] = x[place * n : (place + 1) * n]
        full.append(torch.cat(table))
    there = torch.zeros(4 * n, dtype=torch.bool)
    for place, view in enumerate(hypothesis.views):
        there[view * n : (view + 1) * n] = True if valid is None else valid[place * n : (place + 1) * n]
    values = {term.name: [] for term in hypothesis.terms}
    for mask in hypothesis.masks(world, n // world, scope):
        queries, keys = full[mask["query_modality"]], full[1 - mask["query_modality"]].detach()
        rows = []
        for i in range(n):
            if valid is not None:
                mask["mult"][i] *= there
                if not there[mask["query_view"] * n + i] or not there[mask["pos"][i]]:
                    continue
            s = keys @ queries[mask["query_view"] * n + i] / temperature
            counted = torch.where(mask["mult"][i] > 0, s + mask["mult"][i].double().log(), -torch.inf)
            rows.append(counted.logsumexp(0) - s[mask["pos"][i]])
        values[mask["term"]].append(torch.stack(rows).mean())
    return sum(term.weight * torch.stack(values[term.name]).mean() for term in hypothesis.terms)


@pytest.mark.parametrize("path", golden_cases("gdt_loss*.npz"))
@pytest.mark.parametrize("scope", SUFFIXES)
def test_golden_gdt_loss_of_every_rank_and_hypothesis(path, scope, monkeypatch):
    golden = load_golden(path)
    world, suffix = int(golden["world_size"]), SUFFIXES[scope]
    rtol = 1e-10 if golden["v"].dtype == np.float64 else 1e-5
    ranks = SimulatedRanks(monkeypatch, world, [gdt_losses])
    for number in range(1, 10):
        views = list(GDTHypothesis.parse(number).views)

        def step(rank, number=number, views=views):
            embeddings = [torch.tensor(golden[name][rank][views], requires_grad=True) for name in ("v", "a")]
            section = {
                "hypothesis": number,
                **({"compat": True} if scope == "released" else {"negative_scope": scope}),
                "temperature": float(golden["temperature"]),
            }
            loss = GDTLoss(section)
            value = loss(pooled_video=embeddings[0], pooled_audio=embeddings[1])
            value.backward()
            return (
                value.item(),
                [loss.terms[str(name)].item() for name in golden[f"h{number}.term_names"]],
                embeddings,
            )

        results = ranks.run(step)
        values, terms = [r[0] for r in results], [r[1] for r in results]
        per_rank = scope != "global"
        np.testing.assert_allclose(
            values if per_rank else np.mean(values), golden[f"h{number}.loss{suffix}"], rtol=rtol
        )
        np.testing.assert_allclose(
            terms if per_rank else np.mean(terms, 0), golden[f"h{number}.terms{suffix}"], rtol=rtol
        )
        for name, which in (("v", 0), ("a", 1)):
            expected = golden[f"h{number}.grad_{name}{suffix}"][:, views]
            found = np.stack([r[2][which].grad for r in results]) / (1 if per_rank else world)
            np.testing.assert_allclose(found, expected, rtol=100 * rtol, atol=10 * rtol)


@pytest.mark.parametrize("number", range(1, 10))
def test_equals_the_loop_over_its_masks(number):
    batch = views_of(number)
    loss = GDTLoss({"hypothesis": number})(**batch)
    torch.testing.assert_close(
        loss, by_loops(number, **{k.removeprefix("pooled_"): x for k, x in batch.items()})
    )


def test_the_layout_of_the_batch_is_a_matter_of_order():
    batch, valid = views_of(8), torch.arange(12) != 5
    by_item = {name: x.view(4, 3, -1).transpose(0, 1).flatten(0, 1) for name, x in batch.items()}
    found = GDTLoss({"hypothesis": 8, "layout": "item_major"})(
        **by_item, view_valid=valid.view(4, 3).T.flatten()
    )
    torch.testing.assert_close(found, GDTLoss({"hypothesis": 8})(**batch, view_valid=valid))


def test_a_name_gives_the_loss_of_its_number():
    batch = views_of(8)
    assert torch.equal(
        GDTLoss({"hypothesis": 8})(**batch), GDTLoss({"hypothesis": "v_reversal_i_shift"})(**batch)
    )


def test_swapping_modalities_leaves_the_loss_alone():
    batch = views_of(7)
    swapped = {"pooled_video": batch["pooled_text"], "pooled_text": batch["pooled_video"]}
    torch.testing.assert_close(GDTLoss({"hypothesis": 7})(**swapped), GDTLoss({"hypothesis": 7})(**batch))


@pytest.mark.parametrize("number", [2, 3])
def test_swapping_original_and_reversed_views_leaves_the_loss_alone(number):
    batch = views_of(number)
    swapped = {name: x.roll(3, 0) for name, x in batch.items()}
    torch.testing.assert_close(
        GDTLoss({"hypothesis": number})(**swapped), GDTLoss({"hypothesis": number})(**batch)
    )


def test_aligned_orthogonal_embeddings_have_the_closed_form():
    x = torch.eye(5, dtype=torch.float64)
    loss = GDTLoss({"hypothesis": 1, "temperature": 0.5})(pooled_video=x, pooled_text=x)
    assert loss.item() == pytest.approx(math.log(1 + 4 * math.exp(-2)))


def test_identical_reversed_embeddings_cannot_fall_below_log_two():
    x = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    assert GDTLoss({"hypothesis": 2, "temperature": 0.01})(
        pooled_video=x, pooled_text=x
    ).item() == pytest.approx(math.log(2))


def test_keys_are_constants_unless_asked():
    batch = views_of(4)
    for key_grad in (False, True):
        section = {"hypothesis": 4, "key_grad": key_grad, "sync_direction_weights": [1.0, 0.0]}
        gradient = torch.autograd.grad(GDTLoss(section)(**batch), batch["pooled_text"], allow_unused=True)[0]
        assert (gradient is not None and gradient.abs().sum() > 0) == key_grad


def test_key_gradients_are_exact():
    batch = {name: 3 * x.detach() for name, x in views_of(8, n=2, d=3).items()}
    inputs = [x.requires_grad_() for x in batch.values()]
    loss = GDTLoss({"hypothesis": 8, "key_grad": True, "temperature": 1.0})
    assert torch.autograd.gradcheck(lambda v, t: loss(pooled_video=v, pooled_text=t), inputs)


def test_views_that_could_not_be_made_neither_ask_nor_answer():
    batch = views_of(4, n=4)
    valid = torch.ones(8, dtype=torch.bool)
    valid[[2, 6]] = False  # sample 2 in both views: as if it were not in the batch
    kept = {name: x[valid] for name, x in batch.items()}
    torch.testing.assert_close(
        GDTLoss({"hypothesis": 4})(**batch, view_valid=valid), GDTLoss({"hypothesis": 4})(**kept)
    )


@pytest.mark.parametrize("number", [3, 7, 9])
def test_a_pair_of_views_needs_both(number):
    batch = views_of(number)
    valid = torch.ones(len(batch["pooled_text"]), dtype=torch.bool)
    valid[4] = False  # reversed view of sample 1
    expected = by_loops(number, **{k.removeprefix("pooled_"): x for k, x in batch.items()}, valid=valid)
    torch.testing.assert_close(GDTLoss({"hypothesis": number})(**batch, view_valid=valid), expected)


def test_without_any_shifted_view_a_shift_hypothesis_is_the_baseline():
    batch = views_of(4, n=4)
    valid = torch.arange(8) < 4
    expected = GDTLoss({"hypothesis": 1})(**{name: x[:4] for name, x in batch.items()})
    torch.testing.assert_close(GDTLoss({"hypothesis": 4})(**batch, view_valid=valid), expected)


def test_the_joint_composition_equals_its_definition():
    batch, total = views_of(7), []
    n, agree = 3, {0: [0, 1], 1: [0, 1], 2: [2, 3], 3: [2, 3]}  # reversal invariant, shift distinctive
    for queries, keys in (
        (batch["pooled_video"], batch["pooled_text"]),
        (batch["pooled_text"], batch["pooled_video"]),
    ):
        logits = queries @ keys.T / 0.07
        for view, positives in agree.items():
            for i in range(n):
                total += [
                    logits[view * n + i].logsumexp(0) - logits[view * n + i, p * n + i] for p in positives
                ]
    torch.testing.assert_close(
        GDTLoss({"hypothesis": 7, "composition": "joint"})(**batch), torch.stack(total).mean()
    )


def test_drawn_negatives_lower_the_loss_and_depend_on_the_update():
    batch = views_of(1, n=12)
    loss = GDTLoss({"hypothesis": 1, "num_negatives": 3})
    values = [loss(**batch, num_updates=update).item() for update in (1, 1, 2)]
    assert values[0] == values[1] != values[2] and max(values) < GDTLoss({"hypothesis": 1})(**batch).item()
    everything = GDTLoss({"hypothesis": 1, "num_negatives": 100})(**batch)
    torch.testing.assert_close(everything, GDTLoss({"hypothesis": 1})(**batch))


def test_a_learned_temperature_is_read():
    batch = views_of(3)
    logit_scale = torch.tensor(math.log(5.0), dtype=torch.float64, requires_grad=True)
    loss = GDTLoss({"hypothesis": 3})(**batch, logit_scale=logit_scale)
    torch.testing.assert_close(loss, GDTLoss({"hypothesis": 3, "temperature": 0.2})(**batch))
    loss.backward()
    assert logit_scale.grad.abs() > 0


def test_logs_hold_accuracy_and_logits():
    loss = GDTLoss({"hypothesis": 1})
    x = torch.eye(4)
    loss(pooled_video=x, pooled_text=x)
    assert (
        loss.terms["top1_first"] == 1
        and loss.terms["positive"].item() == pytest.approx(1 / 0.07)
        and loss.terms["hardest"] == 0
    )


def test_one_sample_under_the_baseline_is_exactly_zero():
    batch = views_of(1, n=1)
    loss = GDTLoss({"hypothesis": 1})(**batch)
    loss.backward()
    assert loss == 0 and (batch["pooled_video"].grad == 0).all()


@pytest.mark.parametrize("number", range(1, 10))
@pytest.mark.parametrize("case", ["duplicates", "zeros", "one sample", "nothing valid"])
def test_values_and_gradients_stay_finite(number, case):
    batch = views_of(number, n=1 if case == "one sample" else 3, dtype=torch.float32)
    if case in ("duplicates", "zeros"):
        batch = {
            name: (x.detach()[:1].expand_as(x) * (case == "duplicates")).clone().requires_grad_()
            for name, x in batch.items()
        }
    valid = torch.zeros(len(batch["pooled_text"]), dtype=torch.bool) if case == "nothing valid" else None
    loss = GDTLoss({"hypothesis": number, "temperature": 0.01})(**batch, view_valid=valid)
    loss.backward()
    assert loss.isfinite() and all(x.grad.isfinite().all() for x in batch.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_finite_and_give_the_float32_loss(dtype):
    batch = {name: (300 * x.detach()).to(dtype).requires_grad_() for name, x in views_of(9).items()}
    expected = GDTLoss({"hypothesis": 9, "temperature": 0.01})(
        **{name: x.detach().float() for name, x in batch.items()}
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = GDTLoss({"hypothesis": 9, "temperature": 0.01})(**batch)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert all(x.grad.isfinite().all() for x in batch.values())


@pytest.mark.parametrize("number", [1, 6, 9])
def test_the_global_loss_does_not_depend_on_the_number_of_ranks(number, monkeypatch):
    n_views = len(GDTHypothesis.parse(number).views)
    whole = {
        name: x.detach().view(n_views, 4, -1).requires_grad_() for name, x in views_of(number, n=4).items()
    }
    section = {"hypothesis": number, "key_grad": True}
    expected = GDTLoss(section)(**whole)
    gradients = torch.autograd.grad(expected, list(whole.values()))
    ranks = SimulatedRanks(monkeypatch, 2, [gdt_losses])
    mean = (
        sum(
            ranks.run(
                lambda rank: GDTLoss(section)(
                    **{name: x[:, 2 * rank : 2 * rank + 2] for name, x in whole.items()}
                )
            )
        )
        / 2
    )
    torch.testing.assert_close(mean, expected)
    for found, gradient in zip(torch.autograd.grad(mean, list(whole.values())), gradients, strict=True):
        torch.testing.assert_close(found, gradient)


def test_ill_posed_hypotheses_are_refused_at_the_start_unless_allowed():
    with pytest.raises(ValueError, match="allow_degenerate"):
        GDTLoss({"hypothesis": 8, "text_reversal": "none"})
    with pytest.raises(ValueError, match="does not see the order"):
        GDTLoss({"hypothesis": "v_reversal", "order_sensitive": False})
    GDTLoss({"hypothesis": 8, "text_reversal": "none", "allow_degenerate": True})
    GDTLoss({"hypothesis": 8, "text_reversal": "none", "modalities": ["video", "audio"]})
    GDTLoss({"hypothesis": 9, "text_reversal": "none"})


def test_views_and_text_of_the_data_must_be_those_of_the_hypothesis():
    data = DatasetConfig(views=["orig", "rev", "shift", "shiftrev"], subsampling=4)
    with pytest.raises(
        ValueError,
        match=r"compares the views orig, shift; .* dataset.views: \[orig, shift\] and dataset.subsampling: 2",
    ):
        GDTLoss({"hypothesis": "v_shift", "layout": "item_major"}).check_data(data)
    with pytest.raises(ValueError, match="dataset.subsampling=3, but loss.hypothesis compares 4 views"):
        GDTLoss({"hypothesis": 8, "layout": "item_major"}).check_data(replace(data, subsampling=3))
    with pytest.raises(ValueError, match="loss.layout: item_major"):
        GDTLoss({"hypothesis": 8}).check_data(data)
    with pytest.raises(
        ValueError, match="loss.text_reversal=token .* differs from dataset.text_reversal=sentence"
    ):
        GDTLoss({"hypothesis": 8, "layout": "item_major"}).check_data(replace(data, text_reversal="sentence"))
    GDTLoss({"hypothesis": 8, "layout": "item_major", "text_reversal": "sentence"}).check_data(
        replace(data, text_reversal="sentence")
    )
    GDTLoss({"hypothesis": 8}).check_data(DatasetConfig())  # an aligner of one's own


def test_wrong_sections_and_batches_say_what_is_wrong():
    with pytest.raises(ValueError, match="loss.hypothesis"):
        GDTLoss({})
    with pytest.raises(ValueError, match="cross_modal_baseline"):
        GDTLoss({"hypothesis": "shiftt"})
    with pytest.raises(ValueError, match="negative_scope"):
        GDTLoss({"hypothesis": 1, "negative_scope": "local"})
    with pytest.raises(ValueError, match="loss.modalities .* expected two names"):
        GDTLoss({"hypothesis": 1, "modalities": ["video", "video"]})
    with pytest.raises(ValueError, match="sync_direction_weights .* two numbers"):
        GDTLoss({"hypothesis": 1, "sync_direction_weights": [1]})
    with pytest.raises(ValueError, match="negative_scope=rank .* needs composition: pairwise"):
        GDTLoss({"hypothesis": 1, "negative_scope": "rank", "composition": "joint"})
    with pytest.raises(ValueError, match="negative_scope=rank and loss.compat=True .* exclude each other"):
        GDTLoss({"hypothesis": 1, "negative_scope": "rank", "compat": True})
    with pytest.raises(ValueError, match="needs 4 views"):
        GDTLoss({"hypothesis": 9})(pooled_video=torch.ones(6, 3), pooled_text=torch.ones(6, 3))
    with pytest.raises(ValueError, match="pooled_audio"):
        GDTLoss({"hypothesis": 1})(pooled_video=torch.ones(6, 3))


def test_training_on_eight_samples_brings_the_loss_below_a_tenth_of_its_start():
    torch.manual_seed(0)
    tables = [torch.randn(32, 16, requires_grad=True) for _ in range(2)]
    optimizer, loss, values = torch.optim.Adam(tables, lr=0.1), GDTLoss({"hypothesis": 6}), []
    for _ in range(60):
        value = loss(pooled_video=F.normalize(tables[0], dim=1), pooled_text=F.normalize(tables[1], dim=1))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.1 * values[0]
