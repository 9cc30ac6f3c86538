"""Losses of other libraries, where they are installed, as subjects of `certify`: `open_clip.ClipLoss`.

Each is built the way that its library offers for several processes; a scale or temperature is its default, or
10 where the caller has to give one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmpt.certify.subjects import Subject, pairs_subject
from mmpt.ops.distributed import rank, world_size
from mmpt.utils.optional import optional_import

Pairs = Callable[[Tensor, Tensor], Tensor]
SCALE = 10.0


def _open_clip(name: str, bias: tuple[float, ...] = (), **options: bool) -> Pairs:
    loss = getattr(optional_import("open_clip.loss", extra="certify"), name)(
        rank=rank(), world_size=world_size(), **options
    )
    return lambda video, text: loss(normalize(video, dim=-1), normalize(text, dim=-1), SCALE, *bias)


def _lightly() -> Pairs:
    return optional_import("lightly.loss", extra="certify").NTXentLoss(gather_distributed=world_size() > 1)


def _sentence_transformers() -> Pairs:
    module = optional_import("sentence_transformers.losses", extra="certify")
    loss = module.MultipleNegativesRankingLoss(torch.nn.Identity(), gather_across_devices=world_size() > 1)
    return lambda video, text: loss.compute_loss_from_embeddings([text, video], None)


def _metric_learning() -> Pairs:
    loss = optional_import("pytorch_metric_learning.losses", extra="certify").NTXentLoss()
    if world_size() > 1:
        distributed = optional_import("pytorch_metric_learning.utils.distributed", extra="certify")
        loss = distributed.DistributedLossWrapper(loss)

    def pairs(video: Tensor, text: Tensor) -> Tensor:
        items = torch.arange(len(video)) + rank() * len(video)
        return loss(torch.cat([video, text]), items.repeat(2))

    return pairs


FOREIGN: dict[str, Callable[[], Pairs]] = {
    "open_clip.ClipLoss": lambda: _open_clip("ClipLoss"),
    "open_clip.ClipLoss(local_loss, gather_with_grad)": (
        lambda: _open_clip("ClipLoss", local_loss=True, gather_with_grad=True)
    ),
    "open_clip.SigLipLoss": lambda: _open_clip("SigLipLoss", (-SCALE,)),
    "lightly.NTXentLoss": _lightly,
    "sentence_transformers.MultipleNegativesRankingLoss": _sentence_transformers,
    "pytorch_metric_learning.NTXentLoss": _metric_learning,
}


def foreign_subjects(library: str) -> list[Subject]:
    """Losses of a library ("open_clip"), or the one with that name.

    Raises:
        KeyError: none is known here.
        ImportError: the library is not installed.
    """
    names = [name for name in FOREIGN if library in (name, name.partition(".")[0])]
    if not names:
        raise KeyError(f"no adapter for {library!r}; there are {', '.join(FOREIGN)}.")
    for name in names:
        FOREIGN[name]()  # an absent library is an error here, not a finding
    return [pairs_subject(name, FOREIGN[name], joins=True) for name in names]
