"""Learning rates and weight decay of parts of a model, by the names of its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn


def set_groups(
    model: nn.Module,
    rates: Mapping[str, float],
    no_decay: Sequence[str],
    decays: Mapping[str, float] | None = None,
) -> None:
    """Notes on each parameter what an optimizer with groups (`grouped_adamw`, `grouped_sgd`) is to do
    differently with it.

    The notes are `parameter.optim_overrides`, which fairseq carries over to copies in other precisions.

    Args:
        model: the model.
        rates: part of a name -> learning rate; the first part that a name contains counts.
        no_decay: parts of names without weight decay.
        decays: part of a name -> weight decay of those that `no_decay` does not name, likewise.

    Raises:
        ValueError: a part that no name contains.
    """
    decays = {**dict.fromkeys(no_decay, 0.0), **(decays or {})}
    names = [name for name, _ in model.named_parameters()]
    unused = [part for part in (*rates, *decays) if not any(part in name for name in names)]
    if unused:
        raise ValueError(
            f"model.learning_rates, weight_decays and no_decay: no parameter of {type(model).__name__} has "
            f"{', '.join(unused)} in its name; names are such as {', '.join(names[:3])}."
        )
    for name, parameter in model.named_parameters():
        own = {
            key: value
            for key, values in (("lr", rates), ("weight_decay", decays))
            if (value := next((value for part, value in values.items() if part in name), None)) is not None
        }
        if own:
            parameter.optim_overrides = {"optimizer": own}
