"""Writing weights with their description, as safetensors or as a checkpoint that fairseq can start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.checkpoints.describe import KEY, description
from mmpt.checkpoints.weights import read_file, seal
from mmpt.utils.files import atomic_write

SUFFIXES = (".pt", ".safetensors")


def convert(source: str | Path, target: str | Path) -> None:
    """One kind of file into the other, with what it says about itself.

    Raises:
        ValueError: `source` is damaged or holds a foreign class, or the name of `target` ends otherwise.
    """
    contents = read_file(source)
    save(contents.weights, description(contents, Path(source)), target)


def save(weights: Mapping[str, Tensor], description: Mapping[str, Any], path: str | Path) -> None:
    """Write weights and description, as safetensors or as a checkpoint that fairseq can start from; the file
    appears whole.

    Raises:
        ValueError: the name ends otherwise.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}.")
    description = {key: value for key, value in description.items() if key not in ("tensors", "parameters")}
    with atomic_write(path) as file:
        if path.suffix == ".safetensors":
            from safetensors.torch import save as to_bytes

            separate = {
                name: tensor.clone().contiguous() for name, tensor in weights.items()
            }  # tied weights are written twice
            file.write(to_bytes(separate, metadata={"format": "pt", KEY: json.dumps(description)}))
        else:
            torch.save(_fairseq_state(weights, description), file)
    if path.suffix == ".safetensors":
        seal(path)


def _fairseq_state(weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> dict[str, Any]:
    updates = description.get("updates") or 0
    history: dict[str, Any] = {
        "criterion_name": "MMCriterion",
        "optimizer_name": "",
        "lr_scheduler_state": {},
        "num_updates": updates,
    }
    return {
        "args": None,
        "cfg": None,
        "model": {f"mmmodel.{name}": tensor for name, tensor in weights.items()},
        "optimizer_history": [history],
        "last_optimizer_state": None,
        "extra_state": {
            KEY: dict(description),
            "train_iterator": {"epoch": description.get("epoch") or 1, "iterations_in_epoch": 0},
        },
    }
