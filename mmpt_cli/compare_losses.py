"""Train each loss from the same start, for the same updates and seeds, on the embedded data, and print one table.

    python -m mmpt_cli.compare_losses projects/toy/compare.yaml
    python -m mmpt_cli.compare_losses projects/toy/compare.yaml --report     # the table of what is there, no training
    python -m mmpt_cli.compare_losses projects/toy/compare.yaml --report --docs docs/compare_losses.md

Seeds come last: as soon as the first seed is through, there is a table of all losses and all noises. What is done is not done again, so a
run that was stopped goes on, and a list that grew is filled up. Writes results.json, results.md and results.png into the output folder.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import logging
import sys
import time
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from mmpt.config import load_config
from mmpt.config.rundir import to_dict
from mmpt.config.yamlfile import ConfigError, read_yaml
from mmpt.synthetic.build import build_world
from mmpt.synthetic.settings import NOISE, SIZES, Settings
from mmpt.utils.files import atomic_write
from mmpt.utils.log import short_errors
from mmpt_cli import training_process
from mmpt_cli.compare_losses_report import evaluate, step_costs, update_page, write_report
from mmpt_cli.localjob import LocalJob
from mmpt_cli.toy_runs import claim, data_fingerprint, finish, move_folders, set_length

START = "start"  # row and folder of what all losses start from


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison file."""

    losses: list[str]  # project files
    start: Mapping[str, Any]  # project: file, updates: how many
    updates: int  # of each loss
    size: str = "small"
    noise: list = field(default_factory=lambda: ["moderate"])
    seeds: list[int] = field(default_factory=lambda: [1])
    data: str = "data/compare"
    out: str = "runs/compare"

    @classmethod
    def load(cls, path: str) -> Comparison:
        """Read a file.

        Raises:
            ConfigError: an unknown or missing key, a wrong type, an unknown size or noise; each with what is expected.
        """
        tree, known = read_yaml(Path(path)), typing.get_type_hints(cls)
        for key, value in tree.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise ConfigError(f"{path}: {key}: unknown key; known: {', '.join(near or known)}.")
            expected = typing.get_origin(known[key]) or known[key]
            if not isinstance(value, expected):
                raise ConfigError(f"{path}: {key}: expected a {expected.__name__.lower()}, got {value!r}.")
        missing = [f.name for f in fields(cls) if f.name in ("losses", "start", "updates") and not tree.get(f.name)]
        if missing or set(tree["start"]) != {"project", "updates"}:
            wrong = missing or "start"
            raise ConfigError(f"{path}: needs losses, updates, and start with project and updates; missing or incomplete: {wrong}.")
        comparison = cls(**tree)
        if comparison.size not in SIZES:
            raise ConfigError(f"{path}: size: {comparison.size}: expected one of {', '.join(SIZES)}.")
        worlds = [comparison.world(noise)[0] for noise in comparison.noise]
        for key, names in ("noise", worlds), ("losses", list(map(row_name, comparison.losses))):
            if len(set(names)) < len(names):
                raise ConfigError(f"{path}: {key}: two entries are called alike: {', '.join(names)}. Each needs a name of its own.")
        return comparison

    def world(self, noise: str | Mapping[str, Any]) -> tuple[str, Settings]:
        """Name and settings of the embedded world of one entry of `noise`."""
        knobs = {"preset": noise, "name": noise} if isinstance(noise, str) else dict(noise)
        preset, name = knobs.pop("preset", "moderate"), knobs.pop("name", None)
        if preset not in NOISE or name is None:
            raise ConfigError(f"noise: {noise}: expected one of {', '.join(NOISE)}, or a map with a name, a preset of these, and knobs.")
        return name, Settings(size=SIZES[self.size], noise=NOISE[preset]).with_knobs(knobs)

    @property
    def rows(self) -> dict[str, str]:
        """Row -> project file."""
        return {row_name(path): path for path in self.losses}


def row_name(path: str) -> str:
    """What a loss is called: the name of its project file."""
    return Path(path).stem


