"""The main job's evaluation: every model on every test set, one table, results.json, and a picture of one
long video."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.api.evaluation import Evaluation
from mmpt.config import Config, required
from mmpt.config.rundir import to_dict
from mmpt.datasets import build_dataset
from mmpt.evaluators import Result
from mmpt.evaluators.bootstrap import paired_bootstrap
from mmpt.evaluators.plots import plot_alignment
from mmpt.evaluators.records import Cell, cell, derive, machine, write_record
from mmpt.evaluators.report import markdown_table, text_table
from mmpt.models import build_model
from mmpt.models.linear import RidgeBaseline, fit_ridge_to_shards
from mmpt.ops.sinkhorn import log_sinkhorn
from mmpt.synthetic.pictures import draw
from mmpt.synthetic.truth import TRUTH, Alignment, truth_alignment
from mmpt.utils import ShardedTensor, load_index, load_plain_pickle
from mmpt.utils.files import atomic_write, file_sha256
from mmpt.utils.seed import set_seed
from mmpt.utils.text import read_json

Span = tuple[float, float]
Rows = dict[str, dict[str, Result]]  # row -> test set -> result
CLIP_TESTS = {"vtt": "MSR-VTT", "youcook": "YouCook2"}  # sets like these
ROLES = "roles"  # of two ingredients told apart: "milk with rice", "rice with milk"
PARAGRAPHS = {"R1": "Cap. Avg.", "DTW-R1": "DTW", "OTAM-R1": "OTAM"}
WINDOW_S, STRIDE_S = 8, 4  # of the picture


def evaluate_rows(
    tests: Mapping[str, Config], models: Mapping[str, tuple[Config, Path]], data: str | Path
) -> Rows:
    """Every model on every test set. Chance is among the baselines of each result.

    Args:
        tests: test set -> its project file.
        models: row -> the project file of its training, and its weights. Ridge regression learns from the
            data of the first, and the untrained model is of its kind.
        data: folder of the synthetic data.
    """
    evaluations = {test: Evaluation(config, device="cpu") for test, config in tests.items()}
    training = next(iter(models.values()))[0]
    vocab_size = read_json(Path(required(training, "dataset.bert_name")) / "config.json", dict)["vocab_size"]
    videos, texts = (required(training, f"dataset.{key}") for key in ("vfeat_dir", "tfeat_dir"))
    ridge = fit_ridge_to_shards(videos, texts, vocab_size)
    set_seed(training.trainer.run_seed)
    networks: dict[str, nn.Module] = {
        "ridge regression": RidgeBaseline(training, ridge.weights),
        "untrained": build_model(training),
    }
    networks |= {row: build_model(config, path) for row, (config, path) in models.items()}
    own, twin = role_twins(required(tests["youcook"], "dataset.test_path"), data)
    rows: Rows = {}
    for row, network in networks.items():
        rows[row] = {}
        for test, evaluation in evaluations.items():
            result, arrays = evaluation.score(network)
            if test == "youcook":
                add_roles(result, arrays, own, twin)
            rows[row][test] = result
    return rows


def role_twins(list_path: str, data: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Clips whose step is also there with its two ingredients in each other's roles: (n,) places of such
    clips in the list, (n,) places of their twins."""
    videos = read_json(Path(data) / TRUTH, dict)
    place = {}
    for index, record in enumerate(load_plain_pickle(list_path)):
        video, _, clip = record["id"].rpartition("_")
        step = videos[video]["steps"][int(clip)]
        if step["partner"]:
            place[step["verb"], step["object"], step["third"]] = index
    pairs = [(i, place[v, third, o]) for (v, o, third), i in place.items() if (v, third, o) in place]
    own, twin = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return own, twin


def add_roles(result: Result, arrays: Mapping[str, Any], own: np.ndarray, twin: np.ndarray) -> None:
    """Adds ROLES: how often a caption is closer to its clip than to the clip of its twin; 0.5 by chance."""
    text, video = arrays["pooled_text"][own], arrays["pooled_video"]
    margin = (text * (video[own] - video[twin])).sum(1)
    hits = (margin > 0) + 0.5 * (margin == 0)
    result.per_query[ROLES] = hits if len(hits) else np.array([0.5])
    result.facts["role twins"] = len(hits)


