"""Every knob of the embedded world. Equal settings give equal bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WORLD_VERSION = 6  # raise it whenever the same settings give other bytes


def knob(default: Any, help: str) -> Any:
    """A field whose meaning can be listed."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What makes the world hard. Probabilities in [0, 1], times in seconds, weights relative to unit
    vectors."""

    p_chatter: float = knob(0.30, "share of all sentences that tell no step")
    p_misleading: float = knob(0.5, "share of the chatter that names parts which are not shown")
    p_silent: float = knob(0.25, "a step is shown but not told")
    p_follow: float = knob(0.4, "a told step gets a weak second sentence")
    p_tool_named: float = knob(0.6, "a sentence on a step with a tool names the tool")
    offset_s: float = knob(
        4.0, "standard deviation by which a sentence is early or late; each video is shifted by half as much"
    )
    p_word: float = knob(0.05, "per word: misheard (half lost, half replaced by another word)")
    p_filler: float = knob(0.06, "per word: a filler before it")
    p_false_start: float = knob(0.10, "a sentence repeats its first one to three words")

    p_dropped: float = knob(0.15, "a step of the task is left out of a video")
    p_repeated: float = knob(0.3, "one step of a video is shown again at once")
    p_exchanged: float = knob(0.3, "two neighbouring steps of a video change places")

    visible_verb: float = knob(0.8, "per second of a step: the action can be seen")
    visible_object: float = knob(0.9, "per second of a step: the ingredient can be seen")
    visible_third: float = knob(0.6, "per second of a step: the tool or second ingredient can be seen")
    p_scenery: float = knob(0.7, "per second between steps: one of twelve general views is shown")
    w_verb: float = knob(1.0, "weight of the action")
    w_object: float = knob(1.0, "weight of the ingredient")
    w_third: float = knob(0.8, "weight of the tool or second ingredient")
    w_pair: float = knob(
        0.4,
        "weight of a look that only this action with this ingredient has; nothing predicts it for unseen "
        "pairs",
    )
    w_scenery: float = knob(1.2, "weight of a general view")
    w_who: float = knob(0.8, "weight of the person, new in every video")
    w_where: float = knob(0.8, "weight of the place, new in every video")
    w_drift: float = knob(0.5, "weight of a slow drift (light, camera)")
    w_noise: float = knob(1.5, "weight of the noise of a single second")

    p_no_sound: float = knob(0.1, "a video has no sound track")
    audible_verb: float = knob(0.8, "per second of a step: the action can be heard")
    audible_tool: float = knob(0.6, "per second of a step with a tool: the tool can be heard")
    w_sound_verb: float = knob(1.0, "weight of the action in the sound")
    w_sound_tool: float = knob(0.8, "weight of the tool in the sound")
    w_room: float = knob(0.8, "weight of the sound of the room, new in every video")
    w_hiss: float = knob(1.2, "weight of the noise of a single second of sound")


NOISE = {
    "clean": Noise(
        p_chatter=0.05, p_silent=0.05, offset_s=1.0, p_word=0.01, p_filler=0.02, p_false_start=0.02
    ),
    "moderate": Noise(),
    "heavy": Noise(
        p_chatter=0.50, p_silent=0.45, offset_s=10.0, p_word=0.10, p_filler=0.10, p_false_start=0.15
    ),
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything there is."""

    train_videos: int = knob(1600, "narrated training videos")
    tasks: int = knob(400, "tasks (ordered lists of steps) that training videos follow")
    val_videos: int = knob(64, "narrated videos of the same tasks, held back")
    labelled_videos: int = knob(
        48, "videos of the same tasks with clean labels, for fine-tuning and the further test formats"
    )
    test_groups: int = knob(25, "groups of five look-alike test videos")
    test_singles: int = knob(35, "test videos without look-alikes")
    max_gallery: int = knob(512, "largest number of clips in the clip-retrieval galleries")
    videos_per_shard: int = knob(256, "videos in one shard file")


SIZES = {
    "tiny": Size(
        train_videos=48,
        tasks=12,
        val_videos=4,
        labelled_videos=12,
        test_groups=2,
        test_singles=6,
        max_gallery=64,
        videos_per_shard=16,
    ),
    "small": Size(train_videos=800, tasks=200, val_videos=32),
    "main": Size(),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that the bytes of a world depend on."""

    seed: int = 0
    noise: Noise = NOISE["moderate"]
    size: Size = SIZES["main"]
    dropout: float = 0.1  # of the small BERT whose config is written beside the data
    p_held_out: float = 0.2  # share of (verb, ingredient) pairs that only test videos show
    p_partner: float = 0.5  # a step has a second ingredient instead of a tool

    def fingerprint(self) -> str:
        """SHA-256 over every setting and the version of the generator."""
        text = json.dumps([WORLD_VERSION, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_knobs(self, knobs: Mapping[str, float]) -> Settings:
        """A copy with some knobs of noise, size or the settings themselves changed.

        Raises:
            ValueError: unknown knob, or a value out of range; the message names it.
        """
        settings = self
        for name, value in knobs.items():
            if name in Noise.__dataclass_fields__:
                settings = dataclasses.replace(
                    settings, noise=dataclasses.replace(settings.noise, **{name: float(value)})
                )
            elif name in Size.__dataclass_fields__:
                settings = dataclasses.replace(
                    settings, size=dataclasses.replace(settings.size, **{name: int(value)})
                )
            elif name in ("dropout", "p_held_out", "p_partner"):
                settings = dataclasses.replace(settings, **{name: float(value)})
            else:
                known = ", ".join(
                    [
                        *Noise.__dataclass_fields__,
                        *Size.__dataclass_fields__,
                        "dropout",
                        "p_held_out",
                        "p_partner",
                    ]
                )
                raise ValueError(f"unknown knob {name!r} of the embedded world. Known: {known}.")
            _check(name, value)
        return settings


def _check(name: str, value: float) -> None:
    is_probability = name.startswith(("p_", "visible_", "audible_")) or name == "dropout"
    least = 1 if name in Size.__dataclass_fields__ and not name.startswith("test_") else 0
    if value < least or (is_probability and value > 1) or (name == "p_chatter" and value >= 1):
        raise ValueError(
            f"knob {name}={value}: expected "
            f"{'a probability' if is_probability else f'a number of at least {least}'}."
        )
