"""JSON configurations of the GRAM release as project files of ours, and the flags that say which jobs run.

    python locallaunch.py --config config/gram/finetune_cfg/retrieval-msrvtt.json --learning_rate 2e-5
    --checkpointing true --first_eval true --save_best true --pretrain_dir PRETRAINED --output_dir OUT

A file of theirs holds `data_cfg` {train: [sets], val: [sets]}, `run_cfg` and `model_cfg`. A set names its
annotation (txt), folders (vision, audio), frames and slices, task, batch and length. What a set says becomes
settings of `e2e/base.yaml` or `e2e/test_base.yaml`; what run and model say become flags, below those of the
command line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt.config import ConfigError, load_config, recursive_config
from mmpt.config.load import find_project
from mmpt.launch.gram_flags import FLAGS, JOBS, TRAIN, WITHOUT_EFFECT, Job, overrides, parse_task
from mmpt.launch.torchrun import Topology
from mmpt.utils.text import TextError, read_json, shown

if TYPE_CHECKING:
    from mmpt.launch.pipeline import Request

E2E = "projects/retri/gram/e2e"
BASE = f"{E2E}/base.yaml"
OURS = {  # their files -> ours
    "pretrain-gram": "pretrain",
    "retrieval-msrvtt": "vtt",
    "retrieval-didemo": "didemo",
    "retrieval-activitynet": "anet",
    "retrieval-vatex": "vatex",
    "retrieval-youcook": "youcook",
    "retrieval-audiocaps": "audiocaps",
    "retrieval-clothov2": "clotho",
    "retrieval-lsmdc": "lsmdc",
    "retrieval-valor32k": "valor32k",
    "retrieval-flickr": "flickr",
    "retrieval-mscoco": "mscoco",
    "pretrain_msrvtt": "vtt_scratch",
    "pretrain_activity": "anet_scratch",
    "pretrain_vast": "vast/pretrain",
}
RELEASED_RATE = 1e-4  # of a file that names none
EXTRA_COLUMNS = 9  # of dataset.max_len beside max_caption_len: dataset.max_video_len 8, and [SEP]
SUBTITLE = {"max_len": 71}
FORMATS = ("video_rawvideo", "video_frame", "image_rawimage")


def jobs_of(path: str | None, request: Request) -> Iterator[tuple[str, Request]]:
    """The jobs, in order, that a file or --config stands for with --mode, --zero_shot and --first_eval.

    Args:
        path: a project file; None: the file that --config names.
        request: how it is to be run; its flags of `JOBS` are answered here.

    Raises:
        ConfigError: a file is missing or is for the other kind of job; names what to do.
    """
    flags = dict(request.gram)
    chosen = {name: flags.pop(name) for name in JOBS if name in flags}
    plain = dataclasses.replace(request, gram=flags)
    asked = {name for name in ("zero_shot", "first_eval") if chosen.get(name)}
    if path is None:
        training, tests = read_config(chosen["config"], plain)
    elif "base_dir" in recursive_config(path):  # a pipeline has jobs of its own
        yield path, plain
        return
    else:
        evaluates = (recursive_config(path).get("dataset") or {}).get("split") == "test"
        wants_test = bool(asked) or chosen.get("mode") == "testing"
        tests = [(path, plain)] if evaluates else [(twin(path), plain)] if wants_test else []
        training = None if evaluates else (path, plain)
        if evaluates and chosen.get("mode") == "training":
            raise ConfigError(f"--mode training: {path} is a test file; name one for training.")
    if chosen.get("mode") == "testing" or training is None:
        yield from tests
        return
    if asked and not tests:
        raise ConfigError(f"{chosen['config']}: {' and '.join(sorted(asked))} without a set in data_cfg.val.")
    for test in tests if asked else ():
        yield before(training, test, with_folder="zero_shot" not in asked)
    if "zero_shot" not in asked:
        yield training


def twin(path: str) -> str:
    """The test file beside a training file."""
    found = Path(path).with_name(f"test_{Path(path).name}")
    if not find_project(found).is_file():
        raise ConfigError(
            f"{path}: to evaluate it (--first_eval, --zero_shot, --mode testing) takes a test file beside "
            f"it, {found}, which is not there. Write it, or name another test file."
        )
    return str(found)


def before(
    training: tuple[str, Request], test: tuple[str, Request], with_folder: bool
) -> tuple[str, Request]:
    """The test of the checkpoint that a training starts from."""
    config = load_config(training[0], (*training[1].settings, *training[1].overrides))
    flags = {
        name: value
        for name, value in test[1].gram.items()
        if name in FLAGS and FLAGS[name][0] != TRAIN and name not in WITHOUT_EFFECT
    }
    if "checkpoint" not in flags and "pretrain_dir" not in flags:
        if not config.trainer.restore_file:
            raise ConfigError(
                f"{training[0]} starts from no checkpoint, so that there is nothing to evaluate before "
                "training. Add --checkpoint or --pretrain_dir, or leave out --first_eval and --zero_shot."
            )
        flags["checkpoint"] = config.trainer.restore_file
    if with_folder:
        flags["output_dir"] = f"{flags.get('output_dir') or config.trainer.save_dir}/first_eval"
    return test[0], dataclasses.replace(test[1], gram=flags, job_type=None, topology=Topology())


def read_config(path: str, request: Request) -> tuple[tuple[str, Request] | None, list[tuple[str, Request]]]:
    """The training and the tests of a JSON configuration.

    Raises:
        ConfigError: no such file, or not such a file; names the project file of ours.
    """
    tree = _read(path)
    said = {**_flags(tree.get("model_cfg"), path), **_flags(tree.get("run_cfg"), path)}
    sets = tree["data_cfg"]
    trained, tested = (list(sets.get(name) or []) for name in ("train", "val"))
    columns = {"dataset.max_len": tree.get("model_cfg", {}).get("max_caption_len", 40) + EXTRA_COLUMNS}
    name = Path(path).stem
    training = None
    if trained:
        # the release trains on what its items have, whatever the letters of ret%...
        asked = [entry.get("task") for entry in tested] if len(trained) == 1 else []
        read = [
            columns
            | _streams(entry, path, [entry.get("task"), *asked])
            | {"dataset.train_path": entry["txt"]}
            for entry in trained
        ]
        settings, flags = read[0], _to_train(trained[0])
        if len(trained) > 1:
            mixed, steps = _mixed(trained, read, request)
            settings, flags = settings | mixed, flags | {"train_steps": steps}
        settings["dataset.val_path"] = tested[0]["txt"] if tested else None
        settings["fairseq.checkpoint.save_dir"] = f"runs/retri/gram/{name}"
        settings["eval.save_path"] = f"runs/retri/gram/{name}/eval"
        training = BASE, _with(request, settings, {"learning_rate": RELEASED_RATE} | said | flags)
    tests = []
    for entry in tested:
        settings = columns | _streams(entry, path, [entry.get("task")]) | {"dataset.test_path": entry["txt"]}
        settings["eval.save_path"] = f"runs/retri/gram/{name}/eval"
        tests.append((f"{E2E}/test_base.yaml", _with(request, settings, said | _of_set(entry, "test"))))
    if training is None and not tests:
        raise ConfigError(f"{path}: data_cfg names neither a training nor a validation set.")
    return training, tests


def _to_train(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Flags of a training set; without the task where it only finds, see `read_config`."""
    flags = _of_set(entry, "train")
    if all(kind == "ret" for kind, _ in parse_task(flags["train_task"])):
        del flags["train_task"]
    return flags


