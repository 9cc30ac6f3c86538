"""Evaluate checkpoints on a test set.

    python mmpt_cli/predict.py projects/retri/norton/test_youcook_zs.yaml
    python mmpt_cli/predict.py CONFIG --checkpoint runs/retri/norton/checkpoint_best.pt --device cpu --output
    runs/eval

Without --checkpoint: every checkpoint*.pt of the run folder (the folder part of eval.save_path) by name, then
fairseq.common_eval.path. For each: results.json, results.md and per_query.npz under OUTPUT/<checkpoint>/,
with --plots also pictures; OUTPUT/results.json sums up.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mmpt.checkpoints.weights import load_weights
from mmpt.config import Config, load_config
from mmpt.config.rundir import to_dict
from mmpt.datasets import build_dataset
from mmpt.evaluators import Evaluator, Report, Result, sanity, save_arrays
from mmpt.evaluators.report import describe_data
from mmpt.models import build_model
from mmpt.processors.store.passport import passports_of, wrong_rate
from mmpt.registry import load_plugins
from mmpt.utils.files import atomic_write, file_sha256
from mmpt.utils.log import short_errors
from mmpt_cli.checkpoint import describe

UNTRAINED = "untrained"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="project file with `predictor` and `metric`")
    parser.add_argument("--checkpoint", help="evaluate this file only (with --all: this one too)")
    parser.add_argument(
        "--all",
        action="store_true",
        help="every checkpoint*.pt of the run folder; the default without --checkpoint",
    )
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="evaluate the model as initialised, without weights from a file",
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:N, or auto: a GPU where there is one"
    )
    parser.add_argument(
        "--output", help="folder of the reports (default: <eval.save_path>/<name of the config>)"
    )
    parser.add_argument(
        "--predict-only", action="store_true", help="run the predictor and keep its arrays; no metric"
    )
    parser.add_argument(
        "--save-predictions", action="store_true", help="keep the predictor's arrays as predictions.npz"
    )
    parser.add_argument(
        "--plots", action="store_true", help="draw ranks, scores, alignments, timelines (needs matplotlib)"
    )
    parser.add_argument(
        "--modalities",
        metavar="TV,TVA",
        help="subsets that an N-modal test compares: t and first letters of modalities",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="overwrite a key of the project file"
    )
    return parser.parse_args(argv)


def find_checkpoints(config: Config, chosen: str | None, every: bool) -> list[Path]:
    """Checkpoints in order of evaluation, each once.

    Raises:
        FileNotFoundError: a named file, or any checkpoint at all, is missing.
    """
    found = []
    folder = Path(os.path.dirname(config.eval.save_path or ""))
    if every or chosen is None:
        found += sorted(folder.glob("checkpoint*.pt"))
    named = chosen or config.fairseq.get("common_eval", {}).get("path")
    if named is not None:
        if not os.path.isfile(named):
            key = "--checkpoint" if chosen else "fairseq.common_eval.path"
            raise FileNotFoundError(
                f"{config.source}: {key}={named}: no such file. Train first, fetch the weights, or pass "
                "--checkpoint."
            )
        found.append(Path(named))
    if not found:
        raise FileNotFoundError(
            f"{config.source}: no checkpoint*.pt in {folder} and no fairseq.common_eval.path; pass "
            "--checkpoint."
        )
    return list({path.resolve(): path for path in found}.values())


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(
            "--device cuda: torch sees no GPU here; use --device cpu, or --device auto to take what is there."
        )
    return torch.device(name)


def show_progress(loader: DataLoader) -> Iterator[Any]:
    """Count batches on the terminal; silent where the output is a file."""
    for done, batch in enumerate(loader, start=1):
        yield batch
        if sys.stderr.isatty():
            print(
                f"\rbatch {done}/{len(loader)}",
                end="\n" if done == len(loader) else "",
                file=sys.stderr,
                flush=True,
            )


class Evaluation:
    """Test data, metric and output folder of one project file; calling it evaluates one checkpoint."""

    def __init__(self, config: Config, args: argparse.Namespace):
        self.config, self.args = config, args
        self.device = choose_device(args.device)
        self.output = Path(
            args.output or Path(config.eval.save_path or "runs/eval") / Path(config.source).stem
        )
        self.dataset = build_dataset(config, "test")
        options = config.fairseq.get("dataset", {})
        self.loader = DataLoader(
            self.dataset,
            batch_size=options.get("batch_size", 1),
            num_workers=options.get("num_workers", 0),
            collate_fn=self.dataset.collate,
        )
        self.evaluator = Evaluator(config, tokenizer=getattr(self.dataset.text_processor, "tokenizer", None))
        self.settings = to_dict(config)
        self.data = describe_data(self.settings.get("dataset", {}))
        for entry in self.data:
            if entry["key"] == "vfeat_dir" and "entries" in entry:
                entry["passports"] = [passport for passport in passports_of(entry["path"]) if passport]

    def __call__(self, checkpoint: Path | None, label: str) -> Report | None:
        """Evaluate, write the files under `label`; None when only predictions are wanted."""
        model, provenance = self.load(checkpoint)
        folder = self.output / label
        folder.mkdir(parents=True, exist_ok=True)
        if self.args.predict_only:
            save_arrays(
                folder / "predictions.npz",
                self.evaluator.predictor(self.loader, model, self.device, show_progress),
            )
            return None
        result, arrays = self.evaluator.evaluate(model, self.loader, self.device, show_progress)
        if self.args.save_predictions:
            save_arrays(folder / "predictions.npz", arrays)
        plots = self.evaluator.metric.plot(folder, result, **arrays) if self.args.plots else []
        report = Report(
            name=f"{self.config.source}: {label}",
            result=result,
            checkpoint=provenance,
            data=self.data,
            missing=self.dataset.meta_processor.missing,
            missing_queries=self.missing_queries(result, arrays),
            settings=self.settings,
            warnings=self.warnings(provenance, model),
            plots=[path.name for path in plots],
        )
        report.write(folder)
        return report

    def missing_queries(self, result: Result, arrays: dict[str, Any]) -> int | None:
        """How many queries the items left out stand for: one each, or one for all items of a video where
        videos are asked for."""
        missing = [video for videos in self.dataset.meta_processor.missing.values() for video in videos]
        ids = result.per_query.get("ids", ())
        if 0 < len(ids) == len(set(ids)) and set(ids) <= set(arrays.get("video_ids", ())):
            return len(set(missing))
        return len(missing) if len(ids) == len(self.dataset) else None

    def warnings(self, provenance: dict[str, Any], model: torch.nn.Module) -> list[str]:
        """What is wrong with the features and with the checkpoint, as far as they say it themselves."""
        found = []
        for entry in self.data:
            found += wrong_rate(entry["path"], entry.get("passports", ()))
        if provenance:
            path = provenance["path"]
            found += sanity.unloaded_layers(path, provenance["missing"])
            found += sanity.unset_batch_norm(path, model)
        return found

    def load(self, checkpoint: Path | None) -> tuple[torch.nn.Module, dict[str, Any]]:
        """A fresh model, so that no tensor is left over from the checkpoint before, and where its weights
        come from."""
        if checkpoint is None:
            return build_model(self.config), {}
        config = dataclasses.replace(
            self.config, model=dataclasses.replace(self.config.model, init="random", init_from=None)
        )
        model = build_model(config)
        loaded = load_weights(model, checkpoint)
        training = describe(checkpoint)
        return model, {
            "path": str(checkpoint),
            "sha256": file_sha256(checkpoint),
            "training": training,
            **dataclasses.asdict(loaded),
        }


def labels(checkpoints: Iterable[Path | None]) -> dict[str, Path | None]:
    """A folder name for each checkpoint: its stem, with the folder's name before it where stems repeat."""
    named: dict[str, Path | None] = {}
    for path in checkpoints:
        label = UNTRAINED if path is None else path.stem
        named[f"{path.resolve().parent.name}_{label}" if label in named and path is not None else label] = (
            path
        )
    return named


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    short_errors()
    subsets = [f"eval.modalities=[{args.modalities}]"] if args.modalities else []
    config = load_config(args.config, [*args.set, *subsets])
    load_plugins(config.plugins)
    checkpoints = [None] if args.untrained else find_checkpoints(config, args.checkpoint, args.all)
    evaluation = Evaluation(config, args)
    print(
        f"{args.config}: {len(evaluation.dataset)} test items, device {evaluation.device}, "
        f"{len(checkpoints)} checkpoint(s)"
    )
    reports: dict[str, Report] = {}
    for label, path in labels(checkpoints).items():
        report = evaluation(path, label)
        print(f"\n{path or UNTRAINED}")
        if report is not None:
            print(report.text())
            reports[label] = report
    if reports:
        best = max(reports, key=lambda label: reports[label].result.best)
        print(f"\nbest results:\n{reports[best].checkpoint.get('path', UNTRAINED)}\n{reports[best].text()}")
        write_summary(evaluation.output, reports, best)
    print(f"\nwritten to {evaluation.output}")


def write_summary(output: Path, reports: dict[str, Report], best: str) -> None:
    """OUTPUT/results.json: the numbers of every checkpoint and which is best."""
    numbers = {
        label: {"values": report.result.values, "report": f"{label}/results.json"}
        for label, report in reports.items()
    }
    with atomic_write(output / "results.json", "w") as file:
        json.dump({"best": best, "checkpoints": numbers}, file, indent=2)


if __name__ == "__main__":
    main()
