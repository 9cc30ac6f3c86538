"""The world: what is held out, the tasks, and the videos of every split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmpt.synthetic.features import draw_features
from mmpt.synthetic.maps import Patches, draw_maps
from mmpt.synthetic.narration import Sentence, caption, narrate
from mmpt.synthetic.parts import OBJECTS, TOOLS, VERBS, Looks, Step, stream
from mmpt.synthetic.settings import Settings
from mmpt.synthetic.sound import Sounds, draw_sound
from mmpt.synthetic.timeline import Video, lay_out, vary

TASK_STEPS = (8, 13)
TEST_STEPS = (6, 10)
VIDEOS_PER_LABELLED_TASK = 4  # so that a task has labelled videos to train and to test on
LOOK_ALIKES = ("base", "permuted", "exchanged", "replaced", "swapped")


@dataclass(frozen=True)
class Plan:
    """What a test video shows."""

    steps: tuple[Step, ...]
    kind: str
    group: int


@dataclass(frozen=True)
class Clip:
    """One step of one video."""

    video: Video
    index: int

    @property
    def step(self) -> Step:
        return self.video.segments[self.index].step


class World:
    """All videos that some settings lead to; nothing is stored, a video is drawn when asked for.

    Splits: `train` and `val` (narrated, same tasks), `labelled` (a few of these tasks, narrated, with clean
        labels), `test` (pairs of verb and ingredient that no training video shows, clean captions, groups of
        look-alikes).

    Args:
        settings: seed, noise and sizes.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.looks, self.sounds, self.patches = (
            Looks(settings.seed),
            Sounds(settings.seed),
            Patches(settings.seed),
        )
        draw = stream(settings.seed, "held out").random((len(VERBS), len(OBJECTS)))
        self.held_out = draw < settings.p_held_out  # (verb, ingredient)
        self.tasks = [
            self._steps(TASK_STEPS, False, stream(settings.seed, "task", i))
            for i in range(settings.size.tasks)
        ]
        size = settings.size
        self.test_plans = [plan for group in range(size.test_groups) for plan in self._look_alikes(group)]
        for i in range(size.test_singles):
            self.test_plans.append(
                Plan(self._steps(TEST_STEPS, True, stream(settings.seed, "single", i)), "single", -1)
            )

    def count(self, split: str) -> int:
        """Number of videos of a split."""
        size = self.settings.size
        counts = {
            "train": size.train_videos,
            "val": size.val_videos,
            "labelled": size.labelled_videos,
            "test": len(self.test_plans),
        }
        return counts[split]

    def videos(self, split: str) -> Iterator[Video]:
        """The videos of a split, in order."""
        return (self.video(split, index) for index in range(self.count(split)))

    def clips(self, split: str) -> list[Clip]:
        """Every step of every video of a split, in order."""
        videos = self.videos(split)
        return [Clip(video, index) for video in videos for index in range(len(video.segments))]

    def video(self, split: str, index: int) -> Video:
        """One video, the same whatever was drawn before."""
        rng = stream(self.settings.seed, split, index, "timeline")
        if split == "test":
            plan = self.test_plans[index]
            return Video(split, index, *lay_out(plan.steps, rng), kind=plan.kind, group=plan.group)
        n_tasks = len(self.tasks)
        if split == "labelled":
            n_tasks = min(n_tasks, max(2, self.settings.size.labelled_videos // VIDEOS_PER_LABELLED_TASK))
        task = index % n_tasks
        steps = vary(self.tasks[task], self.settings.noise, rng)
        return Video(split, index, *lay_out(steps, rng), task=task)

    def features(self, video: Video) -> np.ndarray:
        """(seconds, 512) float16."""
        return draw_features(video, self.looks, self.settings.noise, self._stream(video, "features"))

    def maps(self, video: Video) -> np.ndarray:
        """(seconds, 4, 4, 32) float16."""
        return draw_maps(video, self.patches, self.settings.noise, self._stream(video, "maps"))

    def sound(self, video: Video) -> np.ndarray | None:
        """(seconds, 128) float16, or None for a video without sound track."""
        return draw_sound(video, self.sounds, self.settings.noise, self._stream(video, "sound"))

    def narration(self, video: Video) -> list[Sentence]:
        """What speech recognition hears, noise and all."""
        return narrate(video, self.settings.noise, self._stream(video, "narration"))

    def captions(self, video: Video, take: int = 0) -> list[str]:
        """A clean caption per step, as an annotator would write it; another annotator is another `take`."""
        rng = self._stream(video, "captions", take)
        return [caption(segment.step, rng) for segment in video.segments]

    def gallery(self, latest: bool = False) -> list[Clip]:
        """Test clips for clip retrieval, one per distinct step: first those whose role-swapped twin is there
        too, then the rest.

        Look-alike videos share steps; two clips of one step could not be told apart by any caption.

        Args:
            latest: show the last take of each step instead of the first: the same questions about other
                footage.
        """
        takes: dict[Step, Clip] = {}
        for video in self.videos("test"):
            for index, segment in enumerate(video.segments):
                if latest or segment.step not in takes:
                    takes[segment.step] = Clip(video, index)
        has_twin = [step for step in takes if step.partner and step.swapped() in takes]
        rest = [step for step in takes if not (step.partner and step.swapped() in takes)]
        return [takes[step] for step in (has_twin + rest)[: self.settings.size.max_gallery]]

    def _stream(self, video: Video, *theme: str | int) -> np.random.Generator:
        return stream(self.settings.seed, video.split, video.index, *theme)

    def _steps(self, bounds: tuple[int, int], held_out: bool, rng: np.random.Generator) -> tuple[Step, ...]:
        """Steps with distinct (verb, ingredient) pairs, all from one side of the split."""
        pairs = np.argwhere(self.held_out == held_out)
        n = min(int(rng.integers(bounds[0], bounds[1], endpoint=True)), len(pairs))
        return tuple(self._step(int(verb), int(obj), rng) for verb, obj in rng.permutation(pairs)[:n])

    def _step(self, verb: int, obj: int, rng: np.random.Generator) -> Step:
        """Complete a pair by a tool or a second ingredient. Exchanging the ingredients of a step never
        crosses the split."""
        partners = np.flatnonzero(self.held_out[verb] == self.held_out[verb, obj])
        partners = partners[partners != obj]
        if len(partners) and rng.random() < self.settings.p_partner:
            return Step(verb, obj, int(rng.choice(partners)), partner=True)
        return Step(verb, obj, int(rng.integers(len(TOOLS))), partner=False)

    def _look_alikes(self, group: int) -> list[Plan]:
        """Five videos that only order, one step, or the roles of ingredients tell apart."""
        rng = stream(self.settings.seed, "look-alikes", group)
        base = self._steps(TEST_STEPS, True, rng)
        while not any(step.partner for step in base) and self.settings.p_partner > 0:
            base = self._steps(TEST_STEPS, True, rng)
        at = int(rng.integers(len(base) - 1))
        exchanged = (*base[:at], base[at + 1], base[at], *base[at + 2 :])
        permuted = base
        while permuted in (base, exchanged):
            permuted = tuple(base[i] for i in rng.permutation(len(base)))
        at = int(rng.integers(len(base)))
        other = next(step for step in self._steps(TEST_STEPS, True, rng) if step not in base)
        replaced = (*base[:at], other, *base[at + 1 :])
        swapped = tuple(step.swapped() for step in base)
        return [
            Plan(steps, kind, group)
            for kind, steps in zip(LOOK_ALIKES, (base, permuted, exchanged, replaced, swapped), strict=True)
        ]
