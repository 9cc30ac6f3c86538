from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mmpt.losses.multimodal.base as tuple_losses
import mmpt.losses.multimodal.gram as gram_losses
import mmpt.modules.matching as matching
from mmpt.losses import GRAMLoss, PairwiseNCE, PMRLLoss, SymileLoss, TriangleLoss, build_loss
from mmpt.modules import PairMatcher
from mmpt.ops.gram import gram_volume
from tests.conftest import golden_cases, load_golden
from tests.ops.vectors import unit
from tests.simulated_ranks import SimulatedRanks

ALL = [GRAMLoss, TriangleLoss, PMRLLoss, SymileLoss, PairwiseNCE]


def batch_of(n=6, d=12, dtype=torch.float64, names=("text", "video", "audio"), same=False):
    rows = {
        f"pooled_{name}": unit(n, d, seed=0 if same else 30 + m, dtype=dtype).requires_grad_()
        for m, name in enumerate(names)
    }
    return rows


def golden_batch(golden, rank=None):
    names = {"subtitle": "zz_subtitle"}  # any further modality, by any name
    keys = ["anchor", *(f"mod_{m}" for m in range(len(golden["modalities"])))]
    labels = ["text", *(names.get(str(m), str(m)) for m in golden["modalities"])]
    pick = (lambda x: x) if rank is None else (lambda x: x[rank])
    return {
        f"pooled_{label}": torch.tensor(pick(golden[key]), requires_grad=True)
        for key, label in zip(keys, labels, strict=True)
    }


def section_of(golden, **changes):
    return {
        "temperature": golden["temperature"].item(),
        "label_smoothing": golden["label_smoothing"].item(),
        **changes,
    }


def check_gradients(golden, batch, suffix="", rank=None):
    for key, x in zip(["anchor", *(f"mod_{m}" for m in range(len(batch) - 1))], batch.values(), strict=True):
        expected = golden[f"grad_{key}{suffix}"]
        np.testing.assert_allclose(x.grad, expected if rank is None else expected[rank], atol=1e-10)


@pytest.mark.parametrize("path", golden_cases("gram_loss*.npz"))
@pytest.mark.parametrize("gather, suffix", [("full", ""), ("detached", "_detached")])
def test_golden_gram_loss_through_the_class(path, gather, suffix):
    golden = load_golden(path)
    batch = golden_batch(golden)
    loss = GRAMLoss(section_of(golden, gather=gather))(**batch)
    loss.backward()
    assert loss.item() == pytest.approx(golden["loss"].item(), rel=1e-10)
    check_gradients(golden, batch, suffix)


class SumOfIds(torch.nn.Module):
    """The stand-in for a fusion encoder that the golden values use."""

    def forward(self, ids, mask, condition, condition_mask):
        text = (ids * mask).sum(1, keepdim=True).double() / 100 + torch.arange(condition.shape[-1])
        return condition.mean(1) + text.sin()


def golden_matcher(golden):
    matcher = PairMatcher(SumOfIds(), golden["condition"].shape[-1]).double()
    arrays = {
        name.removeprefix("head_").replace("norm", "layernorm"): torch.tensor(golden[name])
        for name in golden
        if name.startswith("head_")
    }
    matcher.head.load_state_dict(
        {name.replace("_weight", ".weight").replace("_bias", ".bias"): x for name, x in arrays.items()}
    )
    return matcher.requires_grad_(False)


@pytest.mark.parametrize("path", golden_cases("gram_dist*.npz"))
def test_golden_gram_dist_every_rank(path, monkeypatch):
    golden = load_golden(path)
    world, _n_own = golden["anchor"].shape[:2]
    ranks = SimulatedRanks(monkeypatch, world, [gram_losses, tuple_losses, matching])
    # The golden values take the likeliest negative instead of a draw.
    monkeypatch.setattr(torch, "multinomial", lambda weights, n, generator: weights.argmax(1, keepdim=True))
    condition = [torch.tensor(golden["condition"][r], requires_grad=True) for r in range(world)]

    def step(rank):
        batch = golden_batch(golden, rank)
        loss = GRAMLoss(section_of(golden, gather="detached", dam_weight=golden["itm_ratio"].item()))
        ids, mask = (torch.tensor(golden[name][rank]) for name in ("token_ids", "token_mask"))
        matcher = golden_matcher(golden).bind(ids, mask, condition[rank])
        (own,) = torch.autograd.grad(
            loss(**batch, matcher=matcher), condition[rank]
        )  # without what other ranks' losses add
        logit_scale = torch.tensor(-np.log(golden["temperature"])).requires_grad_()
        contrast = GRAMLoss(section_of(golden, gather="detached"))(**batch, logit_scale=logit_scale)
        contrast.backward()
        return loss.terms["matching"].item(), contrast.item(), batch, logit_scale.grad.item(), own

    for rank, (itm, area, batch, grad_scale, own) in enumerate(ranks.run(step)):
        assert area == pytest.approx(golden["loss_area"][rank], rel=1e-10)
        assert itm == pytest.approx(golden["loss_itm"][rank], rel=1e-9)
        check_gradients(golden, batch, rank=rank)
        assert -grad_scale / golden["temperature"] == pytest.approx(
            golden["grad_temperature"][rank], rel=1e-9
        )
        np.testing.assert_allclose(own, golden["grad_condition_itm"][rank], atol=1e-10)


