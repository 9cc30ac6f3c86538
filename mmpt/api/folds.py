"""Every split of a data set trained and tested, and the mean, by which UCF101 and HMDB51 are reported."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmpt.api.evaluation import evaluate
from mmpt.config import load_config
from mmpt.launch.gram_json import twin
from mmpt.launch.pipeline import Request, launch
from mmpt.utils.files import atomic_write

OF_TRAINING = ("fairseq.", "loss.")


def folder_of(path: Path, fold: int) -> str:
    """The run folder of a fold: `runs/x/fold1` -> `runs/x/fold2`, `runs/x` -> `runs/x/fold2`."""
    return re.sub(r"/fold\d+$", "", str(path)) + f"/fold{fold}"


def train_and_test(
    path: str, folds: Sequence[int], request: Request, device: str = "auto"
) -> tuple[dict[str, dict[str, float]], Path]:
    """Train each fold of a project file, and test its last checkpoint by the test file beside it.

    A fold that is trained is not trained again. Settings of `request` for `fairseq` and `loss` are of
    training, others also of the test.

    Args:
        path: project file with `dataset.fold`; `test_<path>` is beside it.
        folds: numbers of splits.
        request: how to train; with `dryrun` nothing is tested.
        device: of the tests.

    Returns:
        Name of a fold, and "mean" -> the numbers of its test; and `folds.json`, where they are kept.

    Raises:
        ConfigError: a file is wrong, or lacks what a fold needs.
        RuntimeError: a training failed.
    """
    config, test = load_config(path, request.overrides), twin(path)
    found: dict[str, dict[str, float]] = {}
    for fold in folds:
        folder = folder_of(config.save_dir, fold)
        texts = (*request.overrides, f"dataset.fold={fold}")
        training = (*texts, f"fairseq.checkpoint.save_dir={folder}", f"eval.save_path={folder}/eval")
        code = launch([path], dataclasses.replace(request, overrides=training))
        if code:
            raise RuntimeError(f"{path}: training of fold {fold} failed with exit code {code}.")
        if not request.dryrun:
            kept = [text for text in texts if not text.startswith(OF_TRAINING)]
            report = evaluate(test, f"{folder}/checkpoint_last.pt", kept, device=device, out=f"{folder}/eval")
            found[f"fold {fold}"] = report.result.values
    out = Path(folder_of(config.save_dir, 0)).parent / "folds.json"
    if found:
        found["mean"] = mean_of(found)
        with atomic_write(out, "w") as file:
            json.dump(found, file, indent=1)
    return found, out


def mean_of(folds: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of every number that all folds have."""
    first, *others = folds.values()
    names = [name for name in first if all(name in other for other in others)]
    return {name: statistics.fmean(values[name] for values in folds.values()) for name in names}
