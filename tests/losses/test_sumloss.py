import pytest
import torch

from mmpt.losses import SumLoss, T2VContraLoss, V2TContraLoss, build_loss
from tests.losses.norton_batches import random_batch


def section(*parts):
    return {"loss_cls": "SumLoss", "losses": list(parts)}


def test_sum_is_weighted_and_terms_are_logged_by_name():
    batch = random_batch(8)
    loss = build_loss(
        section({"loss_cls": "T2VContraLoss", "weight": 2, "name": "captions"}, {"loss_cls": "V2TContraLoss"})
    )
    t2v, v2t = T2VContraLoss()(**batch), V2TContraLoss()(**batch)
    torch.testing.assert_close(loss(**batch), 2 * t2v + v2t)
    assert loss.terms["captions"] == t2v and loss.terms["V2TContraLoss"] == v2t
    assert loss.terms["captions/text_to_video"] == t2v


def test_sum_reads_and_checks_what_its_parts_do():
    loss = build_loss(
        section({"loss_cls": "T2VContraLoss"}, {"loss_cls": "SequenceContrastLoss", "threshold": 8})
    )
    assert set(loss.reads) == {
        "pooled_video",
        "pooled_text",
        "video_outputs",
        "text_outputs",
        "video_mask_outputs",
        "text_mask_outputs",
    }
    with pytest.raises(ValueError, match="clip_per_video=15"):
        loss.check(clips_per_video=15)


def test_keys_of_the_parts_are_checked():
    with pytest.raises(ValueError, match="Did you mean .*threshold"):
        SumLoss(section({"loss_cls": "SequenceContrastLoss", "treshold": 8}))


def test_a_name_may_be_any_word():
    loss = build_loss(
        section(
            {"loss_cls": "T2VContraLoss", "name": "v1.clips"},
            {"loss_cls": "V2TContraLoss", "name": "items", "weight": "1e-3"},
        )
    )
    loss(**random_batch(4))
    assert {"v1.clips", "items", "items/video_to_text"} < set(loss.terms) and loss.weights == {
        "v1.clips": 1,
        "items": 0.001,
    }


@pytest.mark.parametrize("weight", ["much", None, True])
def test_a_weight_that_is_no_number_is_refused_by_its_name(weight):
    with pytest.raises(ValueError, match=r"loss.losses \(order\).weight: expected a number"):
        SumLoss(section({"loss_cls": "NCE", "name": "order", "weight": weight}))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "empty"),
        (({"loss_cls": "NCE"}, {"loss_cls": "NCE"}), "two parts are called 'NCE'"),
        (("NCE",), "expected a section"),
    ],
)
def test_lists_that_cannot_be_summed_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        SumLoss(section(*parts))
