"""Losses that gather, on two real gloo processes, equal one process on the joined batch."""

from __future__ import annotations

import pytest
import torch

from mmpt.losses import build_loss
from tests.ops.vectors import unit
from tests.two_processes import WORLD, run_on_two_ranks

N = 3  # items on a rank; the clips of one video, a sequence
JOINED = {"global_negatives": True}
PARAGRAPHS = {"fusion_weight": None, "sequence_contrast": {"threshold": N, "mask_same_video": True}}
SECTIONS = {
    "gram": {"loss_cls": "GRAMLoss", "cosine_weight": 0.5},
    "gram detached": {"loss_cls": "GRAMLoss", "gather": "detached", "cosine_weight": 0.5},
    "triangle": {"loss_cls": "TriangleLoss"},
    "pmrl": {"loss_cls": "PMRLLoss"},
    "symile": {"loss_cls": "SymileLoss"},
    "pairwise": {"loss_cls": "PairwiseNCE"},
    "gdt": {"loss_cls": "GDTLoss", "hypothesis": 8},
    "gdt key gradients": {"loss_cls": "GDTLoss", "hypothesis": 3, "key_grad": True},
    "stica": {"loss_cls": "STiCALoss", "key_grad": True},
    "captions": {"loss_cls": "T2VContraLoss", **JOINED},
    "clips": {"loss_cls": "V2TContraLoss", **JOINED},
    "norton without repeats": {
        "loss_cls": "MMContraLoss",
        "sinkhorn_iterations": 5,
        "mask_duplicate_clips": True,
        **PARAGRAPHS,
        **JOINED,
    },
    "paragraphs": {"loss_cls": "SequenceContrastLoss", "threshold": N, "fusion_weight": None, **JOINED},
    "tempclr": {
        "loss_cls": "TempCLRLoss",
        "sampling_threshold": N,
        "total_sample_size": 6,
        **JOINED,
    },  # all orders: none are drawn
    "sum": {
        "loss_cls": "SumLoss",
        "losses": [
            {"loss_cls": "MILNCELoss", **JOINED},
            {"loss_cls": "MMContraLoss", "weight": 0.5, **JOINED},
        ],
    },
}
CLIPS = ("T2VContraLoss", "V2TContraLoss", "MMContraLoss", "SequenceContrastLoss", "TempCLRLoss", "SumLoss")


def items(section):
    """Tensors with one item a row: (items, ..., D)."""
    if section["loss_cls"] == "GDTLoss":
        views = 4 if section["hypothesis"] == 8 else 2
        return {
            name: unit(WORLD * N, views, 6, seed=m) for m, name in enumerate(("pooled_video", "pooled_text"))
        }
    if section["loss_cls"] == "STiCALoss":
        crops = {kind: unit(WORLD * N, 2, 6, seed=m) for m, kind in enumerate(("sl1", "sl2", "ss2"))}
        return crops | {
            name: unit(WORLD * N, 6, seed=9 + m)
            for m, name in enumerate(("pooled_video_1", "pooled_video_2", "pooled_audio"))
        }
    vectors = {
        name: unit(WORLD * N, 6, seed=m)
        for m, name in enumerate(("pooled_text", "pooled_video", "pooled_audio"))
    }
    if section["loss_cls"] in CLIPS:
        starts = torch.tensor(
            [0, 3, 6, 0, 0, 6]
        )  # the first video has three disjoint clips, the second one of them twice
        vectors |= {
            f"{side}_{end}": starts + shift
            for side in ("video", "text")
            for end, shift in (("start", 0), ("end", 2))
        }
    return vectors


def evaluate(section, tensors):
    """Loss and gradient of each tensor."""
    leaves = {name: x.clone().requires_grad_() for name, x in tensors.items() if x.is_floating_point()}
    if section["loss_cls"] == "GDTLoss":
        batch = {name: x.transpose(0, 1).flatten(0, 1) for name, x in leaves.items()}  # view-major
    elif section["loss_cls"] == "STiCALoss":
        batch = {name: x for name, x in leaves.items() if x.dim() == 2}
        batch["crops"] = {name: x.transpose(0, 1) for name, x in leaves.items() if x.dim() == 3}
    else:
        batch = tensors | leaves | {"clips_per_video": N}
    loss = build_loss(section)(**batch)
    loss.backward()
    return loss.detach(), {
        name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in leaves.items()
    }


def _evaluate_all(rank, folder):
    results = {}
    for name, section in SECTIONS.items():
        results[name] = evaluate(
            section, {key: x[rank * N : (rank + 1) * N] for key, x in items(section).items()}
        )
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_on_two_ranks(_evaluate_all, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", SECTIONS)
def test_two_ranks_equal_one_process(name, two_ranks):
    loss, gradients = evaluate(SECTIONS[name], items(SECTIONS[name]))
    torch.testing.assert_close(sum(result[name][0] for result in two_ranks) / WORLD, loss)
    for key, gradient in gradients.items():  # data-parallel training averages over ranks
        torch.testing.assert_close(
            torch.cat([result[name][1][key] for result in two_ranks]) / WORLD, gradient
        )
