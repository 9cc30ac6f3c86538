"""Evaluation, cost, table and figure of a comparison of losses."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from mmpt.config import Config, load_config
from mmpt.config.fairseq_args import batch_size
from mmpt.evaluators import Outcome
from mmpt.evaluators.ranking import ScoreMatrix
from mmpt.evaluators.report import markdown_table, text_table
from mmpt.tasks import build_task
from mmpt.utils.files import atomic_write
from mmpt.utils.optional import optional_import
from mmpt.utils.seed import set_seed
from mmpt_cli import predict
from mmpt_cli.toy_runs import PROJECTS, move_folders

TESTS = {"clips": "test_youcook_zs", "videos": "test_youcook_fullvideo_zs", "videos_background": "test_youcook_fullvideo_bg_zs"}
COLUMNS = {  # measure -> head of its column; R@1 of each on dot products and on cosines of centred embeddings
    ("clips", ""): "clip",
    ("videos", "DTW"): "video DTW",
    ("videos", "OTAM"): "video OTAM",
    ("videos_background", "DTW"): "+ background DTW",
    ("videos_background", "OTAM"): "+ background OTAM",
}
ROUNDS = 5
MARKS = ("<!-- results:begin -->", "<!-- results:end -->")


def evaluate(checkpoint: Path, data: str | Path) -> dict[str, dict[str, float]]:
    """Test set -> name -> number, for one trained model."""
    values = {}
    for test, name in TESTS.items():
        path = PROJECTS / f"{name}.yaml"
        config = load_config(path, [*move_folders(path, {"data/toy": str(data)}), "eval.bootstrap=0"])
        evaluation = predict.Evaluation(config, predict.parse_args([str(path), "--device", "cpu"]))
        outcome, arrays = evaluation.evaluator.evaluate(evaluation.load(checkpoint)[0], evaluation.loader, "cpu")
        values[test] = outcome.values | {f"chance-{measure}": value for measure, value in outcome.baselines["chance"].items()}
        if test == "clips":
            values[test] |= {f"cosine-{measure}": value for measure, value in of_cosines(evaluation, arrays).values.items()}
    return values


def of_cosines(evaluation: predict.Evaluation, arrays: Mapping[str, Any]) -> Outcome:
    """Clip retrieval by cosines of centred embeddings: fair to losses that leave the length of vectors alone."""
    cosine = ScoreMatrix(queries=arrays["pooled_text"], gallery=arrays["pooled_video"]).centred_cosine()
    return evaluation.evaluator.metric.evaluate(pooled_text=cosine.queries, pooled_video=cosine.gallery)


def step_costs(configs: Mapping[str, Config]) -> dict[str, float]:
    """Milliseconds of CPU time for model, loss and gradients of one batch: the least of several interleaved rounds.

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


def write_report(results: Sequence[Mapping[str, Any]], costs: Mapping[str, float], settings: Mapping[str, Any], out: Path) -> str:
    """Write results.json, results.md and results.png; returns what the terminal shows."""
    noises = list(dict.fromkeys(result["noise"] for result in results))
    tables = {noise: table([result for result in results if result["noise"] == noise], costs) for noise in noises}
    with atomic_write(out / "results.json", "w") as file:
        json.dump({"settings": settings, "step_cpu_ms": costs, "runs": results}, file, indent=1)
    with atomic_write(out / "results.md", "w") as file:
        file.write("\n\n".join(f"### Noise: {noise}\n\n{markdown_table(rows)}" for noise, rows in tables.items()) + "\n")
    figure = draw(out / "results.png", results, noises)
    title = "R@1 in percent, dot product / cosine, mean ± spread over seeds"
    blocks = [f"noise {noise}: {title}\n{text_table(rows)}" for noise, rows in tables.items()]
    return "\n\n".join([*blocks, f"results: {out / 'results.json'}\nfigure:  {figure}"])


def update_page(page: Path, out: Path) -> None:
    """Put the tables of `out` between the two markers of a page, and the figure beside it."""
    before, begin, rest = page.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not end:
        raise ValueError(f"{page}: expected the lines {MARKS[0]} and {MARKS[1]}, between which the tables go.")
    with atomic_write(page, "w") as file:
        file.write(f"{before}{begin}\n{(out / 'results.md').read_text()}{end}{after}")
    shutil.copy(out / "results.png", page.with_suffix(".png"))


def table(results: Sequence[Mapping[str, Any]], costs: Mapping[str, float]) -> list[list[str]]:
    """One row a loss: R@1 of each measure, cost and memory."""
    rows = [["loss", "seeds", *COLUMNS.values(), "ms / step", "MiB"]]
    chance = results[0]["values"]
    level = {key: f"{100 * chance[key[0]]['chance-R1']:.1f}" for key in COLUMNS}
    rows.append(["chance", "", *level.values(), "", ""])
    for row in dict.fromkeys(result["row"] for result in results):
        own = [result for result in results if result["row"] == row]
        cells = [" / ".join(spread([value(result, *key, kind) for result in own]) for kind in ("dot", "cosine")) for key in COLUMNS]
        memory = statistics.mean(result["peak_mib"] for result in own)
        rows.append([row, str(len(own)), *cells, f"{costs[row]:.0f}" if row in costs else "", f"{memory:.0f}"])
    return rows


def value(result: Mapping[str, Any], test: str, measure: str, kind: str) -> float:
    """R@1 in percent of one run."""
    parts = [*(["cosine"] if kind == "cosine" else []), *([measure] if measure else []), "R1"]
    return 100 * result["values"][test]["-".join(parts)]


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation of the sample; the value alone where there is one."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def draw(path: Path, results: Sequence[Mapping[str, Any]], noises: Sequence[str]) -> Path:
    """R@1 by cosines over noise, a panel a measure and a line a loss; bars span the seeds."""
    shown = [key for key in COLUMNS if key[1] != "OTAM"]
    drawing = optional_import("matplotlib.figure", "plots").Figure(figsize=(4.2 * len(shown) + 2, 4.6), layout="constrained")
    optional_import("matplotlib.backends.backend_agg", "plots").FigureCanvasAgg(drawing)
    colours = optional_import("matplotlib", "plots").colormaps["tab20"]
    rows = list(dict.fromkeys(result["row"] for result in results))
    for axes, key in zip(drawing.subplots(1, len(shown)), shown, strict=True):
        for number, row in enumerate(rows):
            of_row = [[value(r, *key, "cosine") for r in results if (r["row"], r["noise"]) == (row, noise)] for noise in noises]
            points = [(x + 0.02 * (number - len(rows) / 2), values) for x, values in enumerate(of_row) if values]
            middle = [statistics.mean(values) for _, values in points]
            low, high = ([end(values) for _, values in points] for end in (min, max))
            reach = np.abs(np.array([low, high]) - middle)
            style = {"marker": "o", "markersize": 4, "linewidth": 1, "color": colours(number % 20)}
            axes.errorbar([x for x, _ in points], middle, reach, label=row, **style)
        axes.set(title=COLUMNS[key], ylabel="R@1, percent, cosines", xlabel="noise of the narration")
        axes.set_xticks(range(len(noises)), noises)
    drawing.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    drawing.savefig(path, dpi=120)
    return path
