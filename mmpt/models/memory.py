"""Training large batches in little memory: activations are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import BertModel


def checkpoint_activations(model: nn.Module) -> None:
    """Every transformer layer of every tower keeps only its input; dropout draws are replayed, so gradients stay the same."""
    for module in model.modules():
        if isinstance(module, BertModel):
            module.activation_checkpointing_enable({"use_reentrant": False})


def forward_in_parts(model: nn.Module, size: int, batch: dict[str, Any]) -> dict[str, Tensor]:
    """The outputs of the whole batch, holding the activations of `size` rows at a time.

    The loss then sees all rows, so a contrastive loss keeps all its negatives and the gradient is that of the undivided batch: unlike
    accumulating gradients of small batches.

    Args:
        model: called with the batch's entries by name.
        size: rows per part.
        batch: tensors with B rows are divided, anything else is handed to every part.

    Returns:
        The model's outputs, those with one row per clip joined.

    Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache), 2021, arXiv 2101.06983.
    """
    rows = batch["caps"].shape[0]
    divided = [name for name, value in batch.items() if isinstance(value, Tensor) and value.dim() and value.shape[0] == rows]
    whole = {name: value for name, value in batch.items() if name not in divided}

    def part(*tensors: Tensor) -> dict[str, Tensor]:
        return model(**dict(zip(divided, tensors, strict=True)), **whole)

    parts = []
    for start in range(0, rows, size):
        tensors = [batch[name][start : start + size] for name in divided]
        parts.append(checkpoint(part, *tensors, use_reentrant=False) if torch.is_grad_enabled() else part(*tensors))
    first = parts[0]
    return {name: torch.cat([p[name] for p in parts]) if first[name].dim() else first[name] for name in first}
