"""What a comparison file says: which losses are trained on which worlds with which seeds, and what is
measured.

losses:  # project files; a map gives a row another name and changes keys of its file
  - projects/toy/losses/norton.yaml
  - {name: low rate, project: projects/toy/losses/norton.yaml, set: {fairseq.optimization.lr: [1.0e-4]},
     noise: [moderate]}
# common start; without it every loss starts from random weights
start: {project: projects/toy/videoclip.yaml, updates: 200}
updates: 150                             # of each loss
size: small                              # of the synthetic world
noise: [moderate, {name: late, preset: moderate, offset_s: 12}]      # presets, or knobs on top of a preset
seeds: [1, 2, 3]
tests: {clips: projects/toy/test_youcook_zs.yaml}  # without it those of text-to-clip and full-video retrieval
columns: {clip: [clips/R1, clips/cosine-R1]}                   # head: test/measure, or two that share a cell
cells: [dot product, cosine]             # what the measures of a cell are called
drawn: [clip]                            # columns of the figure; all
lines: losses                            # what a mark of the figure is, a loss or one of the columns
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mmpt.config import Config, load_config
from mmpt.config.fields import Reader
from mmpt.config.rundir import to_dict
from mmpt.config.yamlfile import ConfigError, read_yaml
from mmpt.demo.toy_runs import data_fingerprint, move_folders, set_length
from mmpt.synthetic.settings import NOISE, SIZES, Settings

START = "start"  # row and folder of what all losses start from
OTHER_BATCHES = 1000  # added to the seed of a loss, which would meet the batches of its start again
TOY = "data/toy"  # where project files look for the synthetic world
TESTS = {
    "clips": "projects/toy/test_youcook_zs.yaml",
    "videos": "projects/toy/test_youcook_fullvideo_zs.yaml",
    "videos_background": "projects/toy/test_youcook_fullvideo_bg_zs.yaml",
}
COLUMNS = {  # by dot product and by cosine of centred embeddings
    "clip": ["clips/R1", "clips/cosine-R1"],
    "video DTW": ["videos/DTW-R1", "videos/cosine-DTW-R1"],
    "video OTAM": ["videos/OTAM-R1", "videos/cosine-OTAM-R1"],
    "+ background DTW": ["videos_background/DTW-R1", "videos_background/cosine-DTW-R1"],
    "+ background OTAM": ["videos_background/OTAM-R1", "videos_background/cosine-OTAM-R1"],
}
DRAWN = ["clip", "video DTW", "+ background DTW"]


@dataclass(frozen=True)
class Entry:
    """A project file with changes, under a name."""

    name: str
    project: str
    changes: tuple[str, ...] = ()  # `--set` texts
    noise: tuple[str, ...] | None = None  # the worlds it is run on; None: all

    @classmethod
    def read(cls, where: str, entry: str | Mapping[str, Any], name: str | None = None) -> Entry:
        """From a path, or a map with project and, at will, name, set and noise.

        Raises:
            ConfigError: another form.
        """
        tree = {"project": entry} if isinstance(entry, str) else dict(entry)
        unknown = set(tree) - {"name", "project", "set", "noise"}
        if unknown or not isinstance(tree.get("project"), str):
            raise ConfigError(
                f"{where}: {entry}: expected a project file, or a map of project and, at will, name, set, "
                "noise."
            )
        changes = tuple(
            f"{key}={'null' if value is None else value}" for key, value in (tree.get("set") or {}).items()
        )
        return cls(
            tree.get("name") or name or Path(tree["project"]).stem,
            tree["project"],
            changes,
            tree.get("noise") and (*tree["noise"],),
        )

    def config(self, data: str | Path, further: tuple[str, ...] = ()) -> Config:
        """The project on the synthetic world in a folder."""
        return load_config(
            self.project, [*move_folders(self.project, {TOY: str(data)}), *further, *self.changes]
        )


def world(noise: str | Mapping[str, Any], size: str) -> tuple[str, Settings]:
    """Name and settings of a synthetic world: a preset, or a map with a name, a preset and knobs."""
    knobs = {"preset": noise, "name": noise} if isinstance(noise, str) else dict(noise)
    preset, name = knobs.pop("preset", "moderate"), knobs.pop("name", None)
    if preset not in NOISE or name is None:
        raise ConfigError(
            f"noise: {noise}: expected one of {', '.join(NOISE)}, or a map with a name, a preset of "
            "these, and knobs."
        )
    return name, Settings(size=SIZES[size], noise=NOISE[preset]).with_knobs(knobs)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison file; see the head of this module."""

    losses: list[Any]
    updates: int
    start: Mapping[str, Any] | None = None
    size: str = "small"
    noise: list = field(default_factory=lambda: ["moderate"])
    seeds: list[int] = field(default_factory=lambda: [1])
    tests: Mapping[str, Any] = field(default_factory=lambda: TESTS)
    columns: Mapping[str, Any] = field(default_factory=lambda: COLUMNS)
    cells: list[str] = field(default_factory=lambda: ["dot product", "cosine"])
    drawn: list[str] | None = None
    lines: str = "losses"
    data: str = "data/compare"
    out: str = "runs/compare"
    path: str = ""  # of the file

    @classmethod
    def load(cls, path: str) -> Comparison:
        """Read a file.

        Raises:
            ConfigError: an unknown or missing key, a wrong type or name; each with what is expected.
        """
        tree = read_yaml(Path(path))
        missing = [f.name for f in fields(cls) if f.name in ("losses", "updates") and not tree.get(f.name)]
        if missing or not {"project", "updates"} <= set(tree.get("start", ("project", "updates"))):
            raise ConfigError(
                f"{path}: needs losses and updates, and a start its project and updates; incomplete: "
                f"{missing or 'start'}."
            )
        reader = Reader(lambda key: path)
        comparison = reader.section(cls, tree)
        if comparison is None or reader.problems:
            raise ConfigError(reader.problems)
        comparison._check(path)
        return replace(comparison, path=path)

    def _check(self, path: str) -> None:
        if self.size not in SIZES or self.lines not in ("losses", "columns"):
            key, known = ("size", SIZES) if self.size not in SIZES else ("lines", ("losses", "columns"))
            raise ConfigError(f"{path}: {key}: {getattr(self, key)}: expected one of {', '.join(known)}.")
        worlds = [self.world(noise)[0] for noise in self.noise]
        for key, names in ("noise", worlds), ("losses", [row.name for row in self.rows.values()]):
            if len(set(names)) < len(names) or len(names) < len(getattr(self, key)):
                raise ConfigError(
                    f"{path}: {key}: two entries are called alike. Each needs a name of its own."
                )
        for row in self.rows.values():
            if not set(row.noise or ()) <= set(worlds):
                raise ConfigError(
                    f"{path}: losses: {row.name}: noise: expected some of {', '.join(worlds)}, got "
                    f"{', '.join(row.noise)}."
                )
        tests = {measure.partition("/")[0] for head in self.columns for measure in self.measures(head)}
        if not tests <= set(self.tests) or not set(self.drawn or ()) <= set(self.columns):
            raise ConfigError(
                f"{path}: columns name tests of {', '.join(self.tests)}, drawn names columns; correct one "
                "of them."
            )

    def world(self, noise: str | Mapping[str, Any]) -> tuple[str, Settings]:
        """Name and settings of the synthetic world of one entry of `noise`."""
        return world(noise, self.size)

    @property
    def rows(self) -> dict[str, Entry]:
        """Row -> what is trained."""
        return {entry.name: entry for entry in (Entry.read("losses", loss) for loss in self.losses)}

    @property
    def test_entries(self) -> dict[str, Entry]:
        """Test -> what is measured."""
        return {name: Entry.read("tests", test, name) for name, test in self.tests.items()}

    def measures(self, head: str) -> list[str]:
        """`test/measure` of a column, one or two."""
        entry = self.columns[head]
        return [entry] if isinstance(entry, str) else list(entry)

    @property
    def measure_names(self) -> list[str]:
        """`cells`; empty where every cell holds one measure."""
        return self.cells if any(len(self.measures(head)) > 1 for head in self.columns) else []

    @property
    def drawn_columns(self) -> list[str]:
        """Heads of the columns in the figure."""
        return self.drawn or (DRAWN if self.columns == COLUMNS else list(self.columns))


