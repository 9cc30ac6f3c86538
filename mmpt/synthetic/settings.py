"""Every knob of the synthetic world. Equal settings give equal bytes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from mmpt.config.fields import Section, option, read_section

S = TypeVar("S", bound=Section)
WORLD_VERSION = 6  # raise it whenever the same settings give other bytes


probability = functools.partial(option, least=0, most=1)
amount = functools.partial(option, least=0)
count = functools.partial(option, least=1)


@dataclass(frozen=True, kw_only=True)
class Noise(Section):
    """What makes the world hard. Probabilities in [0, 1], times in seconds, weights relative to unit
    vectors."""

    p_chatter: float = option(0.30, "share of all sentences that tell no step", least=0, most=0.99)
    p_misleading: float = probability(0.5, "share of the chatter that names parts which are not shown")
    p_silent: float = probability(0.25, "a step is shown but not told")
    p_follow: float = probability(0.4, "a told step gets a weak second sentence")
    p_tool_named: float = probability(0.6, "a sentence on a step with a tool names the tool")
    offset_s: float = amount(
        4.0, "standard deviation by which a sentence is early or late; each video is shifted by half as much"
    )
    p_word: float = probability(0.05, "per word: misheard (half lost, half replaced by another word)")
    p_filler: float = probability(0.06, "per word: a filler before it")
    p_false_start: float = probability(0.10, "a sentence repeats its first one to three words")

    p_dropped: float = probability(0.15, "a step of the task is left out of a video")
    p_repeated: float = probability(0.3, "one step of a video is shown again at once")
    p_exchanged: float = probability(0.3, "two neighbouring steps of a video change places")

    visible_verb: float = probability(0.8, "per second of a step: the action can be seen")
    visible_object: float = probability(0.9, "per second of a step: the ingredient can be seen")
    visible_third: float = probability(0.6, "per second of a step: the tool or second ingredient can be seen")
    p_scenery: float = probability(0.7, "per second between steps: one of twelve general views is shown")
    w_verb: float = amount(1.0, "weight of the action")
    w_object: float = amount(1.0, "weight of the ingredient")
    w_third: float = amount(0.8, "weight of the tool or second ingredient")
    w_pair: float = amount(
        0.4,
        "weight of a look that only this action with this ingredient has; nothing predicts it for unseen "
        "pairs",
    )
    w_scenery: float = amount(1.2, "weight of a general view")
    w_who: float = amount(0.8, "weight of the person, new in every video")
    w_where: float = amount(0.8, "weight of the place, new in every video")
    w_drift: float = amount(0.5, "weight of a slow drift (light, camera)")
    w_noise: float = amount(1.5, "weight of the noise of a single second")

    p_no_sound: float = probability(0.1, "a video has no sound track")
    audible_verb: float = probability(0.8, "per second of a step: the action can be heard")
    audible_tool: float = probability(0.6, "per second of a step with a tool: the tool can be heard")
    w_sound_verb: float = amount(1.0, "weight of the action in the sound")
    w_sound_tool: float = amount(0.8, "weight of the tool in the sound")
    w_room: float = amount(0.8, "weight of the sound of the room, new in every video")
    w_hiss: float = amount(1.2, "weight of the noise of a single second of sound")


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
class Size(Section):
    """How much of everything there is."""

    train_videos: int = count(1600, "narrated training videos")
    tasks: int = count(400, "tasks (ordered lists of steps) that training videos follow")
    val_videos: int = count(64, "narrated videos of the same tasks, held back")
    labelled_videos: int = count(
        48, "videos of the same tasks with clean labels, for fine-tuning and the further test formats"
    )
    test_groups: int = amount(25, "groups of five look-alike test videos")
    test_singles: int = amount(35, "test videos without look-alikes")
    max_gallery: int = count(512, "largest number of clips in the clip-retrieval galleries")
    videos_per_shard: int = count(256, "videos in one shard file")


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
class Settings(Section):
    """All that the bytes of a world depend on."""

    seed: int = 0
    noise: Noise = NOISE["moderate"]
    size: Size = SIZES["main"]
    dropout: float = probability(0.1, "of the small BERT whose config is written beside the data")
    p_held_out: float = probability(0.2, "share of (verb, ingredient) pairs that only test videos show")
    p_partner: float = probability(0.5, "a step has a second ingredient instead of a tool")

    def fingerprint(self) -> str:
        """SHA-256 over every setting and the version of the generator."""
        text = json.dumps([WORLD_VERSION, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_knobs(self, knobs: Mapping[str, Any]) -> Settings:
        """A copy with some knobs of noise, size or the settings themselves changed.

        Raises:
            ConfigError: unknown knobs, or values out of range; the message names them.
        """
        read = read_section(_Knobs, knobs, "knob")

        def changed(part: S) -> S:
            new = {name: getattr(read, name) for name in part.yaml_names() if name in knobs}
            return dataclasses.replace(part, **new)

        return dataclasses.replace(changed(self), noise=changed(self.noise), size=changed(self.size))


@dataclass(frozen=True, kw_only=True)
class _Knobs(Settings, Size, Noise):
    """Every knob by its name."""
