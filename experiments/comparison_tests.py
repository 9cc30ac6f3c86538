"""What is measured of the losses of a comparison: test results and the cost of a step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from experiments.comparison import Entry
from mmpt.api.evaluation import Evaluation
from mmpt.config import Config
from mmpt.config.fairseq_args import batch_size
from mmpt.evaluators import Result, RetrievalMetric, paired_runs
from mmpt.evaluators.ranking import ScoreMatrix
from mmpt.tasks import build_task
from mmpt.utils.seed import set_seed

ROUNDS = 5


def evaluate(
    tests: Mapping[str, Entry], checkpoint: Path, data: str | Path, measures: Iterable[str]
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """One trained model on every test.

    Args:
        tests: of a comparison.
        checkpoint: of the model.
        data: folder of the synthetic world.
        measures: `test/measure`, those whose queries are kept.

    Returns:
        Test -> measure -> number, with `chance-<measure>` beside it, and what the facts say in numbers; and
        `test/measure` -> what `paired_runs.kept` gives of its queries.
    """
    values, queries = {}, {}
    for name, test in tests.items():
        config = test.config(data, ("eval.bootstrap=0",))
        evaluation = Evaluation(config, device="cpu")
        result, arrays = evaluation.score(evaluation.load(checkpoint)[0])
        found = {"": result}
        if isinstance(evaluation.evaluator.metric, RetrievalMetric):
            found["cosine-"] = of_cosines(evaluation, arrays)
        values[name] = {
            **numbers(result),
            **{f"chance-{measure}": value for measure, value in result.baselines["chance"].items()},
        }
        for prefix, of in found.items():
            values[name] |= {f"{prefix}{measure}": value for measure, value in of.values.items()}
            for measure in of.values:
                if f"{name}/{prefix}{measure}" in measures:
                    queries[f"{name}/{prefix}{measure}"] = per_query(of, measure)
    facts = {measure: _value(values, measure) for measure in measures if measure not in queries}
    return values, queries | facts


def _value(values: Mapping[str, Mapping[str, float]], measure: str) -> float:
    test, _, name = measure.partition("/")
    return values[test][name]


def per_query(result: Result, measure: str) -> list[dict[str, Any]]:
    """What every query adds to a share; of several splits, whose mean the share is, one after the other.

    Raises:
        ValueError: its numbers per query do not give it.
    """
    prefix, _, name = measure.rpartition("-")
    if measure in result.per_query:
        hits = result.per_query[measure]
    else:
        ranks = result.per_query[f"ranks_{prefix}" if prefix else "ranks"]
        hits = np.asarray(ranks) <= int(name.removeprefix("R"))
    lengths = result.facts.get("queries of each split", {}).get(measure.partition("-")[0], [len(hits)])
    splits = np.split(hits, np.cumsum(lengths)[:-1])
    found = np.mean([split.mean() for split in splits])
    if abs(found - result.values[measure]) > 1e-9:
        raise ValueError(f"{measure}: is {result.values[measure]}, its queries give {found}.")
    return [paired_runs.kept(split) for split in splits]


def numbers(result: Result) -> dict[str, float]:
    """Measures, and facts that are maps of numbers: {"alignment tv": {"hubness": 1}} ->
    alignment-tv-hubness."""
    maps = {name.replace(" ", "-"): fact for name, fact in result.facts.items() if isinstance(fact, Mapping)}
    found = {
        f"{name}-{key}": value
        for name, fact in maps.items()
        for key, value in fact.items()
        if isinstance(value, Real)
    }
    return {**result.values, **found}


def of_cosines(evaluation: Evaluation, arrays: Mapping) -> Result:
    """Clip retrieval by cosines of centred embeddings: fair to losses that leave the length of vectors
    alone."""
    cosine = ScoreMatrix(queries=arrays["pooled_text"], gallery=arrays["pooled_video"]).centred_cosine()
    return evaluation.evaluator.metric.evaluate(pooled_text=cosine.queries, pooled_video=cosine.gallery)


def step_costs(configs: Mapping[str, Config]) -> dict[str, float]:
    """Milliseconds of CPU time for model, loss and gradients of one batch: the least of several interleaved
    rounds.

    CPU time, summed over threads, so that other work on the machine does not count.
    """
    steps = {}
    for row, config in configs.items():
        set_seed(0)
        task = build_task(config)
        dataset = task.build_dataset("train")
        batch = next(iter(DataLoader(dataset, batch_size=batch_size(config), collate_fn=dataset.collate)))
        steps[row] = task, task.build_model().train(), batch
    times: dict[str, list[float]] = {row: [] for row in steps}
    for _ in range(ROUNDS):
        for row, (task, model, batch) in steps.items():
            model.zero_grad()
            start = time.process_time()
            task(model, batch).loss.backward()
            times[row].append(1000 * (time.process_time() - start))
    return {row: min(measured) for row, measured in times.items()}