def _mixed(
    trained: list[dict[str, Any]], read: list[dict[str, Any]], request: Request
) -> tuple[dict[str, Any], int]:
    """Settings of a training on several sets, and its updates, of which each set has its share.

    Args:
        trained: the sets.
        read: settings of each alone.
        request: its flags for all sets count for each.

    Raises:
        ConfigError: a flag that is for a single set.
    """
    single = sorted({"train_vision_sample_num", "train_audio_sample_num", "train_epoch"} & set(request.gram))
    if single:
        names = ", ".join(str(entry.get("name")) for entry in trained)
        raise ConfigError(f"--{single[0]} is for a training on one set; there are {len(trained)}: {names}.")
    mix: dict[str, Any] = {}
    streams: dict[str, dict[str, Any]] = {}
    for number, (entry, own) in enumerate(zip(trained, read, strict=True), 1):
        texts = [f"{key}={json.dumps(value)}" for key, value in own.items()]
        told = {key: request.gram[key] for key in ("train_task", "train_batch_size") if key in request.gram}
        flags, config = {**_to_train(entry), **told}, load_config(BASE, texts)
        processes = request.processes(config)
        updates = Job(config, False, processes, flags).updates()
        name = str(entry.get("name") or number)
        mix[name if name not in mix else f"{name}_{number}"] = {
            "project": BASE,
            "updates": updates,
            "settings": [*texts, *overrides(flags, config, False, processes)],
        }
        for modality, stream in own["dataset.modalities"].items():
            known = streams.setdefault(modality, dict(stream))
            known["max_len"] = max(known["max_len"], stream["max_len"])
    settings: dict[str, Any] = {"task": "MixedTask", "mix": mix, "dataset.modalities": streams}
    if {"video", "audio"} <= set(streams):
        settings["model.matching_condition"] = None
    if "video" in streams and read[0].get("model.learning_rates", 0) is None:
        settings["model.learning_rates"] = load_config(BASE).model.learning_rates
    return settings, round(sum(entry["updates"] for entry in mix.values()))


