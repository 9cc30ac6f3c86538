"""The schedules of `mmpt.utils.schedules` by the names `fairseq.optimization.lr_scheduler` takes.

fairseq reads the annotations below to make flags of them, and knows neither postponed ones nor `list[int]`.
"""

from dataclasses import dataclass, field
from typing import List  # noqa: UP035

from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II

from mmpt.utils.schedules import warmup_multistep, warmup_share, warmup_then


@dataclass
class WarmupMultistepConfig(FairseqDataclass):
    lr_multiplier: float = field(
        default=1.0, metadata={"help": "full rate / lr, usually the number of processes"}
    )
    lr_warmup_epochs: int = field(default=0, metadata={"help": "epochs until the full rate"})
    lr_milestones: List[int] = field(
        default_factory=list, metadata={"help": "epochs (from 0) at which the rate drops"}
    )
    lr_gamma: float = field(default=0.1, metadata={"help": "factor of a drop"})
    legacy_offset: bool = field(default=False, metadata={"help": "every drop one epoch later, as released"})
    lr: List[float] = II("optimization.lr")


@register_lr_scheduler("warmup_multistep", dataclass=WarmupMultistepConfig)
class WarmupMultistep(FairseqLRScheduler):
    """By epoch: see `mmpt.utils.schedules.warmup_multistep`."""

    def __init__(self, cfg: WarmupMultistepConfig, optimizer: FairseqOptimizer):
        super().__init__(cfg, optimizer)
        self.step_begin_epoch(1)

    def step_begin_epoch(self, epoch: int) -> float:
        """fairseq counts epochs from 1."""
        cfg = self.cfg
        self.optimizer.set_lr(
            warmup_multistep(
                epoch - 1,
                cfg.lr[0],
                cfg.lr_multiplier,
                cfg.lr_warmup_epochs,
                cfg.lr_milestones,
                cfg.lr_gamma,
                cfg.legacy_offset,
            )
        )
        return self.optimizer.get_lr()


@dataclass
class WarmupThenConfig(FairseqDataclass):
    warmup_updates: int = field(default=0, metadata={"help": "updates of the linear warm-up"})
    warmup_init_lr: float = field(default=0.0, metadata={"help": "rate of the first update"})
    decay: str = field(default="cosine", metadata={"help": "after the warm-up: cosine or constant"})
    final_lr: float = field(default=0.0, metadata={"help": "rate at the end of the cosine"})
    lr: List[float] = II("optimization.lr")
    max_update: int = II("optimization.max_update")


@register_lr_scheduler("warmup_constant_or_cosine", dataclass=WarmupThenConfig)
class WarmupThen(FairseqLRScheduler):
    """By update: see `mmpt.utils.schedules.warmup_then`.

    Raises:
        ValueError: a cosine without `fairseq.optimization.max_update` to end at, or an unknown decay.
    """

    def __init__(self, cfg: WarmupThenConfig, optimizer: FairseqOptimizer):
        super().__init__(cfg, optimizer)
        if cfg.decay not in ("cosine", "constant"):
            raise ValueError(f"fairseq.optimization.decay={cfg.decay!r}: expected cosine or constant.")
        if cfg.decay == "cosine" and not cfg.max_update:
            raise ValueError(
                "lr_scheduler warmup_constant_or_cosine with decay: cosine needs "
                "fairseq.optimization.max_update, where it ends."
            )
        self.step_update(0)

    def step_update(self, num_updates: int) -> float:
        """Called after every update."""
        cfg = self.cfg
        total = cfg.max_update if cfg.decay == "cosine" else None
        self.optimizer.set_lr(
            warmup_then(num_updates, cfg.lr[0], cfg.warmup_updates, cfg.warmup_init_lr, total, cfg.final_lr)
        )
        return self.optimizer.get_lr()


@dataclass
class WarmupShareConfig(FairseqDataclass):
    warmup_ratio: float = field(default=0.1, metadata={"help": "share of the training over which rates rise"})
    decay: str = field(default="linear", metadata={"help": "after the warm-up: linear or cosine"})
    epochs: float = field(
        default=0.0, metadata={"help": "length of the training; locallaunch.py makes max_update of it"}
    )
    lr: List[float] = II("optimization.lr")
    max_update: int = II("optimization.max_update")


@register_lr_scheduler("warmup_share", dataclass=WarmupShareConfig)
class WarmupShare(FairseqLRScheduler):
    """By update: see `mmpt.utils.schedules.warmup_share`.

    Raises:
        ValueError: `fairseq.optimization.max_update` is not set, or the decay is unknown.
    """

    def __init__(self, cfg: WarmupShareConfig, optimizer: FairseqOptimizer):
        super().__init__(cfg, optimizer)
        if cfg.decay not in ("linear", "cosine"):
            raise ValueError(f"fairseq.optimization.decay={cfg.decay!r}: expected linear or cosine.")
        if not cfg.max_update:
            raise ValueError(
                "lr_scheduler warmup_share needs fairseq.optimization.max_update, where it ends."
            )
        self.step_update(0)

    def step_update(self, num_updates: int) -> float:
        """Called after every update; sets the rate of the next one."""
        cfg = self.cfg
        rate = warmup_share(num_updates + 1, cfg.lr[0], cfg.max_update, cfg.warmup_ratio, cfg.decay)
        self.optimizer.set_lr(rate)
        return self.optimizer.get_lr()
