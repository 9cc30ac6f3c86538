"""How well the hardware is used, for the log: MFU, the operations of training as a share of what the card can
do (Chowdhery et al. 2022, PaLM, appendix B), and the highest memory."""

from __future__ import annotations

import logging
import re
import resource
import sys
from collections.abc import Mapping
from typing import Any

import torch

from mmpt.config import Config
from mmpt.tasks import build_task
from mmpt.tasks.cost import half_precision, model_without_values, shapes_of, step_cost

logger = logging.getLogger(__name__)

GIB = 2**30
# Published dense rates in TFLOP/s of factors in (fp16 or bf16, TF32), sums in float32, by a word of the name
# that torch gives the card; the first that is found counts.
PEAKS: dict[str, tuple[float, float | None]] = {
    "B200": (2250, 1125),
    "GH200": (989, 494),
    "H200 NVL": (835, 417),
    "H200": (989, 494),
    "H100 PCIe": (756, 378),
    "H100 NVL": (835, 417),
    "H100": (989, 494),
    "A100": (312, 156),
    "A40": (149.7, 74.8),
    "A30": (165, 82),
    "A10": (125, 62.5),
    "RTX A6000": (154.8, 77.4),
    "L40S": (362, 183),
    "L40": (181, 90.5),
    "L4": (121, 60),
    "V100-PCIE": (112, None),
    "V100": (125, None),
}


def peak_rate(card: str, half: bool) -> float | None:
    """Operations a second that a card can do at most; None where that is not known.

    Args:
        card: its name. A part of a card (MIG) has no published rate.
        half: factors of half precision; else float32, which tensor cores take as TF32.
    """
    if "MIG" in card:
        return None
    rates = next((rates for key, rates in PEAKS.items() if re.search(rf"\b{key}\b", card)), (None, None))
    rate = rates[0 if half else 1]
    return None if rate is None else rate * 1e12


class Utilisation:
    """MFU of a run: the operations of its first batch are counted once, and taken for those of all.

    Counted are those of `mmpt train --estimate`: matrix products, convolutions and attention, forward and
    backward, padding included; what is computed twice to save memory counts once for checkpointed
    activations, twice for `model.micro_batch`.

    Args:
        config: of the run.
        ranks: processes that train together.
        peak: operations a second that one process can do at most; None where nothing is known of it.
    """

    def __init__(self, config: Config, ranks: int, peak: float | None):
        self.config = config
        self.ranks = ranks
        self.peak = peak
        self.per_clip: float | None = None
        self.is_counted = peak is None

    @classmethod
    def here(cls, config: Config, ranks: int, on_cpu: bool) -> Utilisation:
        """On the card that this process trains on."""
        if on_cpu or not torch.cuda.is_available():
            return cls(config, ranks, None)
        return cls(config, ranks, peak_rate(torch.cuda.get_device_name(), half_precision(config)))

    def count(self, sample: Mapping[str, Any], clips: int) -> None:
        """Count the operations of a batch, unless one was counted.

        Args:
            sample: as collated; its shapes matter.
            clips: that it counts as.
        """
        if self.is_counted:
            return
        self.is_counted = True
        task = build_task(self.config)
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        try:
            with torch.random.fork_rng(devices):
                cost = step_cost(task, model_without_values(task), shapes_of(sample), self.ranks)
        except (NotImplementedError, RuntimeError) as error:
            logger.info("the log has no mfu: model or loss reads values while it computes (%s)", error)
            return
        self.per_clip = cost.operations / clips

    def of_rate(self, clips_per_s: float) -> float | None:
        """MFU at so many clips a second of all processes; None where operations or peak are not known."""
        if self.per_clip is None or self.peak is None:
            return None
        return clips_per_s * self.per_clip / (self.ranks * self.peak)


def memory_peak(on_cpu: bool) -> float:
    """GiB that this process held at most: allocated by torch on its GPU; without one, resident.

    On a GPU it is to be asked at the end of an update: fairseq resets torch's record after each.
    """
    if on_cpu or not torch.cuda.is_available():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
    return torch.cuda.max_memory_allocated() / GIB
