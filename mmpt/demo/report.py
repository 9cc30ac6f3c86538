"""The main job's evaluation: every model on every test set, one table, results.json, and a picture of one
long video."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.api.evaluation import Evaluation
from mmpt.config import Config
from mmpt.datasets import build_dataset
from mmpt.evaluators import Result
from mmpt.evaluators.bootstrap import paired_bootstrap
from mmpt.evaluators.plots import plot_alignment
from mmpt.evaluators.report import markdown_table, text_table
from mmpt.models import build_model
from mmpt.models.linear import fit_ridge_to_shards
from mmpt.ops.sinkhorn import log_sinkhorn
from mmpt.synthetic.truth import truth_alignment
from mmpt.utils import ShardedTensor, load_index
from mmpt.utils.files import atomic_write
from mmpt.utils.seed import set_seed

Rows = dict[str, dict[str, Result]]  # row -> test set -> result
CLIP_TESTS = {"vtt": "MSR-VTT", "youcook": "YouCook2"}  # sets like these
PARAGRAPHS = {"R1": "Cap. Avg.", "DTW-R1": "DTW", "OTAM-R1": "OTAM"}
WINDOW_S, STRIDE_S = 8, 4  # of the picture


class Ridge(nn.Module):
    """Ridge regression from the words of a caption to features, as a model: what a trained model has to beat.

    Args:
        weights: (C, D) what each word piece adds to the predicted feature.
    """

    def __init__(self, weights: np.ndarray):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights, dtype=torch.float32), requires_grad=False)

    def forward(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch
    ) -> dict[str, Tensor]:
        """Unit vectors of captions (sum over word pieces) and clips (mean feature)."""
        words = cmasks.clone()
        words[:, :2] = False  # [CLS] [SEP]
        text = (self.weights[caps] * words[..., None]).sum(1)
        video = (vfeats * vmasks[..., None]).sum(1)
        return {
            "pooled_text": nn.functional.normalize(text, dim=-1),
            "pooled_video": nn.functional.normalize(video, dim=-1),
        }


def evaluate_rows(tests: Mapping[str, Config], checkpoints: Mapping[str, Path], training: Config) -> Rows:
    """Every model on every test set. Chance is among the baselines of each result.

    Args:
        tests: test set -> its project file.
        checkpoints: row -> trained weights.
        training: the project file of the training data, from which ridge regression learns.
    """
    evaluations = {test: Evaluation(config, device="cpu") for test, config in tests.items()}
    vocab_size = json.loads((Path(training.dataset.bert_name) / "config.json").read_text())["vocab_size"]
    ridge = fit_ridge_to_shards(training.dataset.vfeat_dir, training.dataset.tfeat_dir, vocab_size)
    set_seed(training.trainer.seed)
    models: dict[str, nn.Module] = {
        "ridge regression": Ridge(ridge.weights),
        "untrained": build_model(training),
    }
    models |= {row: build_model(training, path) for row, path in checkpoints.items()}
    return {
        row: {test: evaluation.score(model)[0] for test, evaluation in evaluations.items()}
        for row, model in models.items()
    }


def write_report(rows: Rows, out: Path, settings: Mapping[str, Any]) -> str:
    """Write results.json and results.md into `out`; returns what the terminal shows."""
    clips, paragraphs = clip_table(rows), paragraph_table(rows)
    comparison = compare(rows["+ VideoCLIP"], rows["+ Norton"])
    facts = [
        f"{title}: {gallery_facts(rows['+ Norton'][test])}"
        for test, title in {**CLIP_TESTS, "youcook_fullvideo": "paragraphs"}.items()
    ]
    numbers = {
        "settings": dict(settings),
        "rows": {
            row: {test: {"values": o.values, "intervals": o.intervals} for test, o in tests.items()}
            for row, tests in rows.items()
        },
        "chance": {test: result.baselines["chance"] for test, result in rows["untrained"].items()},
        "norton_minus_videoclip": comparison,
    }
    titles = (
        "Text-to-clip retrieval on MSR-VTT-like and YouCook2-like sets",
        "Paragraph-to-video retrieval on the YouCook2-like set, R@1",
        "+ Norton minus + VideoCLIP, R@1, paired over queries",
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
    blocks = [
        f"{title} (percent, 95 % interval)\n{text_table(table)}"
        for title, table in zip(titles, tables, strict=True)
    ]
    return "\n\n".join([*blocks, "\n".join(facts), f"results: {out / 'results.json'}"])


def gallery_facts(result: Result) -> str:
    """What decides whether two numbers may be compared."""
    return ", ".join(
        f"{name} {value}" for name, value in result.facts.items() if not isinstance(value, Mapping)
    )


def clip_table(rows: Rows) -> list[list[str]]:
    """R@1, R@5 and median rank on both clip sets."""
    head = ["model"] + [f"{title} {name}" for title in CLIP_TESTS.values() for name in ("R@1", "R@5", "MedR")]
    chance = ["chance"]
    for test in CLIP_TESTS:
        level = rows["untrained"][test].baselines["chance"]
        chance += [percent(level["R1"]), percent(level["R5"]), f"{level['MR']:.0f}"]
    table = [head, chance]
    for row, tests in rows.items():
        cells = [row]
        for test in CLIP_TESTS:
            values, intervals = tests[test].values, tests[test].intervals
            cells += [percent(values["R1"], intervals["R1"]), percent(values["R5"]), f"{values['MR']:.0f}"]
        table.append(cells)
    return table


def paragraph_table(rows: Rows) -> list[list[str]]:
    """R@1 by each measure, on raw dot products and on cosines of centred embeddings."""
    kinds = {"": "dot", "cosine-": "cosine"}
    names = {
        f"{prefix}{name}": f"{title} ({kind})"
        for prefix, kind in kinds.items()
        for name, title in PARAGRAPHS.items()
    }
    level = rows["untrained"]["youcook_fullvideo"].baselines["chance"]
    table = [["model", *names.values()], ["chance", *(percent(level[name]) for name in names)]]
    for row, tests in rows.items():
        result = tests["youcook_fullvideo"]
        table.append([row, *(percent(result.values[name], result.intervals[name]) for name in names)])
    return table


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
            measure = f"{prefix}{name}".removesuffix("R1").removesuffix("-")
            key = f"ranks_{measure}" if measure else "ranks"
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
    split = training.dataset.vfeat_dir
    video_id = load_index(Path(split) / "val_meta.pkl")[0][0]
    features = ShardedTensor.load(Path(split) / "val_0")[0]
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
        path, plan.numpy(), shown, clips, truth.captions, title=f"{video_id}, not seen in training"
    )


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
