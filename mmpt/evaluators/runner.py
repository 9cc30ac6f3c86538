"""Predictor and metric of a project file, joined."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from mmpt.evaluators.predictor import Arrays
from mmpt.evaluators.result import Result
from mmpt.registry import METRICS, PREDICTORS

if TYPE_CHECKING:
    from mmpt.config import Config


class Evaluator:
    """Builds the predictor and the metric that a project file names.

    Args:
        config: the project file.
        tokenizer: see `Predictor`.

    Raises:
        ValueError: `predictor` or `metric` is not set.
    """

    def __init__(self, config: Config, tokenizer: Any = None):
        self.predictor = PREDICTORS.get(config.predictor, f"{config.source}: predictor")(config, tokenizer)
        self.metric = METRICS.get(config.metric, f"{config.source}: metric")(config.eval)

    def evaluate(
        self, model: nn.Module, loader: Iterable, device=None, progress=iter
    ) -> tuple[Result, Arrays]:
        """Run the model over the loader and score it; the arrays can be kept with `save_arrays`.

        Raises:
            TypeError: the metric reads an array that the predictor does not give, or returns no `Result`.
        """
        arrays = self.predictor(loader, model, device, progress)
        metric = type(self.metric).__name__
        reads = inspect.signature(self.metric.evaluate).parameters.values()
        needs = [
            r.name for r in reads if r.default is r.empty and r.kind not in (r.VAR_KEYWORD, r.VAR_POSITIONAL)
        ]
        if absent := [name for name in needs if name not in arrays]:
            raise TypeError(
                f"{metric} reads {', '.join(absent)}, which {type(self.predictor).__name__} does not give "
                f"(given: {', '.join(sorted(arrays))})."
            )
        result = self.metric.evaluate(**arrays)
        if not isinstance(result, Result):
            raise TypeError(
                f"{metric}.evaluate returned a {type(result).__name__}; expected a Result, as `mean_result` "
                "and `rank_result` make it."
            )
        return result, arrays
