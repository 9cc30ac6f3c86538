"""AdamW and SGD with learning rates and weight decay of their own for parts of a model, by the names that
`fairseq.optimization.optimizer` takes.

fairseq reads the annotations below to make flags of them, and knows neither postponed ones nor `list[float]`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II


class DecoupledAdamW(torch.optim.Optimizer):
    """Adam whose weight decay follows each step, by the rate of that step.

    The sums and their corrections are those of BERT's optimizer: p -= lr sqrt(1 - b2^t) / (1 - b1^t) * m /
    (sqrt(v) + eps), then p -= lr * weight_decay * p.
    """

    supports_memory_efficient_fp16 = True
    supports_flat_params = False  # a flat parameter has no groups

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[parameter], group["betas"]
        gradient = parameter.grad if parameter.dtype == torch.float64 else parameter.grad.float()
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        rate = group["lr"] * (1 - second ** state["step"]) ** 0.5 / (1 - first ** state["step"])
        parameter.addcdiv_(
            mean.to(parameter.dtype), (square.sqrt() + group["eps"]).to(parameter.dtype), value=-rate
        )
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])


@dataclass
class GroupedAdamWConfig(FairseqDataclass):
    adam_betas: Any = field(default=(0.9, 0.98), metadata={"help": "betas"})
    adam_eps: float = field(default=1e-6, metadata={"help": "epsilon"})
    weight_decay: float = field(
        default=0.01, metadata={"help": "of parameters that model.weight_decays and no_decay do not name"}
    )
    lr: list[float] = II("optimization.lr")


class Grouped(FairseqOptimizer):
    """An optimizer in the groups that `model.learning_rates`, `weight_decays` and `no_decay` make; other
    parameters follow `fairseq.optimization.lr`. The schedule scales all rates alike."""

    make: Callable[..., torch.optim.Optimizer]  # of sections of parameters, and `optimizer_config`

    def __init__(self, cfg: Any, params: Iterable[torch.nn.Parameter]):
        super().__init__(cfg)
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for parameter in params:
            own = getattr(parameter, "optim_overrides", {}).get("optimizer", {})
            key = own.get("lr", cfg.lr[0]) / cfg.lr[0], own.get("weight_decay", cfg.weight_decay)
            groups.setdefault(key, []).append(parameter)
        sections = [
            {"params": members, "lr_scale": scale, "lr": scale * cfg.lr[0], "weight_decay": decay}
            for (scale, decay), members in groups.items()
        ]
        self._optimizer = self.make(sections, **self.optimizer_config)

    def set_lr(self, lr: float) -> None:
        """The rate of parameters that have none of their own."""
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def get_lr(self) -> float:
        group = self.param_groups[0]
        return group["lr"] / group["lr_scale"]

    def load_state_dict(
        self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None
    ) -> None:
        """Moments of a checkpoint; rates and decays stay those of this run."""
        own = [{key: group[key] for key in ("lr_scale", "weight_decay")} for group in self.param_groups]
        super().load_state_dict(state_dict, optimizer_overrides)
        for group, settings in zip(self.param_groups, own, strict=True):
            group.update(settings, lr=self.cfg.lr[0] * settings["lr_scale"])


@register_optimizer("grouped_adamw", dataclass=GroupedAdamWConfig)
class GroupedAdamW(Grouped):
    """`DecoupledAdamW`."""

    make = DecoupledAdamW

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """Arguments of the optimizer, also what a run that goes on puts over those of its checkpoint."""
        betas = self.cfg.adam_betas
        betas = tuple(float(x) for x in (betas.strip("()").split(",") if isinstance(betas, str) else betas))
        cfg = self.cfg
        return {"lr": cfg.lr[0], "betas": betas, "eps": cfg.adam_eps, "weight_decay": cfg.weight_decay}


@dataclass
class GroupedSGDConfig(FairseqDataclass):
    momentum: float = field(default=0.0, metadata={"help": "momentum"})
    weight_decay: float = field(
        default=0.0, metadata={"help": "of parameters that model.weight_decays and no_decay do not name"}
    )
    lr: list[float] = II("optimization.lr")


@register_optimizer("grouped_sgd", dataclass=GroupedSGDConfig)
class GroupedSGD(Grouped):
    """torch's SGD."""

    make = torch.optim.SGD

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """Arguments of the optimizer, also what a run that goes on puts over those of its checkpoint."""
        cfg = self.cfg
        return {"lr": cfg.lr[0], "momentum": cfg.momentum, "weight_decay": cfg.weight_decay}