@pytest.mark.parametrize("anchor", ["text", "video", "audio", "all"])
def test_equals_cross_entropy_of_volumes_for_any_anchor(anchor):
    batch = batch_of()
    names = ["text", "video", "audio"]
    expected = []
    for name in names if anchor == "all" else [anchor]:
        others = [batch[f"pooled_{m}"] for m in names if m != name]
        logits = -gram_volume(batch[f"pooled_{name}"], others) / 0.2
        expected += [F.cross_entropy(x, torch.arange(6), label_smoothing=0.1) for x in (logits, logits.T)]
    loss = GRAMLoss({"anchor": anchor, "temperature": 0.2})(**batch)
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_one_direction_is_one_cross_entropy():
    batch = batch_of()
    both = GRAMLoss()(**batch)
    torch.testing.assert_close(
        (GRAMLoss({"direction": "a2d"})(**batch) + GRAMLoss({"direction": "d2a"})(**batch)) / 2, both
    )


def test_the_direction_says_who_picks_whom():
    batch = batch_of()
    anchor, *others = batch.values()
    logits = -gram_volume(anchor, others) / 0.07  # rows are anchors
    for direction, rows in (("a2d", logits), ("d2a", logits.T)):
        expected = F.cross_entropy(rows, torch.arange(6), label_smoothing=0.1)
        torch.testing.assert_close(GRAMLoss(direction=direction)(**batch), expected)
        both = GRAMLoss()
        both(**batch)
        torch.testing.assert_close(2 * both.terms[direction], expected.detach())


def test_a_learned_temperature_is_read_and_trained():
    batch = batch_of()
    logit_scale = torch.tensor(1 / 0.2).log().double().requires_grad_()
    loss = GRAMLoss()(**batch, logit_scale=logit_scale)
    torch.testing.assert_close(loss, GRAMLoss({"temperature": 0.2})(**batch))
    loss.backward()
    assert logit_scale.grad.abs() > 0


def test_a_learned_temperature_stops_at_its_bound_and_can_come_back():
    logit_scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    loss = GRAMLoss()(**batch_of(), logit_scale=logit_scale)
    torch.testing.assert_close(loss, GRAMLoss({"temperature": 0.01})(**batch_of()))
    loss.backward()
    assert logit_scale.grad.abs() > 0


def test_embeddings_of_any_length_give_the_loss_of_unit_ones():
    batch = batch_of()
    longer = {name: 7 * x for name, x in batch.items()}
    torch.testing.assert_close(GRAMLoss()(**longer), GRAMLoss()(**batch))
    assert not torch.allclose(GRAMLoss({"normalize": False})(**longer), GRAMLoss()(**batch))


@pytest.mark.parametrize("cls", ALL)
def test_an_item_declared_missing_does_not_matter(cls):
    batch = batch_of()
    there = torch.tensor([True, True, False, True, True, True])
    kept = {name: x[there] for name, x in batch.items()}
    garbage = {name: torch.where(there[:, None], x, torch.nan) for name, x in batch.items()}
    present = {name: there for name in ("text", "video", "audio")}
    section = {"dim_norm": False} if cls is GRAMLoss else {}
    torch.testing.assert_close(cls(section)(**garbage, present=present), cls(section)(**kept))


@pytest.mark.parametrize("cls", [GRAMLoss, PMRLLoss])
def test_a_modality_that_nobody_has_does_not_matter(cls):
    batch = batch_of()
    loss = cls({"rank_temperature": 1.0} if cls is PMRLLoss else {})
    found = loss(**batch, present={"audio": torch.zeros(6, dtype=torch.bool)})
    torch.testing.assert_close(
        found, loss(pooled_text=batch["pooled_text"], pooled_video=batch["pooled_video"])
    )