@dataclass(frozen=True)
class Run:
    """One training run: a loss (or the start of all) on one world with one seed."""

    comparison: Comparison
    row: str
    noise: str
    seed: int

    @property
    def entry(self) -> Entry:
        if self.row != START:
            return self.comparison.rows[self.row]
        return Entry.read(
            START, {key: value for key, value in self.comparison.start.items() if key != "updates"}, START
        )

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

    def overrides(self) -> tuple[str, ...]:
        """`--set` texts: this run's folders, seed and length; nothing but the last checkpoint is written."""
        has_start = self.comparison.start is not None and self.row != START
        start = Run(self.comparison, START, self.noise, self.seed).checkpoint if has_start else "null"
        checkpoint = {
            "save_dir": self.folder,
            "restore_file": start,
            "save_interval_updates": max(1, self.updates // 2),
        }
        checkpoint |= {f"reset_{part}": "true" for part in ("optimizer", "dataloader", "meters") if has_start}
        return (
            *move_folders(self.entry.project, {TOY: str(self.data)}),
            *set_length(self.updates),
            *(f"fairseq.checkpoint.{key}={value}" for key, value in checkpoint.items()),
            f"fairseq.common.seed={self.seed + OTHER_BATCHES * has_start}",
            "fairseq.dataset.disable_validation=true",
            *self.entry.changes,
        )

    def settings(self) -> dict[str, Any]:
        """All that the result depends on."""
        config = to_dict(load_config(self.entry.project, self.overrides()))
        return {"config": config, "data": data_fingerprint(self.data)}

    def result(self) -> dict[str, Any] | None:
        """What an earlier call left; None where the run is not done."""
        path = self.folder / "results.json"
        return json.loads(path.read_text()) if path.is_file() else None


def runs(comparison: Comparison) -> Iterator[Run]:
    """Every run, a start before what starts from it."""
    for seed in comparison.seeds:
        for noise in (comparison.world(entry)[0] for entry in comparison.noise):
            rows = [row.name for row in comparison.rows.values() if row.noise is None or noise in row.noise]
            for row in rows if comparison.start is None else [START, *rows]:
                yield Run(comparison, row, noise, seed)
