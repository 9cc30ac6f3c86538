from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpt.ops.gdt import GDTHypothesis, contrast, multiplicity, require_visible_reversal, sample_negatives
from tests.conftest import golden_cases, load_golden

NAMES = [
    "cross_modal_baseline",
    "v_reversal",
    "i_reversal",
    "v_shift",
    "i_shift",
    "v_reversal_v_shift",
    "i_reversal_v_shift",
    "v_reversal_i_shift",
    "i_reversal_i_shift",
]
SUFFIXES = {"rank": "", "released": "_asis", "global": "_global"}


@pytest.mark.parametrize("number", range(1, 10))
@pytest.mark.parametrize("scope", SUFFIXES)
@pytest.mark.parametrize("path", golden_cases("gdt_masks*.npz"))
def test_golden_gdt_masks(path, number, scope):
    golden = load_golden(path)
    hypothesis = GDTHypothesis.parse(number)
    masks = hypothesis.masks(int(golden["world_size"]), int(golden["batch_per_rank"]), scope)
    np.testing.assert_array_equal(
        torch.stack([mask["mult"] for mask in masks]), golden[f"h{number}.mult{SUFFIXES[scope]}"]
    )
    np.testing.assert_array_equal(torch.stack([mask["pos"] for mask in masks]), golden[f"h{number}.pos"])
    for key in ("query_modality", "query_view"):
        assert [mask[key] for mask in masks] == golden[f"h{number}.{key}"].tolist()
    terms = [term.name for term in hypothesis.terms]
    assert terms == golden[f"h{number}.term_names"].tolist()
    assert [terms.index(mask["term"]) for mask in masks] == golden[f"h{number}.term_index"].tolist()


@pytest.mark.parametrize("number, name", list(enumerate(NAMES, start=1)))
def test_numbers_and_names_mean_the_same_hypothesis(number, name):
    assert GDTHypothesis.parse(number) == GDTHypothesis.parse(str(number)) == GDTHypothesis.parse(name)
    assert GDTHypothesis.parse(number).name == name


def test_other_spellings_are_understood_and_unknown_ones_list_all_names():
    assert GDTHypothesis.parse("base").number == 1
    assert GDTHypothesis.parse("d_reversal_i_shift").number == 8
    for wrong in (0, 10, "reversal", None):
        with pytest.raises(ValueError, match="v_reversal_v_shift, i_reversal_v_shift"):
            GDTHypothesis.parse(wrong)


@pytest.mark.parametrize("number", range(1, 10))
def test_every_denominator_holds_its_positive_and_weights_sum_to_one(number):
    hypothesis = GDTHypothesis.parse(number)
    for scope in SUFFIXES:
        for mask in hypothesis.masks(2, 3, scope):
            assert (mask["mult"].gather(1, mask["pos"][:, None]) == 1).all()
        assert sum(call.weight for call in hypothesis.calls(scope)) == pytest.approx(1)
    assert sum(call.weight for call in hypothesis.joint_calls()) == pytest.approx(1)


def test_one_rank_counts_alike_as_executed_and_as_intended():
    for number in range(1, 10):
        for intended, executed in zip(
            *(GDTHypothesis.parse(number).masks(1, 3, scope) for scope in ("rank", "released")), strict=True
        ):
            assert torch.equal(intended["mult"], executed["mult"])


@pytest.mark.parametrize(
    "number, positives",
    [(1, {0: [0]}), (6, {3: [3]}), (7, {0: [0, 1]}), (8, {1: [1, 3]}), (9, {2: [0, 1, 2, 3]})],
)
def test_joint_positives_agree_in_every_distinctive_factor(number, positives):
    calls = GDTHypothesis.parse(number).joint_calls()
    for view, expected in positives.items():
        assert [
            call.positive_view for call in calls if call.query_view == view and call.query_modality == 0
        ] == expected


def test_joint_denominators_can_leave_other_positives_out():
    call = next(
        c
        for c in GDTHypothesis.parse(9).joint_calls(exclude_other_positives=True)
        if c.query_view == 0 and c.positive_view == 1
    )
    mult = multiplicity(call, 0, 1, 3)[:, :, 0]
    own = torch.eye(3, dtype=torch.bool)
    assert (mult[:, 1] == 1).all()
    assert all((mult[:, v][own] == 0).all() and (mult[:, v][~own] == 1).all() for v in (0, 2, 3))


def test_a_call_is_the_mean_of_its_rows():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    mult = torch.tensor([[1, 2, 0, 1, 1, 3]] * 4)
    positive, usable = torch.tensor([0, 0, 3, 4]), torch.tensor([True, True, False, True])
    expected = []
    for i in (0, 1, 3):
        total = sum(int(m) * torch.exp(s) for m, s in zip(mult[i], logits[i], strict=True))
        expected.append(total.log() - logits[i, positive[i]])
    found = contrast(*(x[None] for x in (logits, mult, positive, usable)))
    torch.testing.assert_close(found.loss[0], torch.stack(expected).mean())
    assert found.usable and 0 <= found.top1 <= 1


def test_a_positive_that_ties_with_a_negative_is_not_the_best():
    logits = torch.tensor([[[2.0, 2.0, 0.0], [3.0, 2.0, 0.0]]])
    result = contrast(logits, torch.ones(1, 2, 3), torch.tensor([[0, 0]]), torch.tensor([[True, True]]))
    assert result.top1.item() == 0.5


def test_a_call_without_usable_rows_is_zero_with_zero_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    nothing = torch.zeros(1, 3, dtype=torch.long)
    result = contrast(logits[None], torch.zeros(1, 3, 4, dtype=torch.long), nothing, nothing.bool())
    result.loss.sum().backward()
    assert result.loss == 0 and not result.usable and (logits.grad == 0).all()


def test_drawn_negatives_are_distinct_keep_the_positive_and_repeat_with_the_seed():
    mult = torch.ones(1, 3, 9, dtype=torch.long)
    mult[..., 8] = 0
    positive = torch.tensor([[0, 1, 2]])
    drawn = [sample_negatives(mult, positive, 4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert (
        (drawn[0].sum(-1) == 5).all()
        and (drawn[0].gather(-1, positive[..., None]) == 1).all()
        and (drawn[0][..., 8] == 0).all()
    )
    assert torch.equal(sample_negatives(mult, positive, 100, torch.Generator().manual_seed(0)), mult)


@pytest.mark.parametrize(
    "number, refused", [(1, False), (2, True), (3, False), (4, False), (6, True), (8, True), (9, False)]
)
def test_a_distinctive_reversal_that_the_encoder_cannot_see_is_refused(number, refused):
    for arguments in (("none", True), ("token", False), ("sentence", True, 1)):
        if refused:
            with pytest.raises(ValueError, match="treats time reversal as distinctive"):
                require_visible_reversal(GDTHypothesis.parse(number), *arguments)
        else:
            require_visible_reversal(GDTHypothesis.parse(number), *arguments)
    require_visible_reversal(GDTHypothesis.parse(number), "token", True)


def test_the_description_names_views_and_terms():
    text = GDTHypothesis.parse(8).describe()
    assert "hypothesis 8: v_reversal_i_shift (views orig, rev, shift, shiftrev)" in text
    assert "0.2 x base_shift" in text and "inv(rev, shiftrev)" in text