def test_missing_modalities_are_masked_or_dropped():
    batch = batch_of()
    audio = torch.tensor([True, True, False, True, False, True])
    masked = GRAMLoss({"dim_norm": False})(**batch, present={"audio": audio})
    mask = torch.stack([torch.ones(6, dtype=torch.bool), audio], 1)
    logits = -gram_volume(batch["pooled_text"], [batch["pooled_video"], batch["pooled_audio"]], mask) / 0.07
    expected = [F.cross_entropy(x, torch.arange(6), label_smoothing=0.1) for x in (logits, logits.T)]
    torch.testing.assert_close(masked, torch.stack(expected).mean())
    dropped = GRAMLoss({"missing": "drop"})(**batch, present={"audio": audio})
    torch.testing.assert_close(dropped, GRAMLoss()(**{name: x[audio] for name, x in batch.items()}))


def test_tuples_of_different_size_are_compared_by_their_mean_sine():
    batch, audio = batch_of(), torch.tensor([True, True, False, True, False, True])
    mask = torch.stack([torch.ones(6, dtype=torch.bool), audio], 1)
    logits = (
        -gram_volume(
            batch["pooled_text"], [batch["pooled_video"], batch["pooled_audio"]], mask, dim_norm=True
        )
        / 0.07
    )
    expected = [F.cross_entropy(x, torch.arange(6), label_smoothing=0.1) for x in (logits, logits.T)]
    torch.testing.assert_close(GRAMLoss()(**batch, present={"audio": audio}), torch.stack(expected).mean())


def test_the_cosine_term_sees_signs():
    batch = batch_of(names=("text", "video"))
    loss, flipped = (
        GRAMLoss({"cosine_weight": 0.5}),
        {"pooled_text": batch["pooled_text"], "pooled_video": -batch["pooled_video"]},
    )
    torch.testing.assert_close(GRAMLoss()(**batch), GRAMLoss()(**flipped))
    loss(**batch)
    logits = batch["pooled_text"] @ batch["pooled_video"].T / 0.07
    expected = [F.cross_entropy(x, torch.arange(6), label_smoothing=0.1) for x in (logits, logits.T)]
    torch.testing.assert_close(loss.terms["cosine"], 0.5 * torch.stack(expected).mean().detach())
    assert loss(**batch) != loss(**flipped)


class Oracle:
    """A matcher that keeps what it was asked."""

    def __init__(self, n):
        self.logits = torch.zeros(n, n, 2, dtype=torch.float64, requires_grad=True)
        self.asked = []

    def __call__(self, text, item):
        self.asked.append((text, item))
        return self.logits[text, item]


def test_matching_asks_about_own_pairs_and_hard_negatives_on_either_side():
    matcher = Oracle(6)
    loss = GRAMLoss({"dam_weight": 1.0})
    loss(**batch_of(), matcher=matcher)
    (text, item), own = matcher.asked[0], torch.arange(6)
    assert torch.equal(text[:6], own) and torch.equal(item[:6], own)
    assert torch.equal(text[6:12], own) and (item[6:12] != own).all()
    assert torch.equal(item[12:], own) and (text[12:] != own).all()
    assert loss.terms["matching"].item() == pytest.approx(np.log(2))


def test_matching_draws_depend_on_seed_and_update_alone():
    def drawn(seed, update):
        matcher = Oracle(6)
        GRAMLoss({"dam_weight": 1.0, "seed": seed, "temperature": 10.0})(
            **batch_of(), matcher=matcher, num_updates=update
        )
        return torch.stack(matcher.asked[0]).flatten().tolist()

    assert drawn(0, 3) == drawn(0, 3)
    assert len({tuple(drawn(seed, update)) for seed in (0, 1) for update in (3, 4)}) > 2


@pytest.mark.parametrize("update", [None, 3])
def test_ranks_draw_hard_negatives_of_their_own(update, monkeypatch):
    def drawn(rank):
        monkeypatch.setattr(tuple_losses, "rank", lambda: rank)
        monkeypatch.setattr(tuple_losses, "world_size", lambda: 2)
        return GRAMLoss(dam_weight=0.1)._draw(torch.ones(40, 40), update)[0]

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(0), drawn(1))


