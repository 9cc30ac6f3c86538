"""Everything that is wrong with a project file, found at once and before anything expensive starts.

All sections are read with the keys of all classes named in them; torch and fairseq are not imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpt.config.build import all_names, names_in, read_config
from mmpt.config.fairseq_options import OPTIONS
from mmpt.config.fields import ConfigError, Problem, Reader, is_number, keys_of
from mmpt.config.schema import Config
from mmpt.registry import (
    LOSSES,
    META_PROCESSORS,
    REGISTRIES,
    TASKS,
    Entry,
    Registry,
    UnknownName,
    add_plugins,
)

_RANGES = (("sampled_min_len", "sampled_max_len"), ("sampled_video_min_len", "sampled_video_max_len"))
_SPECIAL_TOKENS = 3  # [CLS] [SEP] ... [SEP] of the text tensor
_CHOSEN = ("optimizer", "lr_scheduler")  # options of fairseq that bring further ones
_EVALUATION = {"path"}  # `fairseq.common_eval`: read by evaluation, no option of fairseq-train


def named_files(settings: Mapping[str, Any]) -> dict[str, str]:
    """Key -> path, of the keys of a `dataset:` section that name something to read."""
    ends = ("_path", "_dir", "_annotation")
    return {
        key: value
        for key, value in settings.items()
        if value and isinstance(value, str) and key.endswith(ends) and key not in ("target_dir", "cache_dir")
    }


def check(config: str | Path | Mapping[str, Any] | Config, overrides: Iterable[str] = ()) -> list[Problem]:
    """What is wrong with a project file, and (level "note") what it sets without effect; empty: nothing.

    Args:
        config: path of the file, what is in one, or a config.
        overrides: `section.key=value` texts merged last.
    """
    from mmpt.config import load  # it calls `examine`

    try:
        read, problems = load.examined(config, overrides)
    except ConfigError as error:  # not YAML, or a file is missing
        return error.problems
    if read.base_dir is None and not read.predictor and read.dataset.split != "test":
        problems += training_problems(read)
    return problems


def check_training(config: Config) -> None:
    """What a training job needs besides what every project file does.

    Raises:
        ConfigError: lists all that is missing.
    """
    problems = training_problems(config)
    if problems:
        raise ConfigError(problems)


def training_problems(config: Config) -> list[Problem]:
    """What training lacks."""
    if config.dataset.split == "test":
        what = "test makes this a test file; training from it makes no sense."
        cure = "Use --jobtype local_predict."
        return [Problem("dataset.split", what, cure=cure, file=config.source)]
    wanted = {
        "fairseq.checkpoint.save_dir": (
            config.trainer.save_dir,
            "a folder for checkpoints, for example runs/my_model",
        ),
        "dataset.train_path": (config.dataset.train_path, "a list of items"),
        "model.model_cls": (config.model.model_cls, "a model"),
        "loss.loss_cls": ((config.loss or {}).get("loss_cls"), "a loss"),
    }
    optimization, length = config.fairseq.get("optimization", {}), "fairseq.optimization.max_update"
    updates, epochs = optimization.get("max_update"), optimization.get("epochs")
    if optimization.get("lr_scheduler") == "warmup_share":
        wanted[length] = updates or epochs, "it, or epochs: lr_scheduler warmup_share ends where it does"
    problems = [
        Problem(key, f"{key} is missing: training needs {what}.", file=config.source)
        for key, (value, what) in wanted.items()
        if not value
    ]
    if updates and epochs:
        what = f"max_update={updates} and epochs={epochs} say two things."
        problems.append(Problem(length, what, cure="Set one of them to null.", file=config.source))
    return problems + _groups(config)


def _groups(config: Config) -> list[Problem]:
    """A task that trains on groups of videos, and a data set that makes none."""
    key, name = "dataset.meta_processor", config.dataset.meta_processor
    task, data = TASKS.entries().get(config.task or ""), META_PROCESSORS.entries().get(name or "")
    if not (task and data and data.cls and getattr(task.cls, "GROUPS", False)):
        return []
    if getattr(data.cls, "GROUPS", False):
        return []
    what = f"{name} lists single items, but {config.task} trains on groups of videos."
    cure = "Set task: Task, or include a project file of single items, such as projects/toy/vtt_ft.yaml."
    return [Problem(key, f"{key}: {what}", cure=cure, file=config.source)]


def examine(
    tree: Mapping[str, Any], source: str, origin: Callable[[str], str] | None = None
) -> tuple[Config, list[Problem]]:
    """A resolved project file, typed as far as it can be read, and its problems.

    Args:
        tree: what `recursive_config` returns.
        source: the file.
        origin: dotted key -> the file that sets it.
    """
    reader = Reader(origin or (lambda key: source), all_names)
    tree = {**tree, **_plugins(tree, source, reader)}
    for key, name in names_in(tree).items():
        for registry in REGISTRIES.values():
            if key in registry.keys and registry is not LOSSES and isinstance(name, str):
                _described(registry, key, name, reader)
    config = read_config(tree, source, reader)
    if isinstance(config.loss, Mapping):
        readers = _loss(config.loss, "loss", config, reader)
        _temperature(config, readers, reader)
    _fairseq(config, reader)
    _mix(config, reader)
    for problem in contradictions(config):
        reader.add(problem.key, problem.what, cure=problem.cure)
    return config, reader.problems


def _plugins(tree: Mapping[str, Any], source: str, reader: Reader) -> dict[str, Any]:
    """`plugins` with the paths of files; their classes are known from here on."""
    plugins = tree.get("plugins")
    if not isinstance(plugins, list) or not all(isinstance(plugin, str) for plugin in plugins):
        return {}
    places = [Path(), *Path(source).resolve().parents]
    found = []
    for plugin in plugins:
        files = [
            folder / plugin for folder in places if plugin.endswith(".py") and (folder / plugin).is_file()
        ]
        plugin = str(files[0]) if files else plugin
        try:
            add_plugins([plugin])
        except ImportError as error:
            reader.add("plugins", str(error).removeprefix("plugins: "))
        found.append(plugin)
    return {"plugins": found}


def _described(registry: Registry, key: str, name: str, reader: Reader) -> Entry | None:
    """What the index knows of the class that a key names."""
    try:
        return registry.describe(name)
    except UnknownName as error:
        reader.add(key, f"unknown {registry.kind} {name!r}.", got=name, cure=error.hint)
        return None


def _temperature(config: Config, losses: Mapping[str, bool | None], reader: Reader) -> None:
    """A temperature that nothing reads, or that is applied twice.

    Args:
        losses: name -> whether it reads a temperature that the model learns; None: not known.
    """
    model = config.model
    learns, scales = model.learnable_temperature, model.similarity == "cosine"
    if learns and losses and not any(reads is None or reads for reads in losses.values()):
        key = "model.learnable_temperature"
        what = f"{key}: true trains a logit_scale that {' and '.join(losses)} does not read."
        divides = ", or loss.temperature: 0.07, with which it does" if _can_divide(losses) else ""
        reader.add(key, what, cure=f"Set {key}: false{divides}.")
    divided = (config.loss or {}).get("temperature") is not None
    if scales and (learns or divided):
        second = "model.learnable_temperature: true" if learns else "loss.temperature"
        what = f"model.similarity: cosine has a learned scale already; {second} would scale scores twice."
        key = second.partition(":")[0]
        reader.add(key, what, cure=f"Leave out {key}, or set model.similarity: dot.")


def _can_divide(losses: Iterable[str]) -> bool:
    configs = [LOSSES.describe(name).config for name in losses]
    return any(config is not None and "temperature" in keys_of(config) for config in configs)


def _loss(section: Mapping[str, Any], place: str, config: Config, reader: Reader) -> dict[str, bool | None]:
    """A loss with its own keys, and the losses that it is made of; name of each -> whether it reads a
    temperature that the model learns, None where that is not known."""
    name = section.get("loss_cls")
    if not isinstance(name, str):
        if name is not None or place != "loss":
            reader.add(f"{place}.loss_cls", expected="the name of a loss", got=name)
        return {}
    entry = _described(LOSSES, f"{place}.loss_cls", name, reader)
    if entry is None or entry.config is None:
        return {name: None}
    before = len(reader.problems)
    of_sum = () if place == "loss" else ("weight", "name")  # keys of a part, not of its loss
    own = {key: value for key, value in section.items() if key not in ("loss_cls", *of_sum)}
    read = reader.section(entry.config, own, place)
    if read is not None and len(reader.problems) == before and hasattr(read, "check_data"):
        try:
            read.check_data(config.dataset)
        except ValueError as error:  # the sentence begins with the key to be changed
            begun = re.match(r"(dataset|loss)[\w.]+", str(error))
            reader.add(begun[0] if begun else place, str(error))
    parts: dict[str, bool | None] = {}
    for key, value in own.items():
        for i, part in enumerate(value if isinstance(value, list) else ()):
            if isinstance(part, Mapping) and "loss_cls" in part:
                parts |= _loss(part, f"{place}.{key}[{i}]", config, reader)
                if not is_number(part.get("weight", 1.0)):
                    reader.add(f"{place}.{key}[{i}].weight", expected="a number", got=part["weight"])
    said = getattr(read, "reads_logit_scale", None)
    return parts or {name: "logit_scale" in entry.given if said is None else said}


def _fairseq(config: Config, reader: Reader) -> None:
    """Flags that fairseq-train does not know, and values that it does not take."""
    flags = {
        (group, name): value
        for group, names in config.fairseq.items()
        for name, value in names.items()
        if not (group == "common_eval" and name in _EVALUATION)
    }
    known, mine = dict(OPTIONS[""]), {name: value for (_, name), value in flags.items()}
    for chooser in _CHOSEN:
        variants = {
            when.partition("=")[2]: names for when, names in OPTIONS.items() if when.startswith(chooser)
        }
        value = mine.get(chooser)
        if value in variants:
            known |= variants[value]
            continue
        # none is named, or one that is not known: do not complain of its options as well
        known |= {name: kind for names in variants.values() for name, kind in names.items()}
        if value is not None and not config.plugins:
            place = next(f"fairseq.{group}.{name}" for group, name in flags if name == chooser)
            near = difflib.get_close_matches(str(value), variants, n=1)
            cure = f"Did you mean {near[0]}?" if near else ""
            reader.add(place, expected=f"one of {', '.join(variants)}", got=value, cure=cure)
    if config.plugins and any(mine.get(chooser) not in (None, *_values(chooser)) for chooser in _CHOSEN):
        return  # what a plugin registers with fairseq has options of its own
    for (group, name), value in flags.items():
        place = f"fairseq.{group}.{name}"
        if name not in known:
            reader.add(place, "fairseq-train has no such option.", got=value, cure=_flag_hint(name, known))
        elif value is not None and not _takes(known[name], value):
            reader.add(place, expected=_FLAG_WORDS[known[name]], got=value)


def _mix(config: Config, reader: Reader) -> None:
    """The project files of the sets that a training mixes."""
    from mmpt.config import load  # it calls `examine`

    for name, entry in (config.mix or {}).items():
        if isinstance(entry, Mapping) and isinstance(entry.get("project"), str):
            try:
                _, found = load.examined(entry["project"], entry.get("settings") or [])
            except ConfigError as error:  # not YAML, or a file is missing
                found = error.problems
            reader.problems += [
                dataclasses.replace(p, file=f"mix.{name}: {p.file}") for p in found if p.level == "error"
            ]
        else:
            reader.add(f"mix.{name}.project", expected="a project file", got=entry)


_FLAG_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "ints": "whole numbers",
    "float": "a number",
    "floats": "numbers",
    "text": "a value",
}


def _values(chooser: str) -> list[str]:
    return [when.partition("=")[2] for when in OPTIONS if when.startswith(chooser)]


def _takes(kind: str, value: Any) -> bool:
    if kind in ("ints", "floats"):
        several = value.strip("()[] ").split(",") if isinstance(value, str) else value
        several = [one.strip() if isinstance(one, str) else one for one in _listed(several)]
        return all(_takes(kind.removesuffix("s"), one) for one in several)
    if isinstance(value, list) and len(value) == 1:  # is passed on as its element
        value = value[0]
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "float":
        return is_number(value)
    if kind == "int":
        return is_number(value) and float(value).is_integer() and not isinstance(value, float)
    return not isinstance(value, bool | dict)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _flag_hint(name: str, known: Mapping[str, str]) -> str:
    owners = [when.replace("=", ": ") for when, names in OPTIONS.items() if name in names]
    if owners:
        return f"It goes with {' or '.join(owners)}."
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else ""


def contradictions(config: Config) -> Iterator[Problem]:
    """Values that are fine alone and wrong together."""
    dataset, trainer = config.dataset, config.trainer
    for low, high in _RANGES:
        smallest, largest = getattr(dataset, low), getattr(dataset, high)
        if smallest is not None and largest is not None and smallest > largest:
            what = f"dataset.{low}={smallest} is larger than dataset.{high}={largest}."
            yield Problem(f"dataset.{low}", what)
    if dataset.max_len is not None and dataset.max_video_len is not None:
        smallest = dataset.max_video_len + _SPECIAL_TOKENS + 1
        if dataset.max_len < smallest:
            what = (
                f"dataset.max_len={dataset.max_len} leaves no room for words beside "
                f"dataset.max_video_len={dataset.max_video_len} and {_SPECIAL_TOKENS} special tokens."
            )
            yield Problem("dataset.max_len", what, cure=f"Use at least {smallest}.")
    if config.eval.compat is True and config.eval.tie_rule in ("optimistic", "pessimistic"):
        what = (
            f"eval.tie_rule={config.eval.tie_rule} has no effect beside eval.compat: true, the released rule."
        )
        yield Problem("eval.tie_rule", what, cure="Set eval.compat: false.")
    if trainer.cpu is True and trainer.fp16 is True:
        what = "fairseq.common.fp16: true does not run beside fairseq.common.cpu: true."
        cure = "Set fairseq.common.fp16: false, or in its place fairseq.common.bf16: true."
        yield Problem("fairseq.common.fp16", what, cure=cure)
