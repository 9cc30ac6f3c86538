"""Project files of the TempCLR release, some of whose keys have another place here.

task: AlignRetriTask            ->  task: VideoRetriTask, loss: {loss_cls: TempCLRLoss, ...}
task: AlignLocalTask            ->  task: Task, loss: {loss_cls: TempCLRLocalisationLoss, ...}
alignment: {metric: dtw, ...}   ->  keys of that loss; layernorm_only -> model.layernorm_only
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpt.config.yamlfile import ConfigError

TASKS = {
    "AlignRetriTask": ("VideoRetriTask", "TempCLRLoss"),
    "AlignLocalTask": ("Task", "TempCLRLocalisationLoss"),
}


def translated(tree: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A resolved project file in the terms of this toolkit; one that is so already comes back unchanged.

    Raises:
        ConfigError: an `alignment:` block without the task it belongs to, or none of either kind.
    """
    tree, task = dict(tree), tree.get("task")
    if task not in TASKS:
        if "alignment" in tree:
            raise ConfigError(
                f"{source}: alignment: this block goes with task: {' or '.join(TASKS)} of the TempCLR "
                "release. Its keys are those of "
                "loss: here, with loss_cls: TempCLRLoss or TempCLRLocalisationLoss; layernorm_only is "
                "model.layernorm_only."
            )
        return tree
    alignment = tree.pop("alignment", None)
    if not isinstance(alignment, Mapping):
        raise ConfigError(
            f"{source}: task: {task} needs an alignment: block of `key: value` lines, got {alignment!r}."
        )
    tree["task"], loss_cls = TASKS[task]
    own = {key: value for key, value in alignment.items() if key != "layernorm_only" and value is not None}
    stride = (tree.get("dataset") or {}).get("sliding_window")
    if loss_cls == "TempCLRLocalisationLoss" and stride is not None:  # by it overlapping windows are merged
        own["sliding_window"] = stride
    tree["loss"] = {"loss_cls": loss_cls, **own}
    if alignment.get("layernorm_only") is not None:
        tree["model"] = {**(tree.get("model") or {}), "layernorm_only": alignment["layernorm_only"]}
    return tree
