"""No loss makes the host wait for the device.

See `tests.device_waits`; models, gathering and the task are looked at beside their other tests.
"""

import pytest
import torch

from mmpt.certify.batches import BUILT_IN
from mmpt.losses import build_loss
from tests.device_waits import NoCopies, NoLiterals, on_device

N, D, TOKENS, FRAMES = 8, 6, 4, 3


def floats(*shape):
    return torch.empty(shape, device="meta", requires_grad=True)


def integers(*shape):
    return torch.zeros(*shape, dtype=torch.long, device="meta")


def truths(*shape):
    return torch.ones(*shape, dtype=torch.bool, device="meta")


def pooled(*extra):
    return {f"pooled_{name}": floats(N, D) for name in ("video", "text", *extra)}


def tokens():
    return {
        "video_outputs": floats(N, FRAMES, D),
        "text_outputs": floats(N, TOKENS, D),
        "video_mask_outputs": truths(N, FRAMES),
        "text_mask_outputs": truths(N, TOKENS),
    }


def times():
    return {name: integers(N) for name in ("text_start", "text_end", "video_start", "video_end")} | {
        "clips_per_video": 4
    }


def masked():
    return {"video_logits": floats(5, 7), "text_logits": floats(3, 9), "text_label": integers(2, 6)}


def written():
    names = ("masked_caps", "cmasks", "caption_labels", "masked_answers", "answer_cmasks", "answer_labels")
    names += ("question_caps", "question_cmasks")
    return {name: integers(2, 6) for name in names} | {"word_logits": lambda *text: floats(3, 9)}


def crops():
    return {kind: floats(2, N, D) for kind in ("sl1", "sl2", "ss2", "tl1", "tl2", "ts2")}


def views():
    return {f"pooled_{name}": floats(2 * N, D) for name in ("video", "text")} | {"view_valid": truths(2 * N)}


NORTON = {
    "sinkhorn_iterations": 3,
    "sequence_contrast": {"threshold": 4, "mask_same_video": True},
    "mask_duplicate_clips": True,
}
CASES = [
    *[
        (name, {}, lambda: {"logits": floats(N, 5), "targets": integers(N)})
        for name in ("CrossEntropy", "DummyLoss")
    ],
    *[
        (name, {}, lambda: {"logits": floats(N, 5), "targets": truths(N, 5)})
        for name in ("BCE", "MSE", "L1", "SmoothL1")
    ],
    ("ArgmaxCrossEntropy", {}, lambda: {"logits": floats(N, 5), "targets": floats(N, 5).detach()}),
    ("DummyK400Loss", {}, lambda: {"logits": floats(N, 400)}),
    ("NCE", {}, lambda: {"align_scores": floats(N, N)}),
    ("MMContraLoss", {}, pooled),
    ("MMContraLoss", NORTON, lambda: pooled() | tokens() | times()),
    (
        "MMContraLoss",
        NORTON | {"alpha_lse": 0.01, "compat": True},
        lambda: pooled() | tokens() | times() | {"logit_scale": floats()},
    ),
    ("SequenceContrastLoss", {"threshold": 4}, lambda: pooled() | tokens()),
    ("SumLoss", {"losses": [{"loss_cls": "MMContraLoss"}, {"loss_cls": "MILNCELoss"}]}, pooled),
    *[
        (
            "TempCLRLoss",
            {"metric": metric, "total_sample_size": 3, "sampling_threshold": 3},
            lambda: pooled() | times(),
        )
        for metric in ("dtw", "otam")
    ],
    *[(name, {}, masked) for name in ("MFMMLM", "MTM")],
    *[(name, {"conditions": ["tv"]}, written) for name in ("CaptionLoss", "AnswerLoss")],
    ("NLGLoss", {}, lambda: {"logits": floats(3, 9), "text_label": integers(2, 6)}),
    *[(name, {}, pooled) for name in ("GRAMLoss", "PMRLLoss", "PairwiseNCE")],
    *[
        (name, {"modalities": ["video", "audio"]}, lambda: pooled("audio"))
        for name in ("GRAMLoss", "TriangleLoss", "SymileLoss")
    ],
    (
        "VASTLoss",
        {"conditions": ["tv", "tva"]},
        lambda: {name: floats(N, D) for name in ("pooled_text", "text_v", "joint_v", "joint_va")},
    ),
    ("GDTLoss", {"hypothesis": 9}, views),
    (
        "STiCALoss",
        {},
        lambda: {
            "crops": crops(),
            **{f"pooled_{name}": floats(N, D) for name in ("video_1", "video_2", "audio")},
        },
    ),
    (
        "FewShotAlignmentLoss",
        {"way": 2},
        lambda: {
            "support": floats(4, 3, D),
            "support_labels": integers(4),
            "query": floats(2, 3, D),
            "query_labels": integers(2),
        },
    ),
]
WAITS = {"TempCLRLocalisationLoss"}  # its shapes depend on the labels, as its description says
CASES += [(name, {}, None) for name in BUILT_IN if name not in WAITS | {case[0] for case in CASES}]


def usual(loss):
    """Clips with captions and times; whatever else the loss reads is one vector an item."""
    clips = pooled() | tokens() | times()
    return clips | {name: floats(N, D) for name in loss.reads if name not in clips}


@pytest.mark.parametrize(
    ("name", "section", "make_batch"), CASES, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(CASES)]
)
def test_forward_and_backward_never_wait_for_the_device(name, section, make_batch):
    loss = build_loss({"loss_cls": name, **section})
    batch = make_batch() if make_batch else usual(loss)
    with NoCopies(), NoLiterals():
        value = loss(**batch)
        value.backward()
    assert on_device(value) and value.shape == ()
