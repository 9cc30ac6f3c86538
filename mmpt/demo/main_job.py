"""The main job: synthetic data, models pre-trained by fairseq, their zero-shot numbers beside trivial models,
one picture.

Small towers train with VideoCLIP's loss on cosines. BERT towers train in two stages: with VideoCLIP's loss,
then from there twice, with VideoCLIP's loss and with Norton's, for equally many updates. What is already
there is not done again; a run that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.api.training import train as train_project
from mmpt.checkpoints.model_folder import write_folder
from mmpt.config import Config, load_config, required
from mmpt.config.rundir import to_dict
from mmpt.config.yamlfile import write_yaml
from mmpt.demo.report import draw_alignment, evaluate_rows, write_proof, write_report
from mmpt.demo.toy_runs import (
    PROJECTS,
    claim,
    cpu_seconds_of_children,
    data_files,
    data_fingerprint,
    finish,
    move_folders,
    read_cost,
    set_length,
    write_cost,
)
from mmpt.models import build_model
from mmpt.processors import load_tokenizer
from mmpt.synthetic.build import build_world
from mmpt.synthetic.settings import NOISE, SIZES, Settings
from mmpt.utils.content import digests

lines = logging.getLogger("mmpt.lines")

SMALL = "small towers"
STAGES = {SMALL: "small/words", "BERT": "videoclip", "+ VideoCLIP": "videoclip_more", "+ Norton": "norton"}
BERT_UPDATES = (500, 60)  # of stage 1 and 2; those of projects/toy would take three minutes more
Follow = Callable[[str, int, dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class MainJob:
    """Sizes, seed and folders.

    Attributes:
        size: of the synthetic data: tiny, small or main.
        noise: of the narration: clean, moderate or heavy.
        seed: of weights, batches and dropout.
        updates: of stage 1, which small towers take too, and of stage 2; None: those of `projects/toy/small`
            and `BERT_UPDATES`.
        data: folder of the synthetic data.
        out: folder of checkpoints and results.
    """

    size: str = "main"
    noise: str = "moderate"
    seed: int = 1
    updates: tuple[int, int] | None = None
    data: str = "data/toy"
    out: str = "runs/toy"


def run(job: MainJob, follow: Follow | None = None, track: Callable[..., Iterable] | None = None) -> None:
    """Do what is not done yet, and report.

    Args:
        job: what to do.
        follow: told of every logged update: stage, its number of updates, the line of `metrics.jsonl`.
        track: wrapped round what is counted while the data is made.
    """
    start = time.perf_counter()
    settings = Settings(size=SIZES[job.size], noise=NOISE[job.noise])
    build_world(job.data, settings, **({"track": track} if track else {}))
    for row, name in STAGES.items():
        train(row, name, job, follow)
    models = {
        row: (configured(name, job), Path(job.out) / name / "checkpoint_last.pt")
        for row, name in STAGES.items()
    }
    checkpoints = {row: path for row, (_, path) in models.items()}
    lines.info("evaluating")
    tests = {test: configured(f"test_{test}_zs", job) for test in ("vtt", "youcook", "youcook_fullvideo")}
    rows = evaluate_rows(tests, models, job.data)
    costs = {row: read_cost(path.parent) for row, path in checkpoints.items()}
    training = models[SMALL][0]
    picture = draw_alignment(Path(job.out) / "alignment.png", job.data, checkpoints[SMALL], training)
    lines.info("\n" + write_report(rows, costs, Path(job.out), dataclasses.asdict(job)))
    about = {
        "command": "mmpt demo",
        "settings": dataclasses.asdict(job),
        "seeds": [job.seed],
        "data": {"fingerprint": data_fingerprint(job.data), "files": data_files(job.data)},
    }
    record = write_proof(rows, costs, Path(job.out) / "record", models, about)
    lines.info(f"record:  {record}, which mmpt verify-results derives again")
    model = save_model(*models[SMALL], Path(job.out) / "model")
    log = checkpoints[SMALL].parent / "train.log"
    lines.info(
        f"log:     {log}\npicture: {picture}\nmodel:   {model}, for --model and MMPTModel.from_pretrained"
    )
    write_page(job, Path(required(training, "dataset.vfeat_dir")), checkpoints)
    lines.info(f"\n{time.perf_counter() - start:.0f} s in all")


def write_page(job: MainJob, features: Path, checkpoints: Mapping[str, Path]) -> None:
    """The page to look at; without the packages that draw it, says how to get them."""
    from mmpt.demo.pages import write_pages

    out, folders = Path(job.out), {row: path.parent for row, path in checkpoints.items()}
    try:
        page = write_pages(out, job.data, features, folders, out / "results.json")
    except ImportError as error:
        lines.info(f"no page: {error}")
    else:
        lines.info(f"page:    {page}")


def save_model(config: Config, checkpoint: Path, folder: Path) -> Path:
    """The trained model as a folder that needs no project file; in `runs/toy/model` it is the model `toy`."""
    write_folder(folder, build_model(config, checkpoint), load_tokenizer(config.dataset.bert_name))
    return folder


def configured(name: str, job: MainJob) -> Config:
    """A project file of `projects/toy` with this run's folders, seed and number of updates."""
    return load_config(PROJECTS / f"{name}.yaml", overrides(name, job))


def overrides(name: str, job: MainJob) -> list[str]:
    """`--set` texts that move a toy project file to this run's data and output folders, and set its
    length."""
    texts = move_folders(PROJECTS / f"{name}.yaml", {"data/toy": job.data, "runs/toy": job.out})
    texts.append(f"fairseq.common.seed={job.seed}")
    if name.startswith("small/"):
        texts.append(f"eval.valid_project={validation(job)}")
        if job.updates:
            texts += set_length(job.updates[0])
    elif name in STAGES.values():
        texts += set_length((job.updates or BERT_UPDATES)[name != STAGES["BERT"]])
    return texts


def validation(job: MainJob) -> Path:
    """The test that follows the training of small towers, on labelled clips that no test holds."""
    path = Path(job.out) / "validation.yaml"
    source = PROJECTS / "small" / "test_labelled_zs.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_yaml(path, to_dict(load_config(source, move_folders(source, {"data/toy": job.data}))))
    return path


def train(row: str, name: str, job: MainJob, follow: Follow | None = None) -> None:
    """Train one stage unless it is done; its log goes to `train.log`."""
    folder = Path(job.out) / name
    config = configured(name, job)
    updates = config.trainer.max_update or 0
    start = config.trainer.restore_file
    settings = {"config": to_dict(config), "data": data_fingerprint(job.data)}
    settings["start"] = digests(start) if start else {}
    if not claim(folder, settings):
        lines.info(f"{row}: trained already ({folder})")
        return
    before = cpu_seconds_of_children()
    train_project(
        PROJECTS / f"{name}.yaml",
        overrides(name, job),
        log=folder / "train.log",
        progress=(lambda line: follow(row, updates, line)) if follow else None,
    )
    write_cost(folder, cpu_seconds_of_children() - before)
    finish(folder, settings)
