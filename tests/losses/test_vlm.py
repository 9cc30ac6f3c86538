import pytest
import torch

from mmpt.losses import MFMMLM, MTM, NLGLoss
from tests.conftest import load_golden


def golden_value(loss, prefix):
    golden = load_golden("norton_other_losses.npz")
    logits = {f"{side}_logits": torch.tensor(golden[f"{prefix}_{side}_logits"]) for side in ("video", "text")}
    return loss(**logits, text_label=torch.tensor(golden["text_label"])).item(), float(
        golden[f"{prefix}_loss"]
    )


@pytest.mark.parametrize(("loss", "prefix"), [(MTM({"compat": True}), "mtm"), (MFMMLM(), "mfmmlm")])
def test_golden_norton_other_losses_of_masked_modelling(loss, prefix):
    got, want = golden_value(loss, prefix)
    assert got == pytest.approx(want, rel=1e-10)


def test_golden_norton_other_losses_nlg():
    golden = load_golden("norton_other_losses.npz")
    got = NLGLoss()(logits=torch.tensor(golden["nlg_logits"]), text_label=torch.tensor(golden["text_label"]))
    assert got.item() == pytest.approx(float(golden["nlg_loss"]), rel=1e-10)


def test_without_compat_text_rows_have_no_invented_candidate():
    video, text = torch.randn(2, 5, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    label = torch.tensor([[1, -100, 0], [-100, 3, -100]])
    rows = [
        row.logsumexp(0) - row[target] for row, target in zip([*video, *text], [0, 0, 1, 0, 3], strict=True)
    ]
    torch.testing.assert_close(
        MTM()(video_logits=video, text_logits=text, text_label=label), torch.stack(rows).mean()
    )


@pytest.mark.parametrize("loss", [MTM(), MTM({"compat": True}), MFMMLM()])
def test_nothing_masked_costs_nothing(loss):
    video, text = torch.zeros(0, 6, requires_grad=True), torch.zeros(0, 5, requires_grad=True)
    value = loss(video_logits=video, text_logits=text, text_label=torch.full((2, 4), -100))
    value.backward()
    assert value.item() == 0


def test_one_modality_without_masks_leaves_the_other():
    text = torch.randn(1, 5)
    value = MFMMLM()(video_logits=torch.zeros(0, 6), text_logits=text, text_label=torch.tensor([[-100, 2]]))
    torch.testing.assert_close(value, text[0].logsumexp(0) - text[0, 2])
