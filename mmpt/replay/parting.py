"""The first update at which two runs are not the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mmpt.config import ConfigError
from mmpt.config.load import leaves
from mmpt.config.yamlfile import read_yaml
from mmpt.replay.log import RunLog
from mmpt.replay.repeat import Replay, repeat


@dataclass(frozen=True)
class Parting:
    """Where two runs part.

    Attributes:
        a: log of the first run.
        b: of the second.
        update: the first one whose gradients differ; None: all that both have logged are equal.
        equal: the last update up to which both are known to be equal.
        settings: key -> (value in a, value in b) where they differ, places of files aside.
        replays: of that update, in both runs.
    """

    a: RunLog
    b: RunLog
    update: int | None
    equal: int
    settings: dict[str, tuple[Any, Any]]
    replays: tuple[Replay, Replay] | None = None


def bisect(a: RunLog, b: RunLog, overrides: tuple[str, ...] = ()) -> Parting:
    """Find the first update at which two runs part, by the hashes of their gradients.

    Where they log every n-th update, the n updates of the interval in which they part are made again.

    Raises:
        ConfigError: no update was logged by both.
    """
    of_a, of_b = a.hashes, b.hashes
    both = sorted(of_a.keys() & of_b.keys())
    if not both:
        raise ConfigError(
            f"{a.folder} and {b.folder} have no logged update in common. They need the same "
            "fairseq.common.log_interval, or one that divides the other's."
        )
    settings = _differences(a, b)
    differing = next((update for update in both if of_a[update] != of_b[update]), None)
    if differing is None:
        return Parting(a, b, None, both[-1], settings)
    equal = max((update for update in both if update < differing), default=0)
    first = repeat(a, differing, equal, overrides), repeat(b, differing, equal, overrides)
    update = next(
        update
        for update in range(equal + 1, differing + 1)
        if first[0].hashes.get(update) != first[1].hashes.get(update) or update == differing
    )
    replays = (
        first
        if update == differing
        else (repeat(a, update, overrides=overrides), repeat(b, update, overrides=overrides))
    )
    return Parting(a, b, update, update - 1, settings, replays)


def _differences(a: RunLog, b: RunLog) -> dict[str, tuple[Any, Any]]:
    """Of the settings at their last start."""
    first, second = _settings(a), _settings(b)
    places = ("fairseq.checkpoint.save_dir", "eval.save_path")
    return {
        key: (first.get(key), second.get(key))
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key) and key not in places
    }


def _settings(log: RunLog) -> dict[str, Any]:
    settings = dict(leaves(read_yaml(log.folder / "config.yaml")))
    for text in log.starts[max(log.starts)].changes:
        key, _, value = text.partition("=")
        settings[key] = json.loads(value)
    return settings
