"""The command-line flags of the GRAM release, as changes of a project file: what its users type goes on
working.

    python locallaunch.py projects/retri/gram/e2e/vtt.yaml --train_task ret%tva --learning_rate 2e-5
    python locallaunch.py projects/retri/gram/e2e/test_vtt.yaml --test_task ret%tv%tva --test_batch_size 64

Each of the 89 flags is one of four: it changes the project file (`FLAGS`), says which jobs run (`JOBS`, read
by `gram_json.py`), is refused with the way to go (`INSTEAD`), or did nothing in the release
(`WITHOUT_EFFECT`). Flags that start with train_ change training jobs, those with test_ prediction jobs.
`--set` has the last word.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.config import Config, ConfigError
from mmpt.utils.text import annotated_id, check_record, read_annotations, read_lines

lines = logging.getLogger("mmpt.lines")

KINDS = {"ret": None, "cap": "projects/mtm/vlm/youcookcap.yaml", "qa": "projects/mtm/vlm/vttqa.yaml"}
WRITING = {"cap": "CaptionLoss", "qa": "AnswerLoss"}  # losses of models that write
WRITTEN = {"cap": ("CaptionPredictor", "NLGMetric"), "qa": ("AnswerPredictor", "AnswerMetric")}
MASK_CAPTIONS = 0.6
DRAWN_FROM = 10  # likeliest tokens, in the release's captioner mode
JOBS = {
    "config": "JSON configuration of the release, in place of a project file",
    "mode": "training or testing; of a training file, testing runs its test_ file",
    "zero_shot": "run the test file alone, with the checkpoint that training would start from",
    "first_eval": "run the test file before training, too",
}
INSTEAD = {
    "bf16": "in the release it only switches --fp16 off; say --fp16 false, or train in bfloat16 by --set "
    "fairseq.common.bf16=true --set fairseq.common.amp=false",
    "local-rank": "locallaunch.py starts the processes itself: --nproc N",
}
# in the release, which parses them and reads them nowhere
WITHOUT_EFFECT = tuple(
    """
    amp beam_size_qa clip_lr_text concatenated_nums contra_ratio dataset_mix_type deepspeed dropout
    dual_softmax evaluate_ret_text frozen_llm grad_norm huggingface_trainer llm_model llm_type log_steps
    loss_type max_generation_len max_length max_output_txt_len max_text_tokens min_length model_cfg_file
    multimodal_encoder_type opt_model perceiver_mode pool_video pool_vision prompt qformer_question
    qformer_text_input scst_finetuning test_id train_id trainer_type use_deepspeed use_flash_attn
    use_proposal_conv vision_cut_frames vision_perceiver_query_num
    """.split()
)


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
        epochs = (
            self.given.get("train_epoch") or _optimization(self, "epochs") or self.config.trainer.max_epoch
        )
        if steps or not epochs:
            if not steps:
                raise ConfigError(
                    f"{self.config.source}: how long training takes is not known; add --train_steps or "
                    "--train_epoch."
                )
            return steps
        return max(1, int(count_items(self.config) // self.batch_size * epochs))


def counted_length(config: Config, processes: int) -> list[str]:
    """`--set` texts that make updates of `fairseq.optimization.epochs`, as the release counts them; none
    where the file does not say it, or the items are not here yet."""
    epochs = config.fairseq.get("optimization", {}).get("epochs")
    if not epochs:
        return []
    if not Path(config.dataset.train_path or "").is_file():
        lines.info(
            f"[JobLauncher] {epochs} epochs: updates are counted when {config.dataset.train_path} is there"
        )
        return []
    updates = Job(config, False, processes, {}).updates()
    return [f"fairseq.optimization.max_update={updates}", "fairseq.optimization.epochs=null"]


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
    if path.suffix != ".json":
        return len(read_lines(path))
    ids = set()
    for number, row in enumerate(read_annotations(path)):
        check_record(row, f"{path}: row {number}")
        name = annotated_id(row)
        ids.add(number if name is None else name)
    return len(ids)


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


def _drawn_captions(job: Job, _: Any) -> dict[str, Any]:
    """--captioner_mode and --generate_nums together; the second says nothing alone."""
    if not job.given.get("captioner_mode"):
        return {}
    return {"gen_param.draws": job.given.get("generate_nums", 1), "gen_param.top_k": DRAWN_FROM}


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


def _optimization(job: Job, key: str) -> Any:
    return job.config.fairseq.get("optimization", {}).get(key)


def _optim(job: Job, name: str) -> dict[str, Any]:
    if name != "adamw":
        raise ConfigError(
            f"--optim {name}: the recipes train by adamw, whose groups have rates of their own; another one: "
            f"--set fairseq.optimization.optimizer={name}."
        )
    return {}


def _rates(job: Job, _: Any) -> dict[str, Any]:
    """--clip_lr, --new_lr and --new_params_name together: part of a name -> its rate."""
    if _optimization(job, "optimizer") != "grouped_adamw":
        raise ConfigError(
            f"{job.config.source}: its optimizer has one rate for all; rates of parts of a model are in "
            "projects/retri/gram/e2e (optimizer: grouped_adamw)."
        )
    rates, names = dict(job.config.model.learning_rates or {}), job.given.get("new_params_name") or []
    rates |= {"visual": job.given["clip_lr"]} if "clip_lr" in job.given else {}
    if bool(names) != ("new_lr" in job.given):
        raise ConfigError("--new_lr is the rate of what --new_params_name lists; give both.")
    return {"model.learning_rates": rates | {name: job.given["new_lr"] for name in names}}


def _scheduler(job: Job, name: str) -> dict[str, Any]:
    kinds = {"warmup_linear": "linear", "warmup_cosine": "cosine"}
    if name not in kinds:
        raise ConfigError(f"--scheduler {name}: expected {' or '.join(kinds)}.")
    shares = {} if _follows_share(job) else {"fairseq.optimization.lr_scheduler": "warmup_share"}
    length = {} if _follows_share(job) else {"fairseq.optimization.max_update": job.updates()}
    return {**shares, **length, "fairseq.optimization.decay": kinds[name]}


def _follows_share(job: Job) -> bool:
    return _optimization(job, "lr_scheduler") == "warmup_share"


def _warmup_ratio(job: Job, share: float) -> dict[str, Any]:
    if _follows_share(job) or "scheduler" in job.given:
        return {"fairseq.optimization.warmup_ratio": share}
    return {"fairseq.optimization.warmup_updates": round(share * job.updates())}


def _fp16(job: Job, on: bool) -> dict[str, Any]:
    common = job.config.fairseq.get("common", {})
    if not on:
        return {"fairseq.common.fp16": False, "fairseq.common.amp": False}
    return {} if common.get("fp16") or common.get("amp") else {"fairseq.common.amp": True}


def _accumulation(job: Job, steps: int) -> dict[str, Any]:
    share = job.batch_size // job.processes
    if share % steps:
        raise ConfigError(
            f"--gradient_accumulation_steps {steps} parts the batch of a process, which is {share} and not a "
            f"multiple of {steps}."
        )
    return {"fairseq.dataset.batch_size": share // steps, "fairseq.optimization.update_freq": [steps]}


def _num_train_steps(job: Job, number: float) -> dict[str, Any]:
    return _train_steps(job, int(number)) if number else {}  # 0: as long as files and flags say


def _frame_embedding(job: Job, name: str) -> dict[str, Any]:
    if name != "adaptive":
        raise ConfigError(
            f"--frame_embedding_type {name}: expected adaptive; frames are told apart by embeddings."
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
    if number == int(number) and not (_follows_share(job) or "scheduler" in job.given):
        return {"fairseq.optimization.max_epoch": int(number)}
    return _train_steps(job, job.updates())  # fairseq knows whole epochs only


def _train_steps(job: Job, number: int) -> dict[str, Any]:
    steps: dict[str, Any] = {"fairseq.optimization.max_update": number}
    if _optimization(job, "epochs"):
        return steps | {"fairseq.optimization.epochs": None}
    if _follows_share(job) or "scheduler" in job.given:
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


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(f"expected a number from 0 to 1, got {text}")
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
    "captioner_mode": (TEST, _bool, _drawn_captions),
    "generate_nums": (TEST, _whole, _drawn_captions),
    "checkpoint": (BOTH, str, _checkpoint),
    "pretrain_dir": (BOTH, str, lambda job, folder: _checkpoint(job, newest_checkpoint(folder))),
    "vision_transforms": (BOTH, str, _vision_transforms),
    "vision_resolution": (BOTH, _whole, _vision_resolution),
    "output_dir": (BOTH, str, _output_dir),
    "gradient_accumulation_steps": (TRAIN, _whole, _accumulation),
    "optim": (TRAIN, str, _optim),
    "betas": (
        TRAIN,
        float,
        lambda job, betas: {"fairseq.optimization.adam_betas": f"({betas[0]}, {betas[1]})"},
    ),
    "weight_decay": (TRAIN, float, lambda job, decay: {"fairseq.optimization.weight_decay": decay}),
    "clip_lr": (TRAIN, _positive, _rates),
    "new_params_name": (TRAIN, str, _rates),
    "new_lr": (TRAIN, _positive, _rates),
    "scheduler": (TRAIN, str, _scheduler),
    "warmup_ratio": (TRAIN, _share, _warmup_ratio),
    "num_train_steps": (TRAIN, float, _num_train_steps),
    "seed": (TRAIN, int, lambda job, seed: {"fairseq.common.seed": seed}),
    "fp16": (TRAIN, _bool, _fp16),
    "remove_before_ckpt": (
        TRAIN,
        _bool,
        lambda job, alone: {"fairseq.checkpoint.keep_last_epochs": 1 if alone else -1},
    ),
    "vision_encoder_type": (BOTH, str, lambda job, name: {"model.encoders.video.name": name}),
    "frame_embedding_type": (BOTH, str, _frame_embedding),
    "contra_dim": (BOTH, _whole, lambda job, width: {"model.contra_dim": width}),
    "ret_bidirection_evaluation": (TEST, _bool, lambda job, on: {}),  # both directions are always reported
    "save_best": (TRAIN, _bool, _already_so("save_best")),
    "resume": (TRAIN, _bool, _already_so("resume")),
}


SEVERAL = {"betas": 2, "new_params_name": "+"}  # flags of more than one word
SWITCHES = ("first_eval", "zero_shot", *(flag for flag, (_, kind, _) in FLAGS.items() if kind is _bool))


def overrides(given: Mapping[str, Any], config: Config, is_test: bool, processes: int) -> Iterator[str]:
    """`--set` texts for one job; flags of the other kind of job are shown as left out."""
    job = Job(config, is_test, processes, given)
    for flag, value in given.items():
        if flag in WITHOUT_EFFECT:
            lines.info(f"[JobLauncher] --{flag} had no effect in the release, and has none here")
        if flag not in FLAGS:
            continue
        where, _, settings = FLAGS[flag]
        if where == (TRAIN if is_test else TEST):
            lines.info(
                f"[JobLauncher] --{flag} is for {where}ing jobs and changes nothing in {config.source}"
            )
            continue
        for key, setting in settings(job, value).items():
            yield f"{key}={json.dumps(setting)}"
