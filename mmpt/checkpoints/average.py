"""The mean of the last checkpoints of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from mmpt.checkpoints.convert import save
from mmpt.checkpoints.describe import describe
from mmpt.checkpoints.weights import read_state_dict, updates_of

NUMBERED = re.compile(r"checkpoint(\d+|_\d+_\d+)\.pt")


def average_last(folder: str | Path, last: int, out: str | Path) -> list[Path]:
    """Average the `last` numbered checkpoints of a run folder; returns them, shortest training first."""
    paths = newest(folder, last)
    save(average(paths), describe(paths[-1]) | {"averaged_from": [path.name for path in paths]}, out)
    return paths


def newest(folder: str | Path, last: int) -> list[Path]:
    """The `last` numbered checkpoints of a run folder that were trained longest, shortest first; one for each
    number of updates.

    Raises:
        ValueError: there are fewer.
    """
    by_updates = {}
    for path in sorted(Path(folder).glob("checkpoint*.pt")):
        if NUMBERED.fullmatch(path.name):
            by_updates[updates_of(path)] = path
    if len(by_updates) < last:
        raise ValueError(
            f"{folder}: {len(by_updates)} numbered checkpoints (checkpoint3.pt, checkpoint_3_1000.pt), "
            f"expected {last}. "
            "Keep more with fairseq.checkpoint.keep_interval_updates or keep_last_epochs, or average "
            "fewer with --last."
        )
    return [by_updates[updates] for updates in sorted(by_updates)[-last:]]


def average(paths: Iterable[Path]) -> dict[str, Tensor]:
    """Mean of each tensor, summed in float64; whole numbers are those of the last file.

    Raises:
        ValueError: the files hold different tensors.
    """
    total: dict[str, Tensor] = {}
    for count, path in enumerate(paths, start=1):
        state = read_state_dict(path)
        shapes = {name: tensor.shape for name, tensor in state.items()}
        if total and shapes != {name: tensor.shape for name, tensor in total.items()}:
            raise ValueError(
                f"{path} holds other tensors than the checkpoints before it; only checkpoints of one "
                "model can be averaged."
            )
        for name, tensor in state.items():
            total[name] = (
                total[name] + tensor.double()
                if name in total and tensor.is_floating_point()
                else _wide(tensor)
            )
    return {
        name: (tensor / count).float() if tensor.is_floating_point() else tensor
        for name, tensor in total.items()
    }


def _wide(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
