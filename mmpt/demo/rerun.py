"""Cells of a main job's record computed anew, from the weights that it names by checksum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.api.evaluation import Evaluation
from mmpt.config import Config, required
from mmpt.config.load import as_config
from mmpt.demo.main_job import MainJob, configured
from mmpt.demo.report import add_roles, role_twins
from mmpt.evaluators.records import CONFIGS, PER_QUERY, RECORD, cells, derive, read_record
from mmpt.models import build_model
from mmpt.utils.files import file_sha256
from mmpt.utils.text import read_json


def rerun(folder: str | Path, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Evaluate the models behind some cells again.

    Args:
        folder: of the record.
        count: of cells, drawn among those of trained rows.
        seed: of the draw.

    Yields:
        (what a cell says and what it is now, what is wrong or ""). A cell agrees where its text is the same.

    Raises:
        FileNotFoundError: weights, or the data, are not on this machine.
        ValueError: the weights here are not those of the record.
    """
    folder = Path(folder)
    record = read_record(folder)
    if "settings" not in record:  # of a study or a benchmark, which are no main job
        yield f"{folder}: no single models to evaluate; make it anew: {record['command']}", ""
        return
    numbers, configs = (read_json(folder / name, dict, nan=True) for name in (PER_QUERY, CONFIGS))
    job = MainJob(**record["settings"])
    trained = [(title, spec) for title, spec in cells(folder) if spec["row"] in record["weights"]]
    drawn = np.random.default_rng(seed).permutation(len(trained))[:count]
    chosen = [trained[i][1] for i in sorted(drawn)]
    for row, test in dict.fromkeys((spec["row"], spec["test"]) for spec in chosen):
        config = as_config(configs[row])
        path = config.save_dir / "checkpoint_last.pt"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: the weights of {row!r} are not here. Make them: {record['command']}"
            )
        said, there = record["weights"][row]["sha256"], file_sha256(path)
        if said != there:
            raise ValueError(
                f"{path}: its sha256 is {there}, that of {row!r} in {folder / RECORD} is {said}."
            )
        found = {row: {test: _per_query(job, config, path, test)}}
        for spec in (spec for spec in chosen if (spec["row"], spec["test"]) == (row, test)):
            old, new = numbers[row][test][spec["measure"]], found[row][test][spec["measure"]]
            differ = int(np.sum(np.asarray(old) != np.asarray(new)))
            text = derive(spec, found)
            name = ", ".join(str(spec[key]) for key in ("row", "test", "measure", "statistic"))
            line = f"{name}: {spec['text']} in the record, {text} now; {differ} of {len(old)} queries differ"
            yield line, "" if text == spec["text"] else f"{folder / RECORD}: {line}."


def _per_query(job: MainJob, config: Config, weights: Path, test: str) -> dict[str, Any]:
    evaluation = Evaluation(configured(f"test_{test}_zs", job), device="cpu")
    result, arrays = evaluation.score(build_model(config, weights))
    if test == "youcook":
        add_roles(result, arrays, *role_twins(required(evaluation.config, "dataset.test_path"), job.data))
    return result.per_query
