"""The command-line flags of the GRAM release, as changes of a project file: what its users type goes on
working.

    python locallaunch.py projects/retri/gram/vtt.yaml --train_task ret%tva --learning_rate 2e-5
    --train_batch_size 64 --train_epoch 4 python locallaunch.py projects/retri/gram/test_vtt.yaml --test_task
    ret%tv%tva --test_vision_sample_num 8

Flags that start with train_ change training jobs, those with test_ prediction jobs. `--set` has the last
word.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.config import Config, ConfigError

lines = logging.getLogger("mmpt.lines")

ID_KEYS = ("clip_id", "video_id", "image_id", "image", "id")
KINDS = {"ret": None, "cap": "projects/mtm/vlm/youcookcap.yaml", "qa": "projects/mtm/vlm/vttqa.yaml"}
WRITING = {"cap": "CaptionLoss", "qa": "AnswerLoss"}  # losses of models that write
WRITTEN = {"cap": ("CaptionPredictor", "NLGMetric"), "qa": ("AnswerPredictor", "AnswerMetric")}
MASK_CAPTIONS = 0.6
INSTEAD = {
    "zero_shot": "run a test_*_zs.yaml with the checkpoint",
    "first_eval": "name a test file in eval.valid_project, and predict with the checkpoint that training "
    "starts from",
}


class Job(NamedTuple):
    """What a flag is turned into settings for."""

    config: Config
    is_test: bool
    processes: int
    given: Mapping[str, Any]  # all flags of the command line

    @property
    def batch_size(self) -> int:
        """Of all processes together."""
        told = self.given.get("train_batch_size")
        return told or (self.config.trainer.batch_size or 1) * self.processes

    def updates(self) -> int:
        """Of the whole training.

        Raises:
            ConfigError: neither flags nor file tell.
        """
        steps = self.given.get("train_steps") or (
            None if self.given.get("train_epoch") else self.config.trainer.max_update
        )
        epochs = self.given.get("train_epoch") or self.config.trainer.max_epoch
        if steps or not epochs:
            if not steps:
                raise ConfigError(
                    f"{self.config.source}: how long training takes is not known; add --train_steps or "
                    "--train_epoch."
                )
            return steps
        return max(1, int(count_items(self.config) // self.batch_size * epochs))


def parse_task(text: str) -> list[tuple[str, list[str]]]:
    """The groups of a task string: "ret%tva%tv_cap%tvas" -> [("ret", ["tva", "tv"]), ("cap", ["tvas"])].

    Raises:
        ConfigError: an unknown kind, or a condition that is not t and letters of modalities.
    """
    groups = []
    for group in text.split("_"):
        kind, *conditions = group.split("%")
        if kind not in KINDS:
            raise ConfigError(
                f"task {text!r}: unknown kind {kind!r}; expected groups of {', '.join(KINDS)}, such as "
                "ret%tva."
            )
        wrong = [c for c in conditions if not c.startswith("t") or len(c) < 2 or len(set(c)) < len(c)]
        if wrong or not conditions:
            raise ConfigError(
                f"task {text!r}: expected conditions such as tv or tva behind {kind}%, got "
                f"{', '.join(wrong) or 'none'}."
            )
        groups.append((kind, conditions))
    return groups


def conditions_of(text: str, config: Config) -> dict[str, list[str]]:
    """Kind -> conditions of a task string, each letter checked against dataset.modalities.

    Raises:
        ConfigError: a letter of no modality, or writing with a model that does not.
    """
    names = list(config.dataset.modalities or {})
    found: dict[str, list[str]] = {}
    for kind, conditions in parse_task(text):
        if kind in WRITING and config.model.model_cls != "GRAM":
            raise ConfigError(
                f"task {text!r}: {kind} needs a model that writes, model_cls: GRAM "
                f"(projects/retri/gram/e2e), or is a task of its own: see {KINDS[kind]}."
            )
        found[kind] = list(dict.fromkeys([*found.get(kind, []), *conditions]))
    for letter in "".join(condition[1:] for conditions in found.values() for condition in conditions):
        if not any(name.startswith(letter) for name in names):
            there = ", ".join(names)
            raise ConfigError(
                f"task {text!r}: no modality starts with {letter!r}; {config.source} has {there} "
                "(dataset.modalities)."
            )
    return found


def count_items(config: Config) -> int:
    """Items of the training list: distinct ids of an annotation, or lines."""
    path = Path(config.dataset.train_path or "")
    if not path.is_file():
        raise ConfigError(
            f"{config.source}: dataset.train_path={path}: how many updates an epoch takes is counted "
            "there; no such file."
        )
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return len(text.splitlines())
    rows = enumerate(json.loads(text))
    return len(
        {next((str(row[key]) for key in ID_KEYS if row.get(key) is not None), number) for number, row in rows}
    )


def _train_task(job: Job, text: str) -> dict[str, Any]:
    kinds = conditions_of(text, job.config)
    letters = set("".join(condition[1:] for condition in kinds.get("ret", [])))
    modalities = [name for name in job.config.dataset.modalities if name[0] in letters]
    if list(kinds) == ["ret"]:
        return _of_gram_loss(job, "modalities", modalities)
    parts = _parts(job) if "ret" in kinds else []
    settings: dict[str, Any] = {"loss.loss_cls": "SumLoss"}
    if "ret" in kinds:
        settings |= _of_gram_loss(job, "modalities", modalities)
        parts = settings["loss.losses"]
    else:  # nothing reads the temperature
        settings["model.learnable_temperature"] = False
    written = [{"loss_cls": WRITING[kind], "conditions": kinds[kind]} for kind in WRITING if kind in kinds]
    settings["loss.losses"] = [
        part for part in parts if part.get("loss_cls") not in WRITING.values()
    ] + written
    if "cap" in kinds:
        settings["dataset.mask_captions"] = job.config.dataset.mask_captions or MASK_CAPTIONS
    return settings


def _parts(job: Job) -> list[dict[str, Any]]:
    """The losses of a SumLoss."""
    loss = job.config.loss or {}
    if loss.get("loss_cls") != "SumLoss":
        raise ConfigError(
            f"{job.config.source}: a task that finds and writes needs loss_cls: SumLoss with a list of "
            f"losses, GRAMLoss among them, got {loss.get('loss_cls')}."
        )
    return [dict(part) for part in loss.get("losses") or []]


def _of_gram_loss(job: Job, key: str, value: Any) -> dict[str, Any]:
    """A key of GRAMLoss, alone or as a part of a SumLoss."""
    if (job.config.loss or {}).get("loss_cls") != "SumLoss":
        return {f"loss.{key}": value}
    parts = _parts(job)
    return {
        "loss.losses": [part | {key: value} if part.get("loss_cls") == "GRAMLoss" else part for part in parts]
    }


def _test_task(job: Job, text: str) -> dict[str, Any]:
    kinds = conditions_of(text, job.config)
    (kind, conditions), *others = kinds.items()
    if others or (kind in WRITING and len(conditions) > 1):
        raise ConfigError(
            f"task {text!r}: a test finds or writes, and writes from one condition; run one each."
        )
    if kind == "ret":
        return {"eval.modalities": conditions}
    predictor, metric = WRITTEN[kind]
    return {"predictor": predictor, "metric": metric, "eval.modalities": conditions, "eval.rerank": 0}


def _raw_pictures(job: Job) -> list[str]:
    """Modalities whose frames are read from files."""
    found = [
        name
        for name, entry in (job.config.dataset.modalities or {}).items()
        if entry and entry.get("raw") == "frames"
    ]
    if not found:
        raise ConfigError(
            f"{job.config.source}: features are ready-made here: augment and scale frames before extraction, "
            "see docs/features.md, or read files with raw: frames (projects/retri/gram/e2e)."
        )
    return found


def _vision_transforms(job: Job, name: str) -> dict[str, Any]:
    return {f"dataset.modalities.{modality}.transform": name for modality in _raw_pictures(job)}


def _vision_resolution(job: Job, pixels: int) -> dict[str, Any]:
    sizes = {f"dataset.modalities.{modality}.size": pixels for modality in _raw_pictures(job)}
    return sizes | {"model.encoders.video.image_size": pixels}


def _mode(job: Job, name: str) -> dict[str, Any]:
    if (name == "testing") != job.is_test:
        raise ConfigError(
            f"--mode {name}: {job.config.source} is a file for {'testing' if job.is_test else 'training'}; "
            "name one for the other: tests are called test_*.yaml."
        )
    return {}


def _samples(initial: str) -> Callable[[Job, int], dict[str, Any]]:
    def settings(job: Job, number: int) -> dict[str, Any]:
        streams = [
            name
            for name, entry in (job.config.dataset.modalities or {}).items()
            if name.startswith(initial) and entry.get("path")
        ]
        if not streams:
            raise ConfigError(
                f"{job.config.source}: dataset.modalities has no stream that starts with {initial!r}."
            )
        return {f"dataset.modalities.{name}.max_len": number for name in streams}

    return settings


def _train_batch_size(job: Job, number: int) -> dict[str, Any]:
    if number % job.processes:
        raise ConfigError(
            f"--train_batch_size {number} is of all {job.processes} processes and not a multiple of "
            f"{job.processes}."
        )
    return {"fairseq.dataset.batch_size": number // job.processes}


def _train_epoch(job: Job, number: float) -> dict[str, Any]:
    follows_share = job.config.fairseq.get("optimization", {}).get("lr_scheduler") == "warmup_share"
    if number == int(number) and not follows_share:
        return {"fairseq.optimization.max_epoch": int(number)}
    return _train_steps(job, job.updates())  # fairseq knows whole epochs only


def _train_steps(job: Job, number: int) -> dict[str, Any]:
    steps = {"fairseq.optimization.max_update": number}
    if job.config.fairseq.get("optimization", {}).get("lr_scheduler") == "warmup_share":
        return steps  # goes by max_update
    return steps | {"fairseq.optimization.total_num_update": number}


def _valid_freq(job: Job, number: int) -> dict[str, Any]:
    every = max(1, job.updates() // number)
    return {"fairseq.dataset.validate_interval_updates": every, "fairseq.dataset.disable_validation": False}


def _checkpoint(job: Job, path: str) -> dict[str, Any]:
    if job.is_test:
        return {"fairseq.common_eval.path": path}
    fresh = {f"fairseq.checkpoint.reset_{what}": True for what in ("optimizer", "dataloader", "meters")}
    return {"fairseq.checkpoint.restore_file": path, **fresh}


def newest_checkpoint(folder: str) -> str:
    """The last checkpoint of a run: of the release, `ckpt/model_step_<n>.pt`, or of ours."""
    released = sorted(
        Path(folder, "ckpt").glob("model_step_*.pt"), key=lambda path: int(path.stem.rsplit("_", 1)[1])
    )
    return str(released[-1]) if released else f"{folder}/checkpoint_last.pt"


def _output_dir(job: Job, path: str) -> dict[str, Any]:
    return (
        {"eval.save_path": f"{path}/eval"}
        if job.is_test
        else {"fairseq.checkpoint.save_dir": path, "eval.save_path": f"{path}/eval"}
    )


def _frozen(name: str) -> Callable[[Job, bool], dict[str, Any]]:
    def settings(job: Job, frozen: bool) -> dict[str, Any]:
        others = [other for other in job.config.model.frozen or [] if other != name]
        return {"model.frozen": [*others, name] if frozen else others}

    return settings


def _already_so(flag: str) -> Callable[[Job, bool], dict[str, Any]]:
    def settings(job: Job, wanted: bool) -> dict[str, Any]:
        if not wanted:
            always = "the best checkpoint is always kept, and a run resumed in its folder"
            raise ConfigError(f"--{flag} false: {always}. Use a new --output_dir.")
        return {}

    return settings


def _bool(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError(f"expected true or false, got {text!r}")
    return known[text.lower()]


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0 or math.isinf(number):
        raise ValueError("expected a number above 0")
    return number


def _whole(text: str) -> int:
    number = _positive(text)
    if number != int(number):
        raise ValueError(f"expected a whole number, got {text}")
    return int(number)


TRAIN, TEST, BOTH = "train", "test", "both"
FLAGS: dict[str, tuple[str, Callable[[str], Any], Callable[[Job, Any], dict[str, Any]]]] = {
    "train_task": (TRAIN, str, _train_task),
    "train_vision_sample_num": (TRAIN, _whole, _samples("v")),
    "train_audio_sample_num": (TRAIN, _whole, _samples("a")),
    "train_batch_size": (TRAIN, _whole, _train_batch_size),
    "train_epoch": (TRAIN, _positive, _train_epoch),
    "train_steps": (TRAIN, _whole, _train_steps),
    "test_task": (TEST, str, _test_task),
    "test_vision_sample_num": (TEST, _whole, _samples("v")),
    "test_audio_sample_num": (TEST, _whole, _samples("a")),
    "test_batch_size": (TEST, _whole, lambda job, number: {"fairseq.dataset.batch_size": number}),
    "learning_rate": (TRAIN, _positive, lambda job, rate: {"fairseq.optimization.lr": [rate]}),
    "valid_freq": (TRAIN, _whole, _valid_freq),
    "checkpointing": (TRAIN, _bool, lambda job, on: {"model.activation_checkpointing": on}),
    "frozen_vision": (TRAIN, _bool, _frozen("video")),
    "frozen_audio": (TRAIN, _bool, _frozen("audio")),
    "itm_ratio": (TRAIN, float, lambda job, weight: _of_gram_loss(job, "dam_weight", weight)),
    "itm_rerank_num": (TEST, int, lambda job, number: {"eval.rerank": number}),
    "beam_size": (TEST, _whole, lambda job, number: {"gen_param.num_beams": number}),
    "checkpoint": (BOTH, str, _checkpoint),
    "pretrain_dir": (BOTH, str, lambda job, folder: _checkpoint(job, newest_checkpoint(folder))),
    "vision_transforms": (BOTH, str, _vision_transforms),
    "vision_resolution": (BOTH, _whole, _vision_resolution),
    "mode": (BOTH, str, _mode),
    "output_dir": (BOTH, str, _output_dir),
    "save_best": (TRAIN, _bool, _already_so("save_best")),
    "resume": (TRAIN, _bool, _already_so("resume")),
}


def overrides(given: Mapping[str, Any], config: Config, is_test: bool, processes: int) -> Iterator[str]:
    """`--set` texts for one job; flags of the other kind of job are shown as left out."""
    job = Job(config, is_test, processes, given)
    for flag, value in given.items():
        where, _, settings = FLAGS[flag]
        if where == (TRAIN if is_test else TEST):
            lines.info(
                f"[JobLauncher] --{flag} is for {where}ing jobs and changes nothing in {config.source}"
            )
            continue
        for key, setting in settings(job, value).items():
            yield f"{key}={json.dumps(setting)}"
