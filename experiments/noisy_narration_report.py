"""Tables and figure of `experiments.noisy_narration`, from its record alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.evaluators import paired_runs, records
from mmpt.evaluators.plots import plot_dots

MEASURES = ("text to clip", "clip to text", "Cap. Avg.", "DTW", "OTAM", "DTW, background", "OTAM, background")
AT_EQUAL_TIME = ("text to clip", "Cap. Avg.", "DTW", "OTAM")
DRAWN = ("text to clip", "Cap. Avg.", "DTW", "OTAM, background")
UPDATES, TIME = "equal updates", "equal time"


def write_study(folder: Path, found: Mapping[str, Any]) -> None:
    """The record of a study.

    Args:
        folder: of the record.
        found: what `experiments.noisy_narration.gather` gives.
    """
    reference, *rows = found["configs"]
    noises, costs = found["noises"], found["costs"]

    def tests(when: str, of: Sequence[str] = noises) -> list[str]:
        return [f"{noise}, {when}" for noise in of]

    def table(when: str, measures: Sequence[str], before: Mapping[str, Sequence[str]]) -> list[list[Any]]:
        head = [f"difference to {reference}", *before, *measures]
        level = [reference, *(texts[0] for texts in before.values())]
        level += [paired_runs.share(reference, tests(when), measure) for measure in measures]
        body = [
            [
                row,
                *(texts[place] for texts in before.values()),
                *(paired_runs.difference(row, reference, rows, tests(when), measure) for measure in measures),
            ]
            for place, row in enumerate(rows, start=1)
        ]
        seen = ["found with 80 % power", *("" for _ in before)]
        family = (reference, rows, tests(when))
        cells = [paired_runs.difference(rows[0], *family, measure) for measure in measures]
        return [head, level, *body, [*seen, *({**cell, "statistic": "detectable"} for cell in cells)]]

    updates = found["study"]["updates"]
    shares = [costs[reference] / costs[row] for row in (reference, *rows)]
    made = [min(updates, max(1, round(updates * share))) for share in shares]
    levels = [["narration", *(f"{row}: {measure}" for measure in DRAWN for row in ("start", reference))]]
    for noise in noises:
        cells = [
            paired_runs.share(row, tests(UPDATES, [noise]), measure)
            for measure in DRAWN
            for row in ("start", reference)
        ]
        levels.append([noise, *cells])
    spent = {
        "seeds": [str(len(found["seeds"][row])) for row in (reference, *rows)],
        "ms an update": [f"{costs[row]:.0f}" for row in (reference, *rows)],
    }
    title = f"After {updates} updates of each loss, R@1 in percent over all worlds"
    tables = {
        title: table(UPDATES, MEASURES, spent),
        f"After the CPU time of {updates} updates of {reference}": table(
            TIME, AT_EQUAL_TIME, {"updates": [str(number) for number in made]}
        ),
        f"{reference} and the start that it goes on from, R@1 in percent": levels,
    }
    queries = {measure: "clips" if "clip" in measure else "paragraphs" for measure in MEASURES}
    videos = {measure: found["videos"][kind] for measure, kind in queries.items()}
    about = {
        "command": "python -m experiments.noisy_narration",
        "seeds": found["seeds"],
        "study": found["study"],
        "ms_an_update": costs,
        "tuning": found["tuning"],
        "chosen": found["chosen"],
        "protocol": {
            "score": "cosines of embeddings after each side's mean is taken off",
            "tie rule": "mean",
            "post_processing": "none",
        },
        "machine": records.machine(),
    }
    numbers = {paired_runs.VIDEOS: videos, **found["hits"]}
    records.write_record(folder, tables, numbers, found["configs"], about)


def write_figure(path: Path, folder: Path) -> Path:
    """Differences to the reference at each noise: the methods above, the parts of Norton below."""
    per_query = json.loads((folder / records.PER_QUERY).read_text())
    record = json.loads((folder / records.RECORD).read_text())
    reference, *rows = record["study"]["losses"]
    noises = [test.removesuffix(f", {UPDATES}") for test in per_query[reference] if test.endswith(UPDATES)]
    parts = [row for row in rows if row.startswith("Norton")]
    lines = {"methods": [*parts[:1], *(row for row in rows if row not in parts)], "parts of Norton": parts}
    panels = {}
    for title, shown in ((title, shown) for title, shown in lines.items() if shown):
        for measure in DRAWN:
            cells = [
                paired_runs.difference(shown[0], reference, shown, [f"{noise}, {UPDATES}"], measure)
                for noise in noises
            ]
            found = [paired_runs.differences(cell, per_query) for cell in cells]
            panels[title, measure] = {
                row: [tuple(100 * bound for bound in at_noise[row][:3]) for at_noise in found]
                for row in shown
            }
    return plot_dots(path, panels, noises, f"R@1 minus that of {reference}, points", differences=True)