@dataclass(frozen=True)
class Run:
    """One training run: a loss (or the start of all) on one world with one seed."""

    comparison: Comparison
    row: str
    noise: str
    seed: int

    @property
    def project(self) -> str:
        return self.comparison.start["project"] if self.row == START else self.comparison.rows[self.row]

    @property
    def updates(self) -> int:
        return self.comparison.start["updates"] if self.row == START else self.comparison.updates

    @property
    def data(self) -> Path:
        return Path(self.comparison.data) / self.noise

    @property
    def folder(self) -> Path:
        return Path(self.comparison.out) / self.noise / f"seed{self.seed}" / self.row

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint_last.pt"

    def overrides(self) -> list[str]:
        """`--set` texts: this run's folders, seed and length; nothing but the last checkpoint is written."""
        texts = [*move_folders(self.project, {"data/toy": str(self.data)}), *set_length(self.updates)]
        start = "null" if self.row == START else Run(self.comparison, START, self.noise, self.seed).checkpoint
        checkpoint = {"save_dir": self.folder, "restore_file": start, "save_interval_updates": max(1, self.updates // 2)}
        texts += [f"fairseq.checkpoint.{key}={value}" for key, value in checkpoint.items()]
        return [*texts, f"fairseq.common.seed={self.seed}", "fairseq.dataset.disable_validation=true"]

    def settings(self) -> dict[str, Any]:
        """All that the result depends on."""
        config = to_dict(load_config(self.project, self.overrides()))
        return {"config": config, "data": data_fingerprint(self.data)}

    def arguments(self, log: Path) -> list[str]:
        """Of train.py; what the launcher has to say about them goes to the log."""
        with open(log, "a") as file, contextlib.redirect_stdout(file):
            command = LocalJob(self.project, "local_single", overrides=tuple(self.overrides())).command().argv
        return command[2:]  # behind the interpreter and train.py

    def result(self) -> dict[str, Any] | None:
        """What `finish` of an earlier call left; None where the run is not done."""
        path = self.folder / "results.json"
        return json.loads(path.read_text()) if path.is_file() else None


def runs(comparison: Comparison) -> Iterator[Run]:
    """Every run, a start before what starts from it."""
    for seed in comparison.seeds:
        for noise in comparison.noise:
            for row in (START, *comparison.rows):
                yield Run(comparison, row, comparison.world(noise)[0], seed)


def perform(run: Run, server: ForkServerContext) -> bool:
    """Train and evaluate, unless both are done.

    Returns:
        Whether there was anything to do.

    Raises:
        SystemExit: training failed; shows the end of its log.
    """
    settings = run.settings()
    if not claim(run.folder, settings):
        return False
    log = run.folder / "train.log"
    code, peak_mib = training_process.start(server, run.arguments(log), log).wait()
    if code:
        end = log.read_text().splitlines()[-15:]
        raise SystemExit("\n".join([*end, f"error: {run.folder}: training ended with exit code {code}; see {log}."]))
    values = evaluate(run.checkpoint, run.data)
    with atomic_write(run.folder / "results.json", "w") as file:
        json.dump({"row": run.row, "noise": run.noise, "seed": run.seed, "peak_mib": peak_mib, "values": values}, file, indent=1)
    finish(run.folder, settings)
    return True


def costs(comparison: Comparison) -> dict[str, float]:
    """Milliseconds of CPU time per step of each row, measured once and kept."""
    path = Path(comparison.out) / "costs.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if set(kept) != set(comparison.rows):
        data = f"{comparison.data}/{comparison.world(comparison.noise[0])[0]}"
        configs = {row: load_config(file, move_folders(file, {"data/toy": data})) for row, file in comparison.rows.items()}
        kept = step_costs(configs)
        with atomic_write(path, "w") as file:
            json.dump(kept, file)
    return kept


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", help="comparison file, e.g. projects/toy/compare.yaml")
    parser.add_argument("--report", action="store_true", help="only write the table of the runs that are done")
    parser.add_argument("--docs", help="a page whose tables and figure (its name with .png) are brought up to date")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    short_errors()
    comparison = Comparison.load(args.comparison)
    plan = list(runs(comparison))
    if not args.report:
        for name, settings in map(comparison.world, comparison.noise):
            build_world(Path(comparison.data) / name, settings)
        server = training_process.server()
        for number, run in enumerate(plan, start=1):
            begin = time.perf_counter()
            done = perform(run, server)
            print(f"{number}/{len(plan)} {run.folder}: {f'{time.perf_counter() - begin:.0f} s' if done else 'done already'}", flush=True)
    results = [result for run in plan if (result := run.result())]
    if not results:
        raise SystemExit(f"error: {comparison.out} holds no finished run of this comparison. Start it without --report.")
    print(write_report(results, costs(comparison), asdict(comparison), Path(comparison.out)))
    if args.docs:
        update_page(Path(args.docs), Path(comparison.out))


if __name__ == "__main__":
    main()