def test_matching_leaves_missing_items_out():
    matcher, there = Oracle(4), torch.tensor([True, False, True, True])
    loss = GRAMLoss({"dam_weight": 1.0})(
        **batch_of(4), matcher=matcher, present=dict.fromkeys(("text", "video", "audio"), there)
    )
    loss.backward()
    touched = matcher.logits.grad.abs().sum(-1) > 0
    assert not touched[1].any() and not touched[:, 1].any()


def test_matching_grows_over_the_warm_up():
    loss, values = GRAMLoss({"dam_weight": 0.2, "dam_warmup": 4}), []
    for update in (0, 2, 4, 9):
        loss(**batch_of(), matcher=Oracle(6), num_updates=update)
        values.append(loss.terms["matching"].item())
    np.testing.assert_allclose(values, np.array([0, 0.1, 0.2, 0.2]) * np.log(2))


def test_matching_without_a_matcher_or_an_update_number_says_what_is_missing():
    with pytest.raises(TypeError, match="GRAMLoss reads matcher"):
        GRAMLoss({"dam_weight": 0.1})(**batch_of())
    with pytest.raises(ValueError, match="num_updates"):
        GRAMLoss({"dam_weight": 0.1, "dam_warmup": 5})(**batch_of(), matcher=Oracle(6))


def test_triangle_equals_the_definition():
    batch = batch_of()
    t, v, a = (batch[f"pooled_{name}"] for name in ("text", "video", "audio"))
    u, w = v[None] - t[:, None], a[None] - t[:, None]
    logits = -(u.square().sum(2) * w.square().sum(2) - (u * w).sum(2).square()) / 2 / 0.07
    expected = [F.cross_entropy(x, torch.arange(6), label_smoothing=0.1) for x in (logits, logits.T)]
    # Alphabetical order of modalities does not matter: the area is symmetric in them.
    torch.testing.assert_close(TriangleLoss()(**batch), torch.stack(expected).mean())


def test_triangle_needs_two_modalities():
    with pytest.raises(ValueError, match="two modalities"):
        TriangleLoss()(**batch_of(names=("text", "video")))


def test_pmrl_equals_the_definition():
    batch = batch_of()
    vectors = torch.stack(list(batch.values()), 1)
    u, s, _ = torch.linalg.svd(vectors.mT, full_matrices=False)
    leading = u[:, :, 0] * (u[:, :, 0] * vectors.sum(1)).sum(1, keepdim=True).sign()
    alignment = F.cross_entropy(s / 0.05, torch.zeros(6, dtype=torch.long))
    separation = F.cross_entropy(leading @ leading.T / 0.1, torch.arange(6))
    torch.testing.assert_close(PMRLLoss()(**batch), alignment + separation)


def test_symile_equals_the_definition():
    batch = batch_of()
    t, v, a = (batch[f"pooled_{name}"] for name in ("text", "video", "audio"))
    expected = []
    for query, first, second in ((t, v, a), (v, t, a), (a, t, v)):
        logits = torch.einsum("id,jd,jd->ij", query, first, second) / 0.07
        expected.append(F.cross_entropy(logits, torch.arange(6), label_smoothing=0.1))
    torch.testing.assert_close(SymileLoss()(**batch), torch.stack(expected).mean())