def write_report(
    rows: Rows, costs: Mapping[str, Mapping[str, float]], out: Path, settings: Mapping[str, Any]
) -> str:
    """Write results.json and results.md into `out`; returns what the terminal shows."""
    clips, paragraphs = (texts(table, per_query(rows)) for table in result_tables(rows, costs).values())
    comparison = compare(rows["+ VideoCLIP"], rows["+ Norton"])
    facts = [
        f"{title}: {gallery_facts(rows['+ Norton'][test])}"
        for test, title in {**CLIP_TESTS, "youcook_fullvideo": "paragraphs"}.items()
    ]
    numbers: dict[str, Any] = {
        "settings": dict(settings),
        "rows": {
            row: {test: {"values": o.values, "intervals": o.intervals} for test, o in tests.items()}
            for row, tests in rows.items()
        },
        "chance": {test: result.baselines["chance"] for test, result in rows["untrained"].items()},
        "norton_minus_videoclip": comparison,
        "costs": dict(costs),
    }
    titles = (
        *result_tables(rows, costs),
        "+ Norton minus + VideoCLIP, R@1 in points, paired over queries (95 % interval)",
    )
    tables = (clips, paragraphs, comparison_table(comparison))
    numbers |= {"tables": dict(zip(titles, tables, strict=True)), "facts": facts}
    with atomic_write(out / "results.json", "w") as file:
        json.dump(numbers, file, indent=1)
    with atomic_write(out / "results.md", "w") as file:
        parts = [
            f"## {title}\n\n{markdown_table(table)}" for title, table in zip(titles, tables, strict=True)
        ]
        file.write("\n\n".join([*parts, "\n".join(f"- {fact}" for fact in facts)]) + "\n")
    blocks = [f"{title}\n{text_table(table)}" for title, table in zip(titles, tables, strict=True)]
    return "\n\n".join([*blocks, "\n".join(facts), f"results: {out / 'results.json'}"])


