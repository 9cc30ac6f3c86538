"""What is measured of the losses of a comparison: test results and the cost of a step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

from torch.utils.data import DataLoader

from experiments.comparison import Entry
from mmpt.api.evaluation import Evaluation
from mmpt.config import Config
from mmpt.config.fairseq_args import batch_size
from mmpt.evaluators import Result, RetrievalMetric
from mmpt.evaluators.ranking import ScoreMatrix
from mmpt.tasks import build_task
from mmpt.utils.seed import set_seed

ROUNDS = 5


def evaluate(tests: Mapping[str, Entry], checkpoint: Path, data: str | Path) -> dict[str, dict[str, float]]:
    """Test -> measure -> number, for one trained model; `chance-<measure>` beside it, and what the facts say
    in numbers."""
    values = {}
    for name, test in tests.items():
        config = test.config(data, ("eval.bootstrap=0",))
        evaluation = Evaluation(config, device="cpu")
        result, arrays = evaluation.score(evaluation.load(checkpoint)[0])
        values[name] = {
            **numbers(result),
            **{f"chance-{measure}": value for measure, value in result.baselines["chance"].items()},
        }
        if isinstance(evaluation.evaluator.metric, RetrievalMetric):
            values[name] |= {
                f"cosine-{measure}": value for measure, value in of_cosines(evaluation, arrays).values.items()
            }
    return values


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
