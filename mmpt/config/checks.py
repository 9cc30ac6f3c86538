"""Values that are fine alone and wrong together, found before anything expensive starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from mmpt.config.schema import Config
from mmpt.config.yamlfile import ConfigError

_RANGES = (("sampled_min_len", "sampled_max_len"), ("sampled_video_min_len", "sampled_video_max_len"))
_PROBABILITIES = ("keep_prob", "mlm_probability", "mfm_probability", "mm_prob")
_SPECIAL_TOKENS = 3  # [CLS] [SEP] ... [SEP] of the text tensor


def check_config(config: Config) -> None:
    """What holds for every project file.

    Raises:
        ConfigError: lists all that does not.
    """
    _raise(config, [*_dataset(config), *_sequences(config), *_windows(config), *_precision(config)])


def check_training(config: Config) -> None:
    """What a training job needs besides.

    Raises:
        ConfigError: lists all that is missing.
    """
    _raise(config, _training(config))


def _raise(config: Config, problems: Iterator[str] | list[str]) -> None:
    problems = list(problems)
    if problems:
        raise ConfigError(
            "\n".join(f"{config.source}: {problem}" if config.source else problem for problem in problems)
        )


def _dataset(config: Config) -> Iterator[str]:
    dataset = config.dataset
    for field in dataclasses.fields(dataset):
        value = getattr(dataset, field.name)
        if type(value) is int and value < 1 and field.name != "num_iso_layer":
            yield f"dataset.{field.name}={value}: expected at least 1."
    for low, high in _RANGES:
        smallest, largest = getattr(dataset, low), getattr(dataset, high)
        if smallest is not None and largest is not None and smallest > largest:
            yield f"dataset.{low}={smallest} is larger than dataset.{high}={largest}."
    for name in _PROBABILITIES:
        if not 0 <= getattr(dataset, name) <= 1:
            yield f"dataset.{name}={getattr(dataset, name)}: expected a probability between 0 and 1."
    if dataset.max_len is not None and dataset.max_video_len is not None:
        smallest = dataset.max_video_len + _SPECIAL_TOKENS + 1
        if dataset.max_len < smallest:
            yield (
                f"dataset.max_len={dataset.max_len} leaves no room for words beside "
                f"dataset.max_video_len={dataset.max_video_len} "
                f"and {_SPECIAL_TOKENS} special tokens. Use at least {smallest}."
            )


def _sequences(config: Config) -> Iterator[str]:
    section = (config.loss or {}).get("sequence_contrast")
    if not isinstance(section, Mapping) or not section.get("sequence_contrast_weight"):
        return
    length = section.get("threshold")
    name = "clip_per_video" if config.dataset.clip_per_video else "subsampling"
    clips = getattr(config.dataset, name)
    if isinstance(length, int) and length > 0 and clips and clips % length:
        yield (
            f"dataset.{name}={clips} is not a multiple of loss.sequence_contrast.threshold={length}; "
            f"sequences need whole groups. Use {-(-clips // length) * length}."
        )


def _windows(config: Config) -> Iterator[str]:
    """A loss that merges overlapping windows must know how they were cut."""
    loss = config.loss or {}
    parts = loss.get("losses") if isinstance(loss.get("losses"), list) else []
    for place, section in [("loss", loss), *((f"loss.losses[{i}]", part) for i, part in enumerate(parts))]:
        stride = section.get("sliding_window") if isinstance(section, Mapping) else None
        cut = config.dataset.sliding_window
        if None not in (stride, cut) and stride != cut:
            yield (
                f"{place}.sliding_window={stride} differs from dataset.sliding_window={cut}; set both "
                "to one number."
            )


def _precision(config: Config) -> Iterator[str]:
    common = config.fairseq.get("common", {})
    for flag in ("fp16", "bf16"):
        if common.get("cpu") is True and common.get(flag) is True:
            yield (
                f"fairseq.common.{flag}: true does not run beside fairseq.common.cpu: true. Set "
                f"fairseq.common.{flag}: false."
            )


def _training(config: Config) -> Iterator[str]:
    if config.dataset.split == "test":
        yield (
            "dataset.split: test makes this a test file; training from it makes no sense. Use --jobtype "
            "local_predict."
        )
        return
    if not config.fairseq.get("checkpoint", {}).get("save_dir"):
        yield (
            "fairseq.checkpoint.save_dir is missing: training needs a folder for checkpoints, for "
            "example runs/my_model."
        )
    if not config.dataset.train_path:
        yield "dataset.train_path is missing: training needs a list of items."
    if not config.model.model_cls:
        yield "model.model_cls is missing: training needs a model."
    if not (config.loss or {}).get("loss_cls"):
        yield "loss.loss_cls is missing: training needs a loss."
