"""What a run has logged, as one history: what a restart did again counts once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.config import ConfigError
from mmpt.utils.text import check_record, parse_json, read_text


class Job(NamedTuple):
    """On what a job of a run trained.

    Attributes:
        processes: all of them.
        threads: of each, which sums on the CPU depend on.
        cpu: without a GPU.
        changes: `section.key=value` texts, by which its settings differ from config.yaml.
    """

    processes: int
    threads: int
    cpu: bool
    changes: tuple[str, ...] = ()


@dataclass
class RunLog:
    """`metrics.jsonl` of a run.

    Attributes:
        folder: of the run.
        starts: update at which a job began -> the job; an abandoned stretch is left out.
        lines: update -> what was logged of it, the last time it was made.
    """

    folder: Path
    starts: dict[int, Job] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def hashes(self) -> dict[int, str]:
        """Update -> hash of its gradient, where it was logged."""
        return {update: line["grad_hash"] for update, line in self.lines.items() if "grad_hash" in line}

    def segments(self, first: int, last: int) -> list[tuple[int, int, Job]]:
        """(from, to, job) of what made the updates after `first` up to `last`.

        A job that was killed and started again as it was counts as one: a restart changes nothing.
        """
        own = max(update for update in self.starts if update <= first)
        found = [(first, self.starts[own])]
        for update in sorted(update for update in self.starts if first < update < last):
            if self.starts[update] != found[-1][1]:
                found.append((update, self.starts[update]))
        ends = [*(begin for begin, _ in found[1:]), last]
        return [(begin, end, job) for (begin, job), end in zip(found, ends, strict=True)]


def read_log(run: str | Path) -> RunLog:
    """The history of a run folder.

    Raises:
        ConfigError: it is no run folder, or one of an earlier version, whose log does not say where it
            starts.
        TextError: a line is damaged; the message names it.
    """
    log = RunLog(Path(run))
    path = log.folder / "metrics.jsonl"
    if not path.is_file() or not (log.folder / "config.yaml").is_file():
        raise ConfigError(
            f"{log.folder} is no run folder: it lacks config.yaml or metrics.jsonl, which training writes."
        )
    *whole, _ = read_text(path).split("\n")  # a killed job cuts the last line
    for number, text in enumerate(whole, 1):
        where = f"{path}, line {number}"
        line = check_record(parse_json(text, where, nan=True), where)
        if line.get("tag") == "start":
            check_record(line, where, update=int, processes=int, threads=int, cpu=bool, changes=dict)
            log.starts = {update: job for update, job in log.starts.items() if update < line["update"]}
            log.lines = {update: old for update, old in log.lines.items() if update <= line["update"]}
            changes = (f"{key}={json.dumps(value)}" for key, value in line["changes"].items())
            job = Job(line["processes"], line["threads"], line["cpu"], tuple(changes))
            log.starts[line["update"]] = job
        elif line.get("tag") == "train_inner":
            log.lines[check_record(line, where, update=int)["update"]] = line
    if not log.starts:
        raise ConfigError(
            f"{path} does not say where the run starts: an earlier version has written it, or no update was "
            "made. Only runs of this version can be replayed."
        )
    return log
