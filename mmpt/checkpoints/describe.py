"""What a checkpoint file says about its weights."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpt.checkpoints.weights import Contents, read_file
from mmpt.config.yamlfile import read_yaml
from mmpt.utils.text import check_record, parse_json

KEY = "mmpt"  # of the description in a safetensors header, and in extra_state of a .pt file made here


def describe(path: str | Path) -> dict[str, Any]:
    """What a file says about its weights: project file, task, model, loss, data, updates, metrics; whatever
    of it is there.

    Raises:
        ValueError: the file is damaged, or holds a foreign class (named in the message).
    """
    return description(read_file(path), Path(path))


def description(contents: Contents, path: Path) -> dict[str, Any]:
    """The same, of a file that was read already."""
    weights, state = contents.weights, contents.state
    sizes = {"tensors": len(weights), "parameters": sum(tensor.numel() for tensor in weights.values())}
    if path.suffix == ".safetensors":
        said = parse_json(contents.header.get(KEY, "{}"), f"{path}: its description")
        return sizes | check_record(said, f"{path}: its description")
    is_fairseq = isinstance(state, Mapping) and "optimizer_history" in state
    return sizes | (_of_fairseq(state, path) if is_fairseq else {})


def project_of(path: str | Path) -> dict[str, Any]:
    """The resolved project file that trained a checkpoint, which stands in it or beside it; {}: nowhere."""
    state = read_file(path).state
    extra = (state.get("extra_state") if isinstance(state, Mapping) else None) or {}
    tree = extra.get("config") or _config_beside(Path(path))
    return json.loads(json.dumps(tree))  # a checkpoint may hold tuples, which no project file has


def as_text(path: str | Path) -> str:
    """The description and the groups of tensors, for a terminal."""
    contents = read_file(path)
    lines = [str(path)]
    for key, value in description(contents, Path(path)).items():
        if isinstance(value, Mapping):
            lines += [f"  {key}:", *(f"    {name}: {entry}" for name, entry in value.items())]
        else:
            lines.append(f"  {key}: {value:,}" if isinstance(value, int) else f"  {key}: {value}")
    groups: Counter[str] = Counter()
    for name, tensor in contents.weights.items():
        groups[".".join(name.split(".")[:2])] += tensor.numel()
    parts = (f"    {name}: {count:,}" for name, count in groups.most_common())
    return "\n".join([*lines, "  parameters by part:", *parts])


def _of_fairseq(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The description in, or of, a fairseq checkpoint."""
    extra = state.get("extra_state") or {}
    if KEY in extra:
        return extra[KEY]
    settings = state.get("cfg") or {}
    task = settings.get("task") if isinstance(settings, Mapping) else None
    task = vars(task if isinstance(task, Namespace) else state.get("args") or Namespace())
    last = state["optimizer_history"][-1]
    found = {
        "project": task.get("taskconfig"),
        **_of_config(extra.get("config") or _config_beside(path)),
        "updates": last.get("num_updates"),
        "epoch": (extra.get("train_iterator") or {}).get("epoch"),
        "training_hours": round(float(extra["previous_training_time"]) / 3600, 2)
        if extra.get("previous_training_time")
        else None,
        "optimizer": last.get("optimizer_name"),
        "metrics": _metrics(extra),
    }
    return {key: value for key, value in found.items() if value not in (None, {})}


def _config_beside(path: Path) -> dict[str, Any]:
    """The resolved configuration in the run folder."""
    config = path.parent / "config.yaml"
    return read_yaml(config) if config.is_file() else {}


def _of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    dataset = config.get("dataset") or {}
    return {
        "task": config.get("task") or ("Task" if config else None),
        "model": (config.get("model") or {}).get("model_cls"),
        "loss": config.get("loss"),
        "data": {
            key: dataset[key]
            for key in ("train_path", "vfeat_dir", "tfeat_dir", "bert_name")
            if dataset.get(key)
        },
    }


def _metrics(extra: Mapping[str, Any]) -> dict[str, float]:
    """Averages of the epoch under way, and validation scores."""
    found = {}
    for group in ("train", "valid"):
        for _, name, kind, meter in (extra.get("metrics") or {}).get(group, []):
            if kind == "AverageMeter" and meter.get("count"):
                found[f"{group}_{name}"] = round(float(meter["sum"]) / float(meter["count"]), 6)
    found |= {name: float(extra[name]) for name in ("val_loss", "best") if extra.get(name) is not None}
    return found
