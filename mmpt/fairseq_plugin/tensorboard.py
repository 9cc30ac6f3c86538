"""What fairseq writes for TensorBoard: curves in groups, the losses first, the settings of the run, and at
each validation the transport plan of one video.

loss/total, loss/text_to_video, ...; optimizer/lr, gnorm, ...; run/ups, data_wait, ...; zero_shot/R1, ...;
transport_plan/<video id>
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from fairseq.logging import progress_bar

from mmpt.config import load_config

logger = logging.getLogger(__name__)

RUN = "train_inner"  # the curves that are written every `log_interval`
VALIDATION = "valid"
OPTIMIZER = ("lr", "gnorm", "clip", "loss_scale", "temperature")
RUNNING = (
    *("ups", "wps", "wpb", "bsz", "clips_per_s", "data_wait", "gb_free", "slowest_", "train_wall", "wall"),
    *("uncaptioned", "mfu", "peak_gib"),
)
SETTINGS = {
    "optimization": ("lr", "max_update", "max_epoch", "clip_norm", "update_freq"),
    "optimizer": ("_name", "weight_decay", "adam_betas", "momentum"),
    "lr_scheduler": ("_name", "warmup_updates"),
    "dataset": ("batch_size",),
    "common": ("seed", "fp16", "bf16", "amp"),
    "distributed_training": ("distributed_world_size",),
}


class GroupedCurves(progress_bar.TensorboardProgressBarWrapper):
    """fairseq's writer with names in groups."""

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Settings of the run, once, for the tab HPARAMS; fairseq calls it at the start of every epoch."""
        if RUN not in progress_bar._tensorboard_writers and (writer := self._writer(RUN)) is not None:
            summary = importlib.import_module(f"{type(writer).__module__.rpartition('.')[0]}.summary")
            for part in summary.hparams(settings(config), {"loss/total": 0.0}):
                writer.file_writer.add_summary(part)
        super().update_config(config)

    def _log_to_tensorboard(self, stats: Mapping[str, Any], tag: str | None = None, step: int | None = None):
        super()._log_to_tensorboard({grouped(name): value for name, value in stats.items()}, tag, step)

    def picture(self, name: str, image: Any, step: int) -> None:
        """An image (H, W, 3), to step through by update."""
        if (writer := self._writer(VALIDATION)) is not None:
            writer.add_image(name, image, step, dataformats="HWC")
            writer.flush()


class PlanPictures:
    """The transport plan of one validation video at each validation.

    Args:
        folder: of the run's files for TensorBoard.
        draw: the video's id and the picture of its plan, (H, W, 3) uint8, by the model as it is.
    """

    def __init__(self, folder: str, draw: Callable[[], tuple[str, Any]]):
        self.folder = folder
        self.draw: Callable[[], tuple[str, Any]] | None = draw

    def add(self, update: int) -> None:
        """Adds a picture. Where there is nothing to draw from, the log says why, once."""
        if self.draw is None:
            return
        try:
            video_id, image = self.draw()
        except (ValueError, FileNotFoundError, ImportError) as error:
            logger.info("no transport plan for TensorBoard: %s", error)
            self.draw = None
            return
        curves = GroupedCurves(progress_bar.SimpleProgressBar([]), self.folder)
        curves.picture(f"transport_plan/{video_id}", image, update)


def settings(config: Mapping[str, Any]) -> dict[str, str | float]:
    """What tells runs apart: project file, loss, model, and some of fairseq's settings.

    Args:
        config: groups of fairseq's settings, the task's under `args`.
    """
    args = config.get("args") or config["task"]
    project = load_config(args["taskconfig"], args.get("overrides") or ())
    found = {
        "project": project.source,
        "loss": (project.loss or {}).get("loss_cls"),
        "model": project.model.model_cls,
    }
    for group, names in SETTINGS.items():
        values = config.get(group) or {}
        found |= {group if name == "_name" else name: values.get(name) for name in names}
    plain = {name: value for name, value in found.items() if value is not None}
    return {name: value if isinstance(value, int | float) else str(value) for name, value in plain.items()}


def grouped(name: str) -> str:
    """The name of a curve with its group."""
    if name == "num_updates":  # read by fairseq, no curve
        return name
    if name == "loss":
        return "loss/total"
    if name.startswith(("zero_shot_", "best_zero_shot_")):
        return f"zero_shot/{name.replace('zero_shot_', '')}"
    if name in OPTIMIZER:
        return f"optimizer/{name}"
    return f"{'run' if name.startswith((*RUNNING, 'best_')) else 'loss'}/{name}"