def test_pairwise_nce_equals_the_definition():
    batch = batch_of()
    expected = []
    for name in ("video", "audio"):
        logits = batch["pooled_text"] @ batch[f"pooled_{name}"].T / 0.07
        expected += [F.cross_entropy(x, torch.arange(6), label_smoothing=0.1) for x in (logits, logits.T)]
    torch.testing.assert_close(PairwiseNCE()(**batch), torch.stack(expected).mean())


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("case", ["duplicates", "zeros", "one item", "all missing"])
def test_values_and_gradients_stay_finite(cls, case):
    batch = batch_of(1 if case == "one item" else 5, dtype=torch.float32, same=case == "duplicates")
    if case == "zeros":
        batch = {name: torch.zeros_like(x).requires_grad_() for name, x in batch.items()}
    absent = torch.zeros(len(batch["pooled_text"]), dtype=torch.bool)
    present = {name: absent for name in ("text", "video", "audio")} if case == "all missing" else None
    loss = cls({"temperature": 0.01})(**batch, present=present)
    loss.backward()
    assert loss.isfinite() and all(x.grad is not None and x.grad.isfinite().all() for x in batch.values())


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_give_the_float32_loss_also_under_autocast(cls, dtype):
    batch = {name: (300 * x.detach()).to(dtype).requires_grad_() for name, x in batch_of(same=False).items()}
    expected = cls({"temperature": 0.01})(**{name: x.detach().float() for name, x in batch.items()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cls({"temperature": 0.01})(**batch)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert all(x.grad.isfinite().all() for x in batch.values())


@pytest.mark.parametrize("cls", ALL)
def test_simulated_ranks_equal_one_process(cls, monkeypatch):
    """Mean over ranks of value and gradient, also where one rank lacks more than the other."""
    audio, text = (
        torch.tensor([True, True, False, True, False, True]),
        torch.tensor([True, True, True, False, True, False]),
    )
    section = {"cosine_weight": 0.3} if cls is GRAMLoss else {}
    whole = batch_of()
    expected = cls(section)(**whole, present={"audio": audio, "text": text})
    expected.backward()
    parts = [
        {name: x.detach()[3 * r : 3 * r + 3].requires_grad_() for name, x in whole.items()} for r in range(2)
    ]
    ranks = SimulatedRanks(monkeypatch, 2, [gram_losses, tuple_losses])

    def step(rank):
        rows = slice(3 * rank, 3 * rank + 3)
        return cls(section)(**parts[rank], present={"audio": audio[rows], "text": text[rows]})

    mean = sum(ranks.run(step)) / 2
    mean.backward()
    torch.testing.assert_close(mean, expected)
    for name, x in whole.items():
        torch.testing.assert_close(torch.cat([part[name].grad for part in parts]), x.grad)


def test_modalities_that_are_not_there_are_named():
    with pytest.raises(TypeError, match="reads pooled_depth"):
        build_loss({"loss_cls": "GRAMLoss", "modalities": ["video", "depth"]})(**batch_of())
    with pytest.raises(ValueError, match="other than the anchor text, each once"):
        build_loss({"loss_cls": "GRAMLoss", "modalities": ["text"]})


def test_the_cosine_trains_both_sides_where_negatives_of_volumes_are_constants():
    batch = batch_of()
    sides = []
    for weight in (0.0, 1.0):
        leaves = {name: x.detach().clone().requires_grad_() for name, x in batch.items()}
        build_loss({"loss_cls": "GRAMLoss", "gather": "detached", "cosine_weight": weight})(
            **leaves
        ).backward()
        sides.append({name: x.grad for name, x in leaves.items()})
    assert all((sides[0][name] - sides[1][name]).norm() > 1e-3 for name in batch)


@pytest.mark.parametrize("cls", [cls for cls in ALL if cls is not GRAMLoss])
def test_a_loss_computed_whole_on_every_rank_refuses_constant_negatives(cls):
    with pytest.raises(ValueError, match="gather: expected one of full, local"):
        cls({"gather": "detached"})


@pytest.mark.parametrize("cls", ALL)
def test_any_modality_can_be_the_anchor_and_captions_can_be_absent(cls):
    batch = batch_of(names=("video", "audio", "depth"))
    expected = cls()(
        **{
            "pooled_text": batch["pooled_video"],
            "pooled_video": batch["pooled_audio"],
            "pooled_audio": batch["pooled_depth"],
        }
    )
    torch.testing.assert_close(cls({"anchor": "video"})(**batch), expected)


@pytest.mark.parametrize("cls", [GRAMLoss, TriangleLoss, PMRLLoss])
def test_hard_negatives_of_the_matching_loss_are_what_the_loss_calls_similar(cls):
    matcher, near = Oracle(6), batch_of()
    with torch.no_grad():  # item 4 is all but item 0
        for x in near.values():
            x[4] = F.normalize(x[0] + 1e-3 * x[4], dim=0)
    loss = cls({"dam_weight": 1.0, "temperature": 0.01})
    loss(**near, matcher=matcher)
    (text, item) = matcher.asked[0]
    assert item[6] == 4 and item[10] == 0 and text[12] == 4 and text[16] == 0
    assert loss.terms["matching"].item() == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    "section",
    [
        {"score": "area"},
        {"gather": "some"},
        {"direction": "up"},
        {"missing": "zero"},
        {"modalities": []},
        {"modalities": ["video"] * 2},
    ],
)
def test_values_that_a_key_does_not_know_are_refused_by_key(section):
    with pytest.raises(ValueError, match=f"{next(iter(section))}.*: expected"):
        GRAMLoss(section)
