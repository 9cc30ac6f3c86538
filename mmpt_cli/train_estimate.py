"""`mmpt train --estimate`: the launcher itself does without torch, which counting needs."""

from __future__ import annotations

from collections.abc import Sequence

from mmpt.api.estimate import estimate


def show(files: Sequence[str], overrides: Sequence[str], ranks: int, memory_gib: float) -> None:
    """Print what an update of each project file takes."""
    for path in files:
        print(f"{path}\n{estimate(path, overrides, nproc=ranks, memory_gib=memory_gib).text()}")
