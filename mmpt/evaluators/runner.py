"""Predictor and metric of a project file, joined."""

from __future__ import annotations

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
        """Run the model over the loader and score it; the arrays can be kept with `save_arrays`."""
        arrays = self.predictor(loader, model, device, progress)
        return self.metric.evaluate(**arrays), arrays
