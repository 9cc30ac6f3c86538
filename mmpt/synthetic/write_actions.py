"""Short two-step activities, for action recognition and few-shot classification.

    actions/ucfTrainTestlist/classInd.txt        1 ChopOnionThenFryEgg
    actions/ucfTrainTestlist/trainlist01.txt     ChopOnionThenFryEgg/v_ChopOnionThenFryEgg_g02.avi 1
    actions/ucfTrainTestlist/testlist01.txt      ChopOnionThenFryEgg/v_ChopOnionThenFryEgg_g01.avi (folds 1-3)
    actions/feat/v_ChopOnionThenFryEgg_g01.npy   (seconds, 512)
    actions/audio/v_ChopOnionThenFryEgg_g01.npy  (seconds, 128) float16, of the videos with a sound track
    actions/train.list, val.list, test.list      5/v_FryEggThenChopOnion_g01: few-shot, distinct classes
    actions/sequences/5/<video>.npy              the same features by class folder

Every activity has a counterpart that shows its two steps in the other order: what is shown alone does not
tell them apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpt.synthetic.features import draw_features
from mmpt.synthetic.parts import OBJECTS, VERBS, Step, stream
from mmpt.synthetic.sound import draw_sound
from mmpt.synthetic.timeline import Video, lay_out
from mmpt.synthetic.world import World
from mmpt.synthetic.write import write_lines, write_npy

CLASSES_PER_SPLIT = 6
SPLITS = ("train", "val", "test")
VIDEOS_PER_CLASS = 6
RECOGNITION_SPLITS = 3  # in split k, a third of the videos of each class is tested


def write_actions(world: World, root: Path) -> None:
    """Write `actions/`."""
    folder = root / "actions"
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    classes = _classes(world)
    names = [
        "Then".join(VERBS[step.verb][0].title() + OBJECTS[step.obj][0].title() for step in steps)
        for steps in classes
    ]
    sequences: dict[str, list[str]] = {split: [] for split in SPLITS}
    recognition: dict[str, list[str]] = {}
    for label, (steps, name) in enumerate(zip(classes, names, strict=True)):
        for take in range(VIDEOS_PER_CLASS):
            video = f"v_{name}_g{take + 1:02d}"
            features, sound = _draw(world, steps, label * VIDEOS_PER_CLASS + take)
            write_npy(folder / "feat", video, features)
            if sound is not None:
                write_npy(folder / "audio", video, sound)
            write_npy(folder / "sequences" / str(label), video, features)
            sequences[SPLITS[label // CLASSES_PER_SPLIT]].append(f"{label}/{video}")
            for split in range(RECOGNITION_SPLITS):
                tested = take % RECOGNITION_SPLITS == split
                line = f"{name}/{video}.avi" + ("" if tested else f" {label + 1}")
                recognition.setdefault(f"{'test' if tested else 'train'}list{split + 1:02d}.txt", []).append(
                    line
                )
    for name, lines in sequences.items():
        write_lines(folder / f"{name}.list", lines)
    for file, lines in recognition.items():
        write_lines(lists / file, lines)
    write_lines(lists / "classInd.txt", [f"{number} {name}" for number, name in enumerate(names, start=1)])


def _classes(world: World) -> list[tuple[Step, Step]]:
    """Pairs of steps without a part in common, each followed by its reverse."""
    rng = stream(world.settings.seed, "activities")
    verbs, objects = rng.permutation(len(VERBS)), rng.permutation(len(OBJECTS))
    pairs = []
    for i in range(0, CLASSES_PER_SPLIT * len(SPLITS), 2):
        first, second = (
            Step(int(verbs[i + k]), int(objects[i + k]), third=i % 16, partner=False) for k in (0, 1)
        )
        pairs += [(first, second), (second, first)]
    return pairs


def _draw(world: World, steps: tuple[Step, Step], index: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Features and sound of one video."""
    rng, noise = stream(world.settings.seed, "activity", index), world.settings.noise
    video = Video("activity", index, *lay_out(steps, rng))
    sound = draw_sound(video, world.sounds, noise, stream(world.settings.seed, "activity sound", index))
    return draw_features(video, world.looks, noise, rng), sound
