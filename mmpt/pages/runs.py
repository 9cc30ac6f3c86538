"""What a run folder tells: `metrics.jsonl`, the log, its history, evaluations, the project file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.config import ConfigError
from mmpt.config.load import leaves, with_origins
from mmpt.config.yamlfile import read_yaml
from mmpt.utils.text import read_json, read_json_log

METRICS, HISTORY = "metrics.jsonl", "history.jsonl"
ZERO_SHOT = "zero_shot_"  # before the measures of `eval.valid_project`
NOT_LOSSES = {  # what fairseq and the task log beside the terms of the loss
    *("tag", "update", "epoch", "num_updates", "lr", "gnorm", "clip", "wall", "train_wall", "wps", "ups"),
    *(
        "wpb",
        "bsz",
        "clips_per_s",
        "data_wait",
        "mfu",
        "peak_gib",
        "gb_free",
        "loss_scale",
        "ppl",
        "nll_loss",
        "cuda_gb_allocated",
        "processes",
        "temperature",
    ),
    *("cuda_gb_reserved", "cuda_gb_free"),
}
MOST_FAULTS = 50
FAULT = re.compile(
    r"\| (WARNING|ERROR|CRITICAL) \||Traceback|^\w*(Error|Exception|Interrupt)\b|FloatingPoint"
)
RESUMED = re.compile(r"Loaded checkpoint (.+?) \(epoch (\d+) @ (\d+) updates\)")


@dataclass
class RunRecord:
    """A run folder, read.

    Attributes:
        folder: it.
        name: what the page calls it.
        inner: lines of training, by update, each update once.
        epochs: lines at the ends of epochs.
        valid: lines of validations.
        unread: lines of `metrics.jsonl` that are damaged.
        retrained: updates that were trained twice, after a stop.
        resumes: (checkpoint, update) of each start from a checkpoint.
        faults: lines of the logs that warn or fail.
        history: events of `history.jsonl`.
        evaluations: name -> results.json of each evaluation below the folder.
        config: key -> (value, where it comes from).
    """

    folder: Path
    name: str
    inner: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    valid: list[dict[str, Any]] = field(default_factory=list)
    unread: int = 0
    retrained: int = 0
    resumes: list[tuple[str, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    config: dict[str, tuple[Any, str]] = field(default_factory=dict)

    @property
    def training(self) -> list[dict[str, Any]]:
        """The finest lines of training that there are."""
        return max(self.inner, self.epochs, key=len)

    @property
    def losses(self) -> list[str]:
        """Names of the terms of the loss, `loss` first."""
        names = {
            name: None
            for line in (*self.training, *self.valid)
            for name, value in line.items()
            if name not in NOT_LOSSES and not name.startswith(("best_", ZERO_SHOT))
            if isinstance(value, (int, float)) and value  # a count of what went wrong may be 0 all the time
        }
        return sorted(names, key=lambda name: (name != "loss", name))

    @property
    def zero_shot(self) -> dict[str, list[str]]:
        """The measures between 0 and 1 of the test at each validation, by what stands before them: "" or, for
        instance, V2T."""
        found: dict[str, dict[str, None]] = {}
        for name in dict.fromkeys(name for line in self.valid for name in line if name.startswith(ZERO_SHOT)):
            values = [line[name] for line in self.valid if isinstance(line.get(name), (int, float))]
            if values and min(values) >= 0 and max(values) <= 1:
                group, _, measure = name.removeprefix(ZERO_SHOT).rpartition("-")
                found.setdefault(group, {})[measure] = None
        return {group: list(measures) for group, measures in found.items()}

    def facts(self) -> dict[str, str]:
        """What stands on top of the page."""
        last = self.training[-1] if self.training else {}
        facts = {"folder": str(self.folder), "updates": str(last.get("update", 0))}
        epochs = [line["epoch"] for line in self.training if line.get("epoch")]
        if epochs:
            facts["epoch"] = str(max(epochs))
        scored = [line for line in self.valid if isinstance(line.get("loss"), (int, float))]
        if scored:
            best = min(scored, key=lambda line: line["loss"])
            facts["best validation loss"] = f"{best['loss']:.4f} at update {best['update']}"
            facts["last validation loss"] = f"{scored[-1]['loss']:.4f}"
        seconds = [
            line["wall"] for line in (*self.inner, *self.epochs) if isinstance(line.get("wall"), (int, float))
        ]
        if seconds:
            facts["seconds of the last start"] = f"{seconds[-1]:.0f}"
        facts["starts from a checkpoint"] = str(len(self.resumes))
        if self.retrained:
            facts["log lines of updates trained twice after a stop"] = str(self.retrained)
        if self.unread:
            facts["damaged lines of metrics.jsonl"] = str(self.unread)
        return facts


def read_runs(named: Iterable[tuple[str | None, Path]]) -> list[RunRecord]:
    """Run folders by name, None: the folder's; where two would share one, each is called by its path."""
    runs = [read_run(folder, name) for name, folder in named]
    if len({run.name for run in runs}) < len(runs):  # runs/a/norton and runs/b/norton
        for run in runs:
            run.name = str(run.folder)
    return runs


