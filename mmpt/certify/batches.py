"""Batches that every registered loss can read, in cases that are hard for some."""

from __future__ import annotations

from typing import Any

import torch

from mmpt.losses import Loss
from mmpt.registry import LOSSES

BUILT_IN = [name for name in LOSSES.names() if LOSSES.get(name).__module__.startswith("mmpt.")]
D, TOKENS, FRAMES = 6, 4, 3


class Maker:
    """Tensors of a batch of `n` items, clips of so many videos, in one of the cases."""

    def __init__(self, case: str, n: int, dtype: torch.dtype, videos: int = 1):
        self.case, self.n, self.dtype, self.videos = case, n, dtype, videos
        self.generator = torch.Generator().manual_seed(0)
        self.leaves: list[torch.Tensor] = []

    def floats(self, *shape: int) -> torch.Tensor:
        x = torch.ones(shape) if self.case == "duplicates" else torch.randn(shape, generator=self.generator)
        x = (1e4 * x if self.case == "extreme" else x).to(self.dtype).requires_grad_()
        self.leaves.append(x)
        return x

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=self.generator)

    def mask(self, *shape: int) -> torch.Tensor:
        return torch.full(shape, self.case != "masked")

    def pooled(self, *names: str, rows: int | None = None) -> dict[str, torch.Tensor]:
        return {f"pooled_{name}": self.floats(rows or self.n, D) for name in names}

    def clips(self) -> dict[str, Any]:
        n = self.n
        tokens = {"video_outputs": self.floats(n, FRAMES, D), "text_outputs": self.floats(n, TOKENS, D)}
        masks = {"video_mask_outputs": self.mask(n, FRAMES), "text_mask_outputs": self.mask(n, TOKENS)}
        # of "masked" all at once: no clip is free of the first, no video qualifies
        starts = 3 * (torch.arange(n) % (n // self.videos)) * (self.case != "masked")
        times = {
            f"{side}_{end}": starts + shift
            for side in ("video", "text")
            for end, shift in (("start", 0), ("end", 1))
        }
        return self.pooled("video", "text") | tokens | masks | times | {"clips_per_video": n // self.videos}

    def usual(self, loss: Loss) -> dict[str, Any]:
        """Clips with captions and times; whatever else the loss reads is one vector an item."""
        clips = self.clips()
        return clips | {name: self.floats(self.n, D) for name in loss.reads if name not in clips}

    def tuples(self) -> dict[str, Any]:
        present = (
            {"present": {name: self.mask(self.n) for name in ("text", "video", "audio")}}
            if self.case == "masked"
            else {}
        )
        return (
            self.pooled("text", "video", "audio")
            | present
            | {"matcher": lambda texts, tuples: self.floats(len(texts), 2)}
        )

    def conditions(self) -> dict[str, Any]:
        texts = self.pooled("text") | {"text_v": self.floats(self.n, D)}
        joint = {f"joint_{letters}": self.floats(self.n, D) for letters in ("v", "va")}
        present = {"present": {name: self.mask(self.n) for name in ("video", "audio")}}
        scores = {"matchers": lambda condition: lambda texts, items: self.floats(len(texts), 2)}
        return texts | joint | scores | (present if self.case == "masked" else {})

    def views(self) -> dict[str, Any]:
        return self.pooled("video", "text", rows=4 * self.n) | {"view_valid": self.mask(4 * self.n)}

    def crops(self) -> dict[str, Any]:
        kinds = ("sl1", "sl2", "ss2", "tl1", "tl2", "ts2")
        return self.pooled("video_1", "video_2", "audio") | {
            "crops": {kind: self.floats(2, self.n, D) for kind in kinds}
        }

    def labels(self) -> dict[str, Any]:
        targets = self.integers(5, self.n)
        return {
            "logits": self.floats(self.n, 5),
            "targets": torch.full_like(targets, -100) if self.case == "masked" else targets,
        }

    def soft_labels(self) -> dict[str, Any]:
        return {
            "logits": self.floats(self.n, 5),
            "targets": torch.eye(5)[self.integers(5, self.n)] * (self.case != "masked"),
        }

    def masked_tokens(self) -> dict[str, Any]:
        rows = 0 if self.case == "masked" else self.n
        label = torch.full((2, self.n + 1), -100)
        label[0, :rows] = self.integers(7, rows)
        logits = {name: self.floats(rows, 9) for name in ("video_logits", "text_logits", "logits")}
        return logits | {"text_label": label}

    def written(self) -> dict[str, Any]:
        label = torch.full((2, self.n + 1), -100)
        rows = 0 if self.case == "masked" else self.n
        label[0, :rows] = self.integers(7, rows)
        texts = {name: torch.ones_like(label) for name in ("masked_caps", "cmasks", "masked_answers")}
        texts |= {
            name: torch.ones_like(label) for name in ("answer_cmasks", "question_caps", "question_cmasks")
        }
        labels = {"caption_labels": label, "answer_labels": label}
        return texts | labels | {"word_logits": lambda *text: self.floats(rows, 9)}

    def steps(self) -> dict[str, Any]:
        n = self.n
        tensors = {"logits": self.floats(n, 4), "video_seq": self.floats(n, D)} | self.pooled("text", rows=4)
        targets = torch.eye(4)[torch.arange(n) % 4] * (self.case != "masked")
        return tensors | {
            "targets": targets,
            "sequence_targets": torch.arange(min(n, 4)),
            "vmasks": torch.ones(1, n, dtype=torch.bool),
        }

    def episode(self) -> dict[str, Any]:
        frames = {name: self.floats(self.n, 3, D) for name in ("support", "query")}
        way = torch.arange(self.n) % min(self.n, 2)
        return frames | {"support_labels": way, "query_labels": way}


NORTON = {"sinkhorn_iterations": 3, "mask_duplicate_clips": True}
PARTS = [{"loss_cls": "MMContraLoss"}, {"loss_cls": "MILNCELoss", "weight": 0.5}]
SPECIAL = {  # name -> keys of the loss for n items, what makes its batch
    **{name: (lambda n: {}, Maker.labels) for name in ("CrossEntropy", "DummyLoss")},
    **{
        name: (lambda n: {}, Maker.soft_labels)
        for name in ("ArgmaxCrossEntropy", "BCE", "MSE", "L1", "SmoothL1")
    },
    "DummyK400Loss": (lambda n: {}, lambda maker: {"logits": maker.floats(maker.n, 400)}),
    "NCE": (lambda n: {}, lambda maker: {"align_scores": maker.floats(2 * maker.n, 2)}),
    "MMContraLoss": (
        lambda n: NORTON | {"sequence_contrast": {"mask_same_video": True, "threshold": (n + 1) // 2}},
        Maker.clips,
    ),
    "SequenceContrastLoss": (lambda n: {"threshold": (n + 1) // 2}, Maker.clips),
    "TempCLRLoss": (lambda n: {"sampling_threshold": 3, "total_sample_size": 4}, Maker.clips),
    "TempCLRLocalisationLoss": (lambda n: {"total_sample_size": 4}, Maker.steps),
    "FewShotAlignmentLoss": (lambda n: {"way": min(n, 2)}, Maker.episode),
    **{name: (lambda n: {}, Maker.masked_tokens) for name in ("MFMMLM", "MTM", "NLGLoss")},
    **{
        name: (lambda n: {"conditions": ["tv", "ta"]}, Maker.written)
        for name in ("CaptionLoss", "AnswerLoss")
    },
    "GRAMLoss": (lambda n: {"dam_weight": 0.1, "cosine_weight": 0.5}, Maker.tuples),
    **{name: (lambda n: {"dam_weight": 0.1}, Maker.tuples) for name in ("TriangleLoss", "PMRLLoss")},
    **{name: (lambda n: {}, Maker.tuples) for name in ("SymileLoss", "PairwiseNCE")},
    "VASTLoss": (lambda n: {"conditions": ["tv", "tva"], "dam_weight": 0.1}, Maker.conditions),
    "GDTLoss": (lambda n: {"hypothesis": 8}, Maker.views),
    "STiCALoss": (lambda n: {}, Maker.crops),
    "SumLoss": (lambda n: {"losses": PARTS}, Maker.clips),
}
