"""How a batch passes the towers: recomputed to save memory, in parts, packed, sorted by length, compiled.

Letters: B clips, F video tokens (seconds), T caption columns, L positions of one tower, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmpt.models.bert import BertModel
from mmpt.models.mmfusion import Encoded, MMFusion
from mmpt.utils.columns import LENGTHS, known_lengths


def checkpoint_activations(model: nn.Module) -> None:
    """Every transformer layer of every tower that has a switch `checkpointing` keeps only its input; dropout
    draws are replayed, so gradients stay the same.

    Raises:
        ValueError: no tower has one.
    """
    towers = [module for module in model.modules() if hasattr(module, "checkpointing")]
    _check_found(towers, model, "model.activation_checkpointing", "whose activations it could compute again")
    for tower in towers:
        tower.checkpointing = True


def compile_towers(model: nn.Module) -> None:
    """Every BERT of every tower is compiled at its first batch; in place, so that the names of parameters
    stay.

    Raises:
        ValueError: there is none.
    """
    towers = [module for module in model.modules() if isinstance(module, BertModel)]
    _check_found(towers, model, "model.compile", "of BERT, which alone it compiles")
    for tower in towers:
        tower.compile()


def _check_found(towers: list[nn.Module], model: nn.Module, key: str, what: str) -> None:
    """Refuse a key that would have no effect."""
    if not towers:
        raise ValueError(f"{key}: {type(model).__name__} has no tower {what}. Leave the key out.")


def pack_towers(model: MMFusion) -> None:
    """Every transformer of every tower computes the positions that are read, and none that only fill up the
    batch.

    Pooled vectors and valid positions are those of padded batches up to rounding; positions outside the masks
    are 0. Where dropout is on, its draws fall differently. Towers that are not BERT stay as they are.

    Args:
        model: its towers read alone (`check_towers_read_alone`).
    """
    model.packed = True


def check_towers_read_alone(model: nn.Module, key: str) -> None:
    """Refuse a key for models that read both modalities together.

    Args:
        key: `model.packed` or `model.length_buckets`.

    Raises:
        ValueError: names the model.
    """
    if type(model).forward is not MMFusion.forward:
        raise ValueError(
            f"{key} goes by the lengths of the clips of each tower, and {type(model).__name__} has no towers "
            "that read alone. Leave the key out, or use MMFusionSeparate or MMFusionShare."
        )


def forward_by_length(
    model: MMFusion, buckets: int, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch: Any
) -> dict[str, Tensor]:
    """The model's outputs of a batch, each tower reading clips of like length together, padded to the longest
    of them only.

    Pooled vectors and valid positions are those of `model(...)` up to rounding; positions outside the masks
    are 0. Where dropout is on, its draws fall differently.

    Args:
        model: its towers read alone (`check_towers_read_alone`).
        buckets: groups of clips, of equal size; the gain grows with them until the groups are too small to
            fill the machine.
        caps, cmasks, vfeats, vmasks: as for the model's forward.
        batch: `lengths` of the data set, where the masks are not the host's own; others are ignored.
    """
    seconds, columns = (known_lengths(k, m, batch) for k, m in (("vmasks", vmasks), ("cmasks", cmasks)))
    candidates = len(caps) // len(vfeats)
    heads, head_masks = (
        caps[::candidates, :2],
        cmasks[::candidates, :2],
    )  # [CLS] [SEP]: what the video tower reads of a caption

    def video(rows: Tensor, end: int) -> Encoded:
        return model.forward_video(vfeats[rows, :end], vmasks[rows, :end], heads[rows], head_masks[rows])

    def text(rows: Tensor, end: int) -> Encoded:
        return model.forward_text(caps[rows, :end], cmasks[rows, :end])

    return model.outputs(
        _by_length(video, vmasks, seconds, buckets, last=1),
        _by_length(text, cmasks, columns, buckets, last=0),
    )


def _by_length(
    encode: Callable[[Tensor, int], Encoded], mask: Tensor, filled: np.ndarray, buckets: int, last: int
) -> Encoded:
    """One modality, bucket by bucket.

    Args:
        encode: (rows of a bucket, columns of the mask up to the last one in use) -> their outputs.
        mask: (B, columns) what each clip has.
        filled: (B,) how many columns that is.
        buckets: how many.
        last: columns of the outputs that stand behind the padding: 1 for the [SEP] of a video.
    """
    lengths = torch.from_numpy(filled).clamp(min=1)  # of the host
    order = lengths.argsort(stable=True)
    ends = [int(part[-1]) for part in lengths[order].chunk(buckets)]
    order, back = (x.to(mask.device, non_blocking=True) for x in (order, order.argsort()))
    parts = [encode(rows, end) for rows, end in zip(order.chunk(buckets), ends, strict=True)]
    missing = [mask.shape[1] - end for end in ends]

    def joined(name: str) -> Tensor:
        return torch.cat(
            [_widen(getattr(part, name), n, last) for part, n in zip(parts, missing, strict=True)]
        )[back]

    return Encoded(torch.cat([part.pooled for part in parts])[back], joined("outputs"), joined("mask"))


def _widen(tensor: Tensor, n: int, last: int) -> Tensor:
    """(b, L, ...) -> (b, L + n, ...): n columns of zeros before the `last` ones."""
    length = tensor.shape[1] - last
    return torch.cat(
        [tensor[:, :length], tensor.new_zeros(len(tensor), n, *tensor.shape[2:]), tensor[:, length:]], dim=1
    )


def forward_in_parts(
    model: Callable[..., dict[str, Tensor]],
    size: int,
    batch: dict[str, Any],
    before: Callable[[int], None] = lambda start: None,
) -> dict[str, Tensor]:
    """The outputs of the whole batch, holding the activations of `size` rows at a time.

    The loss then sees all rows, so a contrastive loss keeps all its negatives and the gradient is that of the
    undivided batch: unlike accumulating gradients of small batches.

    Args:
        model: called with the batch's entries by name.
        size: rows per part.
        batch: tensors with B rows and `lengths` of B clips are divided, anything else is handed to every
            part.
        before: called with the first row of each part before it is read.

    Returns:
        The model's outputs, those with one row per clip joined.

    Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache),
        2021, arXiv 2101.06983.
    """
    rows = batch["caps"].shape[0]
    divided = [
        name
        for name, value in batch.items()
        if isinstance(value, Tensor) and value.dim() and value.shape[0] == rows
    ]
    whole = {name: value for name, value in batch.items() if name not in (*divided, LENGTHS)}
    lengths = batch.get(LENGTHS, {})

    def part(start: int, *tensors: Tensor) -> dict[str, Tensor]:
        mine = {k: n[start : start + size] if len(n) == rows else n for k, n in lengths.items()}
        return model(**dict(zip(divided, tensors, strict=True)), **whole, **({LENGTHS: mine} if mine else {}))

    parts = []
    for start in range(0, rows, size):
        tensors = [batch[name][start : start + size] for name in divided]
        before(start)
        parts.append(
            checkpoint(part, start, *tensors, use_reentrant=False)
            if torch.is_grad_enabled()
            else part(start, *tensors)
        )
    first = parts[0]
    return {name: torch.cat([p[name] for p in parts]) if first[name].dim() else first[name] for name in first}
