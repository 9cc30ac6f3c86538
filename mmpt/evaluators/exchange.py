"""Records in the formats of others (model-index of the Hugging Face hub, mteb, Every Eval Ever), and results
of mteb beside ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.evaluators.bootstrap import interval
from mmpt.evaluators.ranking import statistic
from mmpt.evaluators.records import PER_QUERY, SAMPLES, SEED, read_record
from mmpt.utils.text import check_record, number, read_json

RECALLS = {"recall_at_1": "R1", "recall_at_5": "R5", "recall_at_10": "R10"}  # theirs -> ours


def ranks_of_row(folder: str | Path, row: str) -> dict[str, np.ndarray]:
    """Test -> the ranks (queries,) of one row of a record, text to video.

    Raises:
        ValueError: there is no such row.
    """
    per_query = read_json(Path(folder) / PER_QUERY, dict, nan=True)
    if row not in per_query:
        raise ValueError(f"{folder}: no row {row!r}; it has {', '.join(per_query)}.")
    return {test: np.array(of["ranks"]) for test, of in per_query[row].items() if "ranks" in of}


def model_index(folder: str | Path, row: str, name: str) -> dict[str, Any]:
    """What a model card of the hub states as `model-index`."""
    results = [
        {
            "task": {"type": "text-to-video-retrieval"},
            "dataset": {"name": test, "type": test, "split": "test", "args": {"gallery": len(ranks)}},
            "metrics": [
                {"type": theirs, "value": float(statistic(ours)(ranks))} for theirs, ours in RECALLS.items()
            ],
        }
        for test, ranks in ranks_of_row(folder, row).items()
    ]
    return {"model-index": [{"name": name, "results": results}]}


def mteb_results(folder: str | Path, row: str, name: str) -> dict[str, Any]:
    """Test -> the result file that mteb writes for a task, with one right item a query."""
    galleries = read_record(folder)["protocol"]["gallery_sha256"]
    return {
        test: {
            "dataset_revision": galleries[test],
            "task_name": test,
            "mteb_version": "unknown",
            "scores": {"test": [_mteb_scores(ranks) | {"hf_subset": "default", "languages": ["eng-Latn"]}]},
            "evaluation_time": 0.0,
            "kg_co2_emissions": None,
        }
        for test, ranks in ranks_of_row(folder, row).items()
    }


def _mteb_scores(ranks: np.ndarray) -> dict[str, float]:
    scores = {theirs: float(statistic(ours)(ranks)) for theirs, ours in RECALLS.items()}
    scores["ndcg_at_10"] = float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0).mean())
    return scores | {"main_score": scores["ndcg_at_10"]}


def every_eval_ever(folder: str | Path, row: str, name: str) -> dict[str, Any]:
    """A record of Every Eval Ever, schema 0.3.0."""
    from mmpt import __version__

    record, now = read_record(folder), str(int(time.time()))
    weights = record.get("weights", {}).get(row, {})  # a row without training has none
    results = []
    for test, ranks in ranks_of_row(folder, row).items():
        for ours in RECALLS.values():
            of = statistic(ours)
            low, high = interval(ranks, of, SAMPLES, np.random.default_rng(SEED))
            bounds = {"lower": low, "upper": high, "confidence_level": 0.95, "method": "bootstrap"}
            results.append(
                {
                    "evaluation_name": f"{test} {ours}",
                    "source_data": {"dataset_name": test, "source_type": "other"},
                    "metric_config": {
                        "evaluation_description": f"text to video, gallery of {len(ranks)}",
                        "lower_is_better": False,
                        "score_type": "continuous",
                        "min_score": 0.0,
                        "max_score": 1.0,
                    },
                    "score_details": {
                        "score": float(of(ranks)),
                        "details": {"gallery_sha256": record["protocol"]["gallery_sha256"][test]},
                        "uncertainty": {"confidence_interval": bounds, "num_samples": len(ranks)},
                    },
                }
            )
    return {
        "schema_version": "0.3.0",
        "evaluation_id": f"{Path(folder).name}/{name}/{now}",
        "retrieved_timestamp": now,
        "source_metadata": {
            "source_type": "evaluation_run",
            "source_organization_name": "mmpt",
            "evaluator_relationship": "first_party",
        },
        "eval_library": {"name": "mmpt", "version": __version__},
        "model_info": {
            "name": name,
            "id": name,
            "developer": "mmpt",
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "unknown",
                **{f"weights_{key}": value for key, value in weights.items()},
            },
        },
        "evaluation_results": results,
    }


def read_mteb(path: str | Path) -> dict[str, float]:
    """R1, R5, R10 (fractions) of a result file of mteb, whichever it states.

    Raises:
        ValueError: it is no such file.
    """
    splits = check_record(read_json(path, dict, nan=True), str(path), scores=dict)["scores"]
    split = "test" if splits.get("test") else next(iter(splits), "test")
    listed = check_record(splits, f"{path}: scores", **{split: list})[split]
    first = check_record(listed[0] if listed else None, f"{path}: scores: {split}")
    found = {ours: first[theirs] for theirs, ours in RECALLS.items() if theirs in first}
    return {name: number(value, f"{path}: scores: {split}: {name}") for name, value in found.items()}


def beside(folder: str | Path, test: str, files: Mapping[str, int | None]) -> list[list[str]]:
    """Rows of a record on one test beside results of mteb.

    Args:
        folder: of the record.
        test: of the record.
        files: result file of mteb -> how many items its gallery has; None: not known, and said so.
    """
    rows = [["model", "gallery", *RECALLS.values()]]
    for row in read_json(Path(folder) / PER_QUERY, dict, nan=True):
        ranks = ranks_of_row(folder, row)[test]
        shares = [f"{100 * float(statistic(ours)(ranks)):.1f}" for ours in RECALLS.values()]
        rows.append([row, str(len(ranks)), *shares])
    for path, gallery in files.items():
        found = read_mteb(path)
        shares = [f"{100 * found[ours]:.1f}" if ours in found else "" for ours in RECALLS.values()]
        rows.append([Path(path).stem, "not known" if gallery is None else str(gallery), *shares])
    return rows


FORMATS = {"model-index": model_index, "mteb": mteb_results, "every-eval-ever": every_eval_ever}
