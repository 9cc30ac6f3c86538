"""What we read of the `fairseq:` section ourselves; all of it passes through to fairseq."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Values of the section by name, whatever group they stand in; what is left out or null has its default.

    Attributes:
        save_dir: folder of checkpoints.
        restore_file: checkpoint that training starts from.
        path: checkpoint that is evaluated.
        tensorboard_logdir: name of the folders of curves.
        batch_size: clips.
        num_workers: processes that load data.
        max_epoch: where training ends.
        max_update: where training ends, in updates.
        optimizer: its name.
        seed: of the run; None: that of fairseq.
        cpu: train without a GPU.
        fp16: half precision.
        bf16: half precision with the range of float32.
    """

    save_dir: str | None = None
    restore_file: str | None = None
    path: str | None = None
    tensorboard_logdir: str | None = None
    batch_size: int | None = None
    num_workers: int | None = None
    max_epoch: int | None = None
    max_update: int | None = None
    optimizer: str | None = None
    seed: int | None = None
    cpu: bool = False
    fp16: bool = False
    bf16: bool = False

    @property
    def run_seed(self) -> int:
        """What draws of the run go by."""
        from mmpt.utils.seed import DEFAULT_SEED  # brings numpy, which reading a file does without

        return DEFAULT_SEED if self.seed is None else self.seed

    @classmethod
    def of(cls, section: Mapping[str, Mapping[str, Any]]) -> Trainer:
        """The view of a `fairseq:` section."""
        said = {
            name: value for group in section.values() for name, value in group.items() if value is not None
        }
        return cls(**{name: said[name] for name in cls.__dataclass_fields__ if name in said})