def read_run(folder: str | Path, name: str | None = None) -> RunRecord:
    """Reads a run folder.

    Args:
        folder: of `mmpt train`; a checkpoint in it stands for it.
        name: what the page calls it; None: the name of the folder.

    Raises:
        FileNotFoundError: it holds no `metrics.jsonl`.
    """
    folder = Path(folder)
    folder = folder.parent if folder.is_file() else folder
    path = folder / METRICS
    if not path.is_file():
        near = sorted(found.parent.name for found in folder.glob(f"*/{METRICS}")) if folder.is_dir() else []
        hint = (
            f" Runs below it: {', '.join(near[:5])}." if near else " Give the folder of checkpoints of a run."
        )
        raise FileNotFoundError(f"{path} does not exist: {folder} is no run that was trained.{hint}")
    run = RunRecord(folder, name or folder.name)
    found, damaged = read_json_log(path)
    lines = [line for line in found if isinstance(line.get("update"), int | None)]
    run.unread = damaged + len(found) - len(lines)
    run.inner, again = _once(line for line in lines if line.get("tag") == "train_inner")
    run.epochs, _ = _once(line for line in lines if line.get("tag") == "train")
    run.valid, _ = _once(line for line in lines if str(line.get("tag")).startswith("valid"))
    run.retrained = again
    _read_logs(run)
    if (folder / HISTORY).is_file():
        run.history, damaged = read_json_log(folder / HISTORY)
        if damaged:
            run.faults.append(f"{folder / HISTORY}: {damaged} lines cannot be read")
    for result in sorted(folder.rglob("results.json")):
        try:
            run.evaluations[str(result.parent.relative_to(folder))] = read_json(result, dict, nan=True)
        except ValueError:
            run.faults.append(f"{result}: damaged")
    run.config = _config(folder / "config.yaml")
    return run


def _once(lines: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Lines by update; of an update that was trained twice its last line counts."""
    by_update: dict[Any, dict[str, Any]] = {}
    again = 0
    for line in lines:
        again += line.get("update") in by_update
        by_update[line.get("update")] = dict(line)
    return sorted(by_update.values(), key=lambda line: line.get("update") or 0), again


def _read_logs(run: RunRecord) -> None:
    for path in sorted(run.folder.glob("*.log")):
        with open(path, encoding="utf-8", errors="replace") as file:
            for text in file:
                if resumed := RESUMED.search(text):
                    run.resumes.append((resumed[1], int(resumed[3])))
                if FAULT.search(text) and len(run.faults) < MOST_FAULTS:
                    run.faults.append(text.strip()[:300])


def _config(path: Path) -> dict[str, tuple[Any, str]]:
    """Values of the run's project file; where the file that it was made of is there still, and says the same,
    the file that has the last word on each."""
    if not path.is_file():
        return {}
    values = dict(leaves(read_yaml(path)))
    source = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split(" with its ")[0]
    try:
        origins = with_origins(source)
    except ConfigError:
        origins = {}
    return {
        key: (value, origins[key][1] if key in origins and origins[key][0] == value else "default or --set")
        for key, value in values.items()
    }