def per_query(rows: Rows) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Row -> test -> measure -> a number per query."""
    return {
        row: {
            test: {name: values for name, values in result.per_query.items() if values.dtype.kind == "f"}
            for test, result in tests.items()
        }
        for row, tests in rows.items()
    }


def result_tables(rows: Rows, costs: Mapping[str, Mapping[str, float]]) -> dict[str, list[list[Cell]]]:
    """Title -> table, whose numbers say what they are derived from."""
    return {
        "Text-to-clip retrieval on MSR-VTT-like and YouCook2-like sets (percent, 95 % interval)": clip_table(
            rows, costs
        ),
        "Paragraph-to-video retrieval on the YouCook2-like set, R@1 (percent, 95 % interval)": (
            paragraph_table(rows)
        ),
    }


def texts(table: list[list[Cell]], numbers: Mapping[str, Any]) -> list[list[str]]:
    """The table with its numbers written out."""
    return [[c if isinstance(c, str) else derive(c, numbers) for c in row] for row in table]


def write_proof(
    rows: Rows,
    costs: Mapping[str, Mapping[str, float]],
    folder: Path,
    models: Mapping[str, tuple[Config, Path]],
    about: Mapping[str, Any],
) -> Path:
    """The tables as a record from which every cell can be derived again.

    Args:
        rows: results.
        costs: row -> what its training took.
        folder: of the record.
        models: row -> project file and weights.
        about: command, seeds and data.
    """
    facts = {test: result.facts for test, result in next(iter(rows.values())).items()}
    galleries = {
        test: hashlib.sha256(
            json.dumps([str(x) for x in result.per_query.get("ids", ())]).encode()
        ).hexdigest()
        for test, result in next(iter(rows.values())).items()
    }
    frames = {test: "every second, at most dataset.max_video_len" for test in facts}
    protocol = {"facts": facts, "gallery_sha256": galleries, "frames": frames, "post_processing": "none"}
    return write_record(
        folder,
        result_tables(rows, costs),
        per_query(rows),
        {row: to_dict(config) for row, (config, _) in models.items()},
        {
            **about,
            "protocol": protocol,
            "weights": {row: {"sha256": file_sha256(path)} for row, (_, path) in models.items()},
            "machine": machine(),
        },
    )


def gallery_facts(result: Result) -> str:
    """What decides whether two numbers may be compared."""
    return ", ".join(
        f"{name} {value}" for name, value in result.facts.items() if not isinstance(value, Mapping)
    )


def clip_table(rows: Rows, costs: Mapping[str, Mapping[str, float]]) -> list[list[Cell]]:
    """R@1, R@5 and median rank on both clip sets, how often roles are told apart, and what training took."""
    head: list[Cell] = ["model"]
    head += [f"{title} {name}" for title in CLIP_TESTS.values() for name in ("R@1", "R@5", "MedR")]
    head += ["roles", "updates", "CPU s"]
    chance: list[Cell] = ["chance"]
    for test in CLIP_TESTS:
        level = rows["untrained"][test].baselines["chance"]
        chance += [percent(level["R1"]), percent(level["R5"]), f"{level['MR']:.0f}"]
    table: list[list[Cell]] = [head, [*chance, percent(0.5), "", ""]]
    for row in rows:
        cells: list[Cell] = [row]
        for test in CLIP_TESTS:
            cells += [cell(row, test, "ranks", name, name == "R1") for name in ("R1", "R5", "MR")]
        cost = costs.get(row, {})
        cells.append(cell(row, "youcook", ROLES, "mean", True))
        cells += [f"{cost[name]:.0f}" if name in cost else "" for name in ("updates", "cpu_s")]
        table.append(cells)
    return table


def paragraph_table(rows: Rows) -> list[list[Cell]]:
    """R@1 by each measure, on raw dot products and on cosines of centred embeddings."""
    kinds = {"": "dot", "cosine-": "cosine"}
    names = {
        f"{prefix}{name}": f"{title} ({kind})"
        for prefix, kind in kinds.items()
        for name, title in PARAGRAPHS.items()
    }
    level = rows["untrained"]["youcook_fullvideo"].baselines["chance"]
    table: list[list[Cell]] = [["model", *names.values()], ["chance", *(percent(level[n]) for n in names)]]
    for row in rows:
        measures = (ranks_of(name) for name in names)
        table.append([row, *(cell(row, "youcook_fullvideo", measure, "R1", True) for measure in measures)])
    return table


def ranks_of(name: str) -> str:
    """`cosine-DTW-R1` -> `ranks_cosine-DTW`: where the ranks of a number are kept."""
    measure = name.removesuffix("R1").removesuffix("-")
    return f"ranks_{measure}" if measure else "ranks"


def percent(value: float, bounds: tuple[float, float] | None = None) -> str:
    """0.547, (0.5, 0.6) -> `54.7 [50.0, 60.0]`."""
    return f"{100 * value:.1f}" + (f" [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]" if bounds else "")


def compare(first: Mapping[str, Result], second: Mapping[str, Result]) -> dict[str, dict[str, float]]:
    """Paired bootstrap of R@1, second minus first, for every test and measure."""
    results = {}
    for test in CLIP_TESTS:
        results[CLIP_TESTS[test]] = paired_bootstrap(
            first[test].per_query["ranks"], second[test].per_query["ranks"]
        )._asdict()
    for prefix, kind in {"": "dot", "cosine-": "cosine"}.items():
        for name, title in PARAGRAPHS.items():
            key = ranks_of(f"{prefix}{name}")
            pair = (first["youcook_fullvideo"].per_query[key], second["youcook_fullvideo"].per_query[key])
            results[f"{title} ({kind})"] = paired_bootstrap(*pair)._asdict()
    return results


def comparison_table(comparison: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Difference, interval and p of each test."""
    table = [["test", "difference", "p"]]
    for test, result in comparison.items():
        table.append(
            [
                test,
                f"{100 * result['difference']:+.1f} [{100 * result['low']:+.1f}, "
                f"{100 * result['high']:+.1f}]",
                f"{result['p']:.3f}",
            ]
        )
    return table


