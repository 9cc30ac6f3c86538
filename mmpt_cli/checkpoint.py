"""Looking into checkpoint files, converting and averaging them.

    python -m mmpt_cli.checkpoint show runs/retri/norton/checkpoint_best.pt
    python -m mmpt_cli.checkpoint convert runs/retri/norton/checkpoint_best.pt norton.safetensors
    python -m mmpt_cli.checkpoint convert norton.safetensors norton.pt
    python -m mmpt_cli.checkpoint average runs/retri/norton --last 5 --out
    runs/retri/norton/averaged.safetensors

A .safetensors file holds the weights (float32, plain names) and what `show` says about them; fairseq,
predict.py and `from_pretrained` read both kinds. A .pt file made by `convert` or `average` holds no optimizer
state: name it in `fairseq.checkpoint.restore_file` with the reset_ flags set. No file is read in a way that
    could run code from it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.checkpoints.weights import PLAIN, read_state_dict
from mmpt.config.yamlfile import read_yaml
from mmpt.utils.files import atomic_write
from mmpt.utils.log import short_errors

KEY = "mmpt"  # of the description in a safetensors header, and in extra_state of a .pt file made here
NUMBERED = re.compile(r"checkpoint(\d+|_\d+_\d+)\.pt")
SUFFIXES = (".pt", ".safetensors")


class _Settings:
    """Stands for a class of old trainers: takes what the pickle says and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Settings:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _new_dict(*args: Any) -> dict:
    return {}


def describe(path: str | Path) -> dict[str, Any]:
    """What a file says about its weights: project file, task, model, loss, data, updates, metrics; whatever
    of it is there.

    Raises:
        ValueError: the file is damaged, or holds a foreign class (named in the message).
    """
    path = Path(path)
    weights = read_state_dict(path)  # refuses what could run code
    sizes = {"tensors": len(weights), "parameters": sum(tensor.numel() for tensor in weights.values())}
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return sizes | json.loads((file.metadata() or {}).get(KEY, "{}"))
    state = _read_all(path)
    return sizes | (
        _of_fairseq(state, path) if isinstance(state, Mapping) and "optimizer_history" in state else {}
    )


def _read_all(path: Path) -> Any:
    """The whole file; tensors stay on disk, and classes other than plain settings become empty
    placeholders."""
    archive = zipfile.is_zipfile(path)
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if archive else ["argparse.Namespace"]
    known = PLAIN | {"argparse.Namespace": Namespace, "collections.defaultdict": _new_dict}
    with torch.serialization.safe_globals([(known.get(name, _Settings), name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)


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


def save(weights: Mapping[str, Tensor], description: Mapping[str, Any], path: str | Path) -> None:
    """Write weights and description, as safetensors or as a checkpoint that fairseq can start from; the file
    appears whole.

    Raises:
        ValueError: the name ends otherwise.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}.")
    description = {key: value for key, value in description.items() if key not in ("tensors", "parameters")}
    with atomic_write(path) as file:
        if path.suffix == ".safetensors":
            from safetensors.torch import save as to_bytes

            separate = {
                name: tensor.clone().contiguous() for name, tensor in weights.items()
            }  # tied weights are written twice
            file.write(to_bytes(separate, metadata={"format": "pt", KEY: json.dumps(description)}))
        else:
            torch.save(_fairseq_state(weights, description), file)


def _fairseq_state(weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> dict[str, Any]:
    updates = description.get("updates") or 0
    history = {
        "criterion_name": "MMCriterion",
        "optimizer_name": "",
        "lr_scheduler_state": {},
        "num_updates": updates,
    }
    return {
        "args": None,
        "cfg": None,
        "model": {f"mmmodel.{name}": tensor for name, tensor in weights.items()},
        "optimizer_history": [history],
        "last_optimizer_state": None,
        "extra_state": {
            KEY: dict(description),
            "train_iterator": {"epoch": description.get("epoch") or 1, "iterations_in_epoch": 0},
        },
    }


def newest(folder: str | Path, last: int) -> list[Path]:
    """The `last` numbered checkpoints of a run folder that were trained longest, shortest first; one for each
    number of updates.

    Raises:
        ValueError: there are fewer.
    """
    by_updates = {}
    for path in sorted(Path(folder).glob("checkpoint*.pt")):
        if NUMBERED.fullmatch(path.name):
            by_updates[_read_all(path)["optimizer_history"][-1]["num_updates"]] = path
    if len(by_updates) < last:
        raise ValueError(
            f"{folder}: {len(by_updates)} numbered checkpoints (checkpoint3.pt, checkpoint_3_1000.pt), "
            f"expected {last}. "
            "Keep more with fairseq.checkpoint.keep_interval_updates or keep_last_epochs, or average "
            "fewer with --last."
        )
    return [by_updates[updates] for updates in sorted(by_updates)[-last:]]


def average(paths: Iterable[Path]) -> dict[str, Tensor]:
    """Mean of each tensor, summed in float64; whole numbers are those of the last file.

    Raises:
        ValueError: the files hold different tensors.
    """
    total: dict[str, Tensor] = {}
    for count, path in enumerate(paths, start=1):
        state = read_state_dict(path)
        shapes = {name: tensor.shape for name, tensor in state.items()}
        if total and shapes != {name: tensor.shape for name, tensor in total.items()}:
            raise ValueError(
                f"{path} holds other tensors than the checkpoints before it; only checkpoints of one "
                "model can be averaged."
            )
        for name, tensor in state.items():
            total[name] = (
                total[name] + tensor.double()
                if name in total and tensor.is_floating_point()
                else _wide(tensor)
            )
    return {
        name: (tensor / count).float() if tensor.is_floating_point() else tensor
        for name, tensor in total.items()
    }


def _wide(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def show(path: Path) -> None:
    """Print the description and the groups of tensors."""
    description = describe(path)
    print(path)
    for key, value in description.items():
        if isinstance(value, Mapping):
            print(f"  {key}:")
            for name, entry in value.items():
                print(f"    {name}: {entry}")
        else:
            print(f"  {key}: {value:,}" if isinstance(value, int) else f"  {key}: {value}")
    groups = Counter()
    for name, tensor in read_state_dict(path).items():
        groups[".".join(name.split(".")[:2])] += tensor.numel()
    print("  parameters by part:")
    for name, count in groups.most_common():
        print(f"    {name}: {count:,}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("show", help="what is in a file")
    command.add_argument("file", type=Path)
    command.add_argument("--json", action="store_true", help="as JSON")
    command = commands.add_parser(
        "convert", help="to .safetensors with the description in its header, or back to .pt"
    )
    command.add_argument("source", type=Path)
    command.add_argument("target", type=Path)
    command = commands.add_parser("average", help="mean of the last checkpoints of a run folder")
    command.add_argument("folder", type=Path)
    command.add_argument("--last", type=int, default=5, help="how many (default: %(default)s)")
    command.add_argument("--out", type=Path, required=True, help="file to write: .safetensors or .pt")
    args = parser.parse_args(argv)
    short_errors()
    if args.command == "show":
        print(json.dumps(describe(args.file), indent=2)) if args.json else show(args.file)
    elif args.command == "convert":
        save(read_state_dict(args.source), describe(args.source), args.target)
        print(f"written {args.target}")
    else:
        if args.last < 1:
            parser.error("--last: expected at least 1")
        paths = newest(args.folder, args.last)
        save(average(paths), describe(paths[-1]) | {"averaged_from": [path.name for path in paths]}, args.out)
        print(f"written {args.out}, the mean of {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    sys.exit(main())