def _with(request: Request, settings: Mapping[str, Any], flags: Mapping[str, Any]) -> Request:
    texts = (f"{key}={json.dumps(value)}" for key, value in settings.items())
    if "checkpoint" in request.gram or "pretrain_dir" in request.gram:
        flags = {name: value for name, value in flags.items() if name not in ("checkpoint", "pretrain_dir")}
    return dataclasses.replace(request, settings=(*texts, *request.settings), gram={**flags, **request.gram})


def _read(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise ConfigError(f"--config {path}: no such file. Its settings are those of {_ours(path)}.")
    try:
        tree = read_json(path, dict)
    except TextError as error:
        raise ConfigError(f"--config {error}") from error
    if not isinstance(tree.get("data_cfg"), dict):
        raise ConfigError(
            f"--config {path}: expected run_cfg, model_cfg and data_cfg as the release has them, got "
            f"{shown(', '.join(tree))}."
        )
    return tree


def _ours(path: str) -> str:
    name = OURS.get(Path(path).stem)
    return f"{E2E}/{name}.yaml" if name else f"a project file of {E2E}"


def _flags(section: Mapping[str, Any] | None, path: str) -> dict[str, Any]:
    """Keys of run_cfg and model_cfg that are flags, too, each read as on the command line."""
    found = {}
    for name, value in (section or {}).items():
        if name in FLAGS and value not in (None, "", [], -1):
            words = value if isinstance(value, list) else [value]
            try:
                read = [FLAGS[name][1](str(word)) for word in words]
            except ValueError as error:
                raise ConfigError(f"--config {path}: {name}: {error}") from error
            found[name] = read if isinstance(value, list) else read[0]
    return found


def _of_set(entry: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Task, batch and length of a set, as flags."""
    named = {"task": f"{kind}_task", "batch_size": f"{kind}_batch_size"}
    named |= {"epoch": "train_epoch", "steps": "train_steps"} if kind == "train" else {}
    flags = {flag: entry[key] for key, flag in named.items() if entry.get(key)}
    if "train_steps" in flags:
        flags.pop("train_epoch", None)
    return flags | {name: flags[name].strip("'\" ") for name in (f"{kind}_task",) if name in flags}


def _streams(entry: Mapping[str, Any], path: str, tasks: Iterable[str | None]) -> dict[str, Any]:
    """`dataset.modalities` of a set: what the letters of the tasks name; and what the model makes of them."""
    missing = [key for key in ("txt", "task") if not entry.get(key)]
    if missing:
        raise ConfigError(f"--config {path}: a set of data_cfg has no {' and no '.join(missing)}.")
    groups = [group for task in tasks if task for group in parse_task(task.strip("'\" "))]
    letters = "".join(condition[1:] for _, conditions in groups for condition in conditions)
    form = entry.get("vision_format") or FORMATS[0]
    if set("vd") & set(letters) and form not in FORMATS:
        raise ConfigError(
            f"--config {path}: vision_format {form}: features are read without encoders here; see "
            "projects/retri/gram/vtt.yaml."
        )
    frames = {
        "raw": "frames",
        "transform": entry.get("vision_transforms") or "none",
        "max_len": 1 if form == "image_rawimage" else entry.get("vision_sample_num") or 1,
    }
    folder = str(entry.get("vision"))
    sound = {"path": entry.get("audio"), "raw": "sound", "max_len": entry.get("audio_sample_num") or 1}
    streams = {
        "v": ("video", {"path": folder, **frames}),
        "a": ("audio", sound),
        "s": ("subtitle", SUBTITLE),
        "d": ("depth", {"path": folder.replace("videos", "depth"), **frames}),
    }
    absent = [
        key for letter, key in (("v", "vision"), ("a", "audio")) if letter in letters and not entry.get(key)
    ]
    if absent:
        raise ConfigError(f"--config {path}: task {entry['task']} without a folder {' and '.join(absent)}.")
    chosen = {name: stream for letter, (name, stream) in streams.items() if letter in letters}
    settings: dict[str, Any] = {"dataset.modalities": chosen}
    if not {"video", "audio"} <= set(chosen):  # the matching head reads both where they are there
        settings["model.matching_condition"] = [name for name in chosen if name in ("video", "audio")]
    return settings if "video" in chosen else settings | {"model.learning_rates": None}