def draw_alignment(path: Path, data: str, checkpoint: Path, training: Config) -> Path:
    """One narrated long video that training did not see: transport plan between its windows and captions
    beside the truth."""
    split = Path(required(training, "dataset.vfeat_dir"))
    video_id = load_index(split / "val_meta.pkl")[0][0]
    features = ShardedTensor.load(split / "val_0")[0]
    truth = truth_alignment(data, video_id)
    reader = build_dataset(training, "valid")
    starts = range(0, max(1, len(features) - WINDOW_S + 1), STRIDE_S)
    windows = [reader.aligner.build_video(features, video_id, start, start + WINDOW_S) for start in starts]
    vfeats, vmasks = (torch.stack(part) for part in zip(*windows, strict=True))
    caps, cmasks = reader.aligner.pack([reader.text_processor.tokenize(text) for text in truth.captions])
    model = build_model(training, checkpoint).eval()
    with torch.inference_mode():
        text = model.forward_text(caps, cmasks).pooled
        # of the captions a video reads [CLS] and [SEP] alone, which are the same in all
        video = model.forward_video(
            vfeats, vmasks, caps[:1].expand(len(vfeats), -1), cmasks[:1].expand(len(vfeats), -1)
        ).pooled
    plan = transport_plan(centred_cosine(text, video))
    shown = [tuple(truth.shown_s[step]) if step >= 0 else None for step in truth.caption_step]
    clips = [(start, min(start + WINDOW_S, len(features))) for start in starts]
    return plot_alignment(
        path,
        plan.numpy(),
        clips,
        truth.captions,
        truth=shown,
        said=truth.spoken_s.tolist(),
        frames=film_strip(truth, len(features)),
        title=f"{video_id}, not seen in training",
    )


def film_strip(truth: Alignment, length_s: int, frames: int = 13) -> list[tuple[Span, np.ndarray, str]]:
    """A video of the synthetic world in parts of equal length: the seconds of each, the step that it shows
    longest, drawn, and that step's verb and ingredient."""
    edges = np.linspace(0, length_s, frames + 1)
    found: list[tuple[Span, np.ndarray, str]] = []
    for start, end in itertools.pairwise(edges):
        shown = np.minimum(truth.shown_s[:, 1], end) - np.maximum(truth.shown_s[:, 0], start)
        longest = int(shown.argmax())
        step = longest if shown[longest] > 0 else None
        label = "" if step is None else "\n".join(truth.labels[step].split()[:2])
        picture = draw(None if step is None else truth.steps[step], seed=len(found))
        found.append(((float(start), float(end)), picture, label))
    return found


def centred_cosine(text: Tensor, video: Tensor) -> Tensor:
    """Cosines after subtracting each modality's mean: (N, D), (M, D) -> (N, M)."""
    text, video = (nn.functional.normalize(x - x.mean(0), dim=-1) for x in (text, video))
    return text @ video.T


def transport_plan(scores: Tensor, bucket_quantile: float = 0.3, epsilon: float = 0.1) -> Tensor:
    """Norton's plan of one video (N, M): captions and windows may go to a bucket instead, whose score is a
    quantile of the best matches."""
    n, m = scores.shape
    bucket = scores.amax(1).quantile(bucket_quantile)
    padded = bucket.expand(n + 1, m + 1).clone()
    padded[:n, :m] = scores
    log_mu, log_nu = torch.zeros(n + 1), torch.zeros(m + 1)
    log_mu[n], log_nu[m] = np.log(m), np.log(n)
    total = float(np.log(n + m))
    return log_sinkhorn(padded / epsilon, log_mu - total, log_nu - total).exp()[:n, :m]
