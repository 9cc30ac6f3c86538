"""What an experienced engineer would say of a running training, from the numbers that it logs; each thing
once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmpt.ops.logit_scale import LARGEST_LOGIT_SCALE

logger = logging.getLogger(__name__)

CLIPPED_UPDATES = 100  # in a row before it is said
FLAT_VALIDATIONS = 3
FALL = 0.05  # of the training loss meanwhile, as a share of it
AT_BOUND = 1.001


class Advice:
    """Watches the lines of `metrics.jsonl`.

    Attributes:
        said: names of what was said already.
    """

    def __init__(self) -> None:
        self.said: set[str] = set()
        self._clipped_since: int | None = None
        self._norms: list[float] = []
        self._best: tuple[float, int, float] | None = None  # validation loss, update, training loss then
        self._flat = 0
        self._training: float | None = None

    def __call__(self, tag: str | None, update: int | None, numbers: Mapping[str, Any]) -> None:
        """Read one line: its tag, update and numbers."""
        if update is None:
            return
        if tag == "train_inner":
            self._training = numbers.get("loss", self._training)
            self._clipping(update, numbers)
            self._temperature(numbers)
        elif tag == "valid" and numbers.get("loss") is not None and not _tested(numbers):
            self._validation(update, numbers["loss"])

    def _say(self, what: str, text: str, *values: Any) -> None:
        if what not in self.said:
            self.said.add(what)
            logger.warning(text, *values)

    def _clipping(self, update: int, numbers: Mapping[str, Any]) -> None:
        if numbers.get("clip") != 100:
            self._clipped_since, self._norms = None, []
            return
        if self._clipped_since is None:
            self._clipped_since = update
        self._norms.append(numbers.get("gnorm") or 0.0)
        if update - self._clipped_since >= CLIPPED_UPDATES:
            self._say(
                "clipping",
                "100 %% of the updates %d to %d were clipped (mean gradient norm %.3g): every step has the "
                "same length, whatever the loss. Set fairseq.optimization.clip_norm to some times that norm, "
                "or to 0, and look for the learning rate anew.",
                self._clipped_since,
                update,
                sum(self._norms) / len(self._norms),
            )

    def _temperature(self, numbers: Mapping[str, Any]) -> None:
        temperature = numbers.get("temperature")
        least = 2.718281828459045**-LARGEST_LOGIT_SCALE
        if temperature is not None and temperature <= AT_BOUND * least:
            self._say(
                "temperature",
                "the learned temperature is at its bound, %.3g: the loss can be lowered by larger scores "
                "alone. Train for fewer updates, or with a lower learning rate or more weight decay.",
                least,
            )

    def _validation(self, update: int, loss: float) -> None:
        if self._best is None or loss < self._best[0]:
            self._best, self._flat = (loss, update, self._training or 0.0), 0
            return
        self._flat += 1
        best, since, then = self._best
        if (
            self._flat >= FLAT_VALIDATIONS
            and self._training is not None
            and self._training < (1 - FALL) * then
        ):
            self._say(
                "validation",
                "validation loss has stood at %.4g since update %d (now %d), while the training loss fell "
                "from %.4g to %.4g: the model memorises. Use checkpoint_best.pt, stop by "
                "fairseq.checkpoint.patience, or take a smaller model, more weight decay or more data. On "
                "noisy narration let a test judge: eval.valid_project.",
                best,
                since,
                update,
                then,
                self._training,
            )


def _tested(numbers: Mapping[str, Any]) -> bool:
    """Whether a test judges: on noisy narration the loss turns up while retrieval still improves."""
    return any(name.startswith("zero_shot_") for name in numbers)
