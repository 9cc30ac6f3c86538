"""Evaluating a project file, as a call."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from mmpt.api.raw_videos import SAVE_PATH, slug, with_features
from mmpt.checkpoints.describe import description, project_of
from mmpt.checkpoints.weights import fit_state_dict, in_order, read_file
from mmpt.config import Config, ConfigError, required
from mmpt.config.fields import Problem
from mmpt.config.load import as_config
from mmpt.config.rundir import to_dict
from mmpt.datasets import build_dataset, training_pairs
from mmpt.evaluators import Evaluator, Report, Result, sanity, save_arrays
from mmpt.evaluators.metric import POST_PROCESSING
from mmpt.evaluators.predictor import DealtOut
from mmpt.evaluators.probes import PROBES, Probed
from mmpt.evaluators.report import describe_data
from mmpt.models import build_model
from mmpt.models.prepare import prepare
from mmpt.ops.distributed import rank, world_size
from mmpt.processors.store.passport import passports_of, wrong_rate
from mmpt.registry import MODELS, load_plugins
from mmpt.utils.device import choose_device
from mmpt.utils.files import atomic_write
from mmpt.zoo import remedy

UNTRAINED, PRETRAINED = "untrained", "pretrained"
BASELINES = {"ridge": "RidgeBaseline"}
BASELINE_PAIRS, BASELINE_EPOCHS = 50_000, 4  # each item is drawn anew so often, until there are so many pairs
Progress = Callable[[Iterable[Any]], Iterable[Any]]


def evaluate(
    config: str | Path | Config | Mapping[str, Any],
    checkpoint: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    device: str = "auto",
    out: str | Path | None = None,
    plots: bool = False,
    progress: Progress = iter,
) -> Report:
    """Run the predictor of a test file over its data and score what it gives.

    Args:
        config: a project file with `predictor` and `metric`, or what is in one.
        checkpoint: weights; None: the model as initialised.
        overrides: `section.key=value` texts merged last.
        device: cpu, cuda, cuda:N, or auto: a GPU where there is one.
        out: folder that gets results.json, results.md and per_query.npz; None: nothing is written.
        plots: also draw pictures there.
        progress: wrapped round the batches.

    Raises:
        ConfigError: the project file is wrong.
        FileNotFoundError: a file it names, or the checkpoint, is not there.
        ValueError: the checkpoint belongs to another model.
    """
    return Evaluation(config, overrides, device, progress)(checkpoint, out, plots=plots)


def find_checkpoints(config: Config, chosen: str | Path | None = None, every: bool = False) -> list[Path]:
    """Checkpoints of a test file in order of evaluation, each once.

    Args:
        config: the test file.
        chosen: this one; None: every checkpoint*.pt of the run folder (the folder part of eval.save_path) by
            updates, then fairseq.common_eval.path.
        every: those besides `chosen`.

    Raises:
        FileNotFoundError: a named file, or any checkpoint at all, is missing.
    """
    found = []
    folder = Path(os.path.dirname(config.eval.save_path or ""))
    if every or chosen is None:
        found += in_order(folder.glob("checkpoint*.pt"))
    named = chosen or config.trainer.path
    if named is not None:
        if not os.path.isfile(named):
            key = "--checkpoint" if chosen else "fairseq.common_eval.path"
            beside = ", ".join(sorted(path.name for path in Path(named).parent.glob("*.pt")))
            cure = f"{Path(named).parent} holds {beside}." if beside else "Train first, or pass --checkpoint."
            raise FileNotFoundError(f"{config.source}: {key}={named}: no such file. {cure} {remedy(named)}")
        found.append(Path(named))
    if not found:
        raise FileNotFoundError(
            f"{config.source}: no checkpoint*.pt in {folder} and no fairseq.common_eval.path; pass "
            "--checkpoint."
        )
    return list({path.resolve(): path for path in found}.values())


def labels(checkpoints: Iterable[Path | None], unnamed: str = UNTRAINED) -> dict[str, Path | None]:
    """A folder name for each checkpoint: its stem, with the folder's name before it where stems repeat;
    None is `unnamed`."""
    named: dict[str, Path | None] = {}
    for path in checkpoints:
        label = unnamed if path is None else path.stem
        named[f"{path.resolve().parent.name}_{label}" if label in named and path is not None else label] = (
            path
        )
    return named


class Evaluation:
    """Test data, predictor and metric of one project file, for any number of checkpoints and models.

    Args:
        config: a project file, or what is in one.
        overrides: `section.key=value` texts merged last.
        device: see `mmpt.utils.device`.
        progress: wrapped round the batches.
    """

    def __init__(
        self,
        config: str | Path | Config | Mapping[str, Any],
        overrides: Iterable[str] = (),
        device: str = "auto",
        progress: Progress = iter,
    ):
        self.config = as_config(config, overrides)
        load_plugins(self.config.plugins)
        self.device, self.progress = choose_device(device), progress
        if self.config.dataset.videos is not None:
            if world_size() > 1:
                what = "features of videos are made by one process."
                cure = "Leave out --nproc, or make them first."
                raise ConfigError([Problem("dataset.videos", what, cure=cure, file=self.config.source)])
            self.config = with_features(self.config, self.device)
        self.dataset = build_dataset(self.config, "test")
        for key, known in ("baselines", BASELINES), ("probes", PROBES), ("post_processing", POST_PROCESSING):
            unknown = [name for name in getattr(self.config.eval, key) if name not in known]
            if unknown:
                problem = f"expected some of {', '.join(known)}, got {', '.join(unknown)}."
                raise ConfigError([Problem(f"eval.{key}", problem, file=self.config.source)])
        trainer = self.config.trainer
        self.loader = DataLoader(
            self.dataset,
            batch_sampler=DealtOut(len(self.dataset), trainer.batch_size or 1),
            num_workers=trainer.num_workers or 0,
            collate_fn=self.dataset.collate,
        )
        tokenizer = getattr(self.dataset.text_processor, "tokenizer", None)
        self.evaluator = Evaluator(self.config, tokenizer=tokenizer)
        self.settings = to_dict(self.config)
        self.data = describe_data(self.settings.get("dataset", {}))
        for entry in self.data:
            if entry["key"] == "vfeat_dir" and "entries" in entry:
                entry["passports"] = [passport for passport in passports_of(entry["path"]) if passport]

    @property
    def brings_weights(self) -> bool:
        """The model needs no checkpoint."""
        return getattr(MODELS.get(self.config.model.model_cls), "brings_weights", False)

    @property
    def unnamed(self) -> str:
        """What the model without a checkpoint is called."""
        return PRETRAINED if self.brings_weights else UNTRAINED

    @property
    def out(self) -> Path:
        """Where the reports of a test file belong; those of models that share it, in folders of their own."""
        folder = Path(self.config.eval.save_path or SAVE_PATH)
        if self.brings_weights:
            folder /= slug(required(self.config, "dataset.bert_name"))
        return folder / Path(self.config.source).stem

    def __call__(
        self,
        checkpoint: str | Path | None = None,
        out: str | Path | None = None,
        *,
        plots: bool = False,
        save_predictions: bool = False,
    ) -> Report:
        """Evaluate one checkpoint (None: the model as initialised) and write its report into `out`."""
        model, provenance = self.load(checkpoint)
        result, arrays = self.score(model)
        for name, baseline in self.baselines(checkpoint).items():
            result.baselines[name] = self.score(baseline)[0].values
        for name in self.config.eval.probes:
            add_probe(result, name, self.score(model, name)[0])
        drawn: list[Path] = []
        out = out if rank() == 0 else None  # every rank has the numbers, and one writes them
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            if save_predictions:
                save_arrays(Path(out) / "predictions.npz", arrays)
            self._write_files(Path(out), arrays)
            drawn = self.evaluator.metric.plot(Path(out), result, **arrays) if plots else []
        report = Report(
            name=f"{self.config.source}: {Path(out).name if out else checkpoint or self.unnamed}",
            result=result,
            checkpoint=provenance,
            data=self.data,
            missing=self.dataset.meta_processor.missing,
            missing_queries=self.missing_queries(result, arrays),
            settings=self.settings,
            warnings=self.warnings(provenance, model),
            plots=[path.name for path in drawn],
        )
        if out is not None:
            report.write(out)
        return report

    def score(self, model: nn.Module, probe: str | None = None) -> tuple[Result, dict[str, Any]]:
        """Numbers of a model, on batches that a probe has changed where one is named, and the arrays behind
        them."""
        batches = self.loader if probe is None else Probed(probe, self.loader)
        return self.evaluator.evaluate(model, batches, self.device, self.progress)

    def predict(self, checkpoint: str | Path | None, out: str | Path) -> Path:
        """Run the predictor alone and keep its arrays as `predictions.npz` in the folder `out`."""
        model, _ = self.load(checkpoint)
        path = Path(out) / "predictions.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = self.evaluator.predictor(self.loader, model, self.device, self.progress)
        save_arrays(path, arrays)
        self._write_files(path.parent, arrays)
        return path

    def _write_files(self, folder: Path, arrays: Mapping[str, Any]) -> None:
        for name, contents in self.evaluator.metric.files(**arrays).items():
            with atomic_write(folder / name, "w") as file:
                json.dump(contents, file, indent=1)

    def load(self, checkpoint: str | Path | None) -> tuple[nn.Module, dict[str, Any]]:
        """A fresh model, so that no tensor is left over from the checkpoint before, and where its weights
        come from; the file is opened once."""
        if checkpoint is None:
            model = self._initialised(self.config)
            if not self.brings_weights:
                return model, {}
            verdict = "the published model, whole"
            return model, {"path": model.source, "sha256": model.checksum, "missing": [], "verdict": verdict}
        path = Path(checkpoint)
        contents = read_file(path, with_sha256=True)
        model = self._initialised(dataclasses.replace(self.config, model=self.config.model.without_weights()))
        loaded = fit_state_dict(model, contents.weights, path, contents.stripped)
        return model, {
            "path": str(checkpoint),
            "sha256": contents.sha256,
            "training": description(contents, path),
            **dataclasses.asdict(loaded),
        }

    @staticmethod
    def _initialised(config: Config) -> nn.Module:
        """The same weights each time where they are drawn, and no trace of that in the caller's draws."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.trainer.run_seed)
            return build_model(config)

    def baselines(self, checkpoint: str | Path | None) -> dict[str, nn.Module]:
        """The models of `eval.baselines`, fitted to the pairs that the checkpoint was trained on.

        Raises:
            ConfigError: nothing says what the checkpoint was trained on.
        """
        names = self.config.eval.baselines
        if not names:
            return {}
        training = self.training_of(checkpoint)
        load_plugins(training.plugins)
        fitted = {}
        for name in names:
            model = MODELS.get(BASELINES[name])(training)
            prepare(model, training_pairs(build_dataset(training, "train"), BASELINE_PAIRS, BASELINE_EPOCHS))
            fitted[name] = model
        return fitted

    def training_of(self, checkpoint: str | Path | None) -> Config:
        """The project that trained a checkpoint: `eval.baseline_project`, or what its file or folder says."""
        if self.config.eval.baseline_project:
            return as_config(self.config.eval.baseline_project)
        tree = project_of(checkpoint) if checkpoint is not None else {}
        if not tree:
            what = f"{checkpoint or 'an untrained model'} does not say what it was trained on."
            cure = "Name the project file that trained it."
            raise ConfigError([Problem("eval.baseline_project", what, cure=cure, file=self.config.source)])
        return as_config(tree)

    def missing_queries(self, result: Result, arrays: Mapping[str, Any]) -> int | None:
        """How many queries the items left out stand for: one each, or one for all items of a video where
        videos are asked for."""
        missing = [video for videos in self.dataset.meta_processor.missing.values() for video in videos]
        ids = result.per_query.get("ids", ())
        if 0 < len(ids) == len(set(ids)) and set(ids) <= set(arrays.get("video_ids", ())):
            return len(set(missing))
        return len(missing) if len(ids) == len(self.dataset) else None

    def warnings(self, provenance: Mapping[str, Any], model: nn.Module) -> list[str]:
        """What is wrong with the features and with the checkpoint, as far as they say it themselves."""
        found = []
        for entry in self.data:
            found += wrong_rate(entry["path"], entry.get("passports", ()))
        if provenance:
            path = provenance["path"]
            found += sanity.unloaded_layers(path, provenance["missing"])
            found += sanity.unset_batch_norm(path, model)
        return found


def add_probe(result: Result, name: str, found: Result) -> None:
    """The main measure of a result on the batches of a probe, as the measure `probe_<name>` of another."""
    for statistic in ("R1", "R5", "R10", "MR"):
        result.values[f"probe_{name}-{statistic}"] = found.values[statistic]
        if statistic in found.intervals:
            result.intervals[f"probe_{name}-{statistic}"] = found.intervals[statistic]
    result.per_query[f"ranks_probe_{name}"] = found.per_query["ranks"]


def best_of(reports: Mapping[str, Report]) -> str:
    """The label of the report with the best number."""
    return max(reports, key=lambda label: reports[label].result.best)


def write_summary(out: str | Path, reports: Mapping[str, Report]) -> None:
    """`out`/results.json: the numbers of every checkpoint and which is best."""
    numbers = {
        label: {"values": report.result.values, "report": f"{label}/results.json"}
        for label, report in reports.items()
    }
    with atomic_write(Path(out) / "results.json", "w") as file:
        json.dump({"best": best_of(reports), "checkpoints": numbers}, file, indent=2)
