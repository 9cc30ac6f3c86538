"""Small versions of the further end-task data sets, from the labelled and test videos; whole-video features
are those in `videos/`.

coin/COIN.json                   {"database": {video: {"subset", "annotation":
                                     [{"id", "label", "segment"}]}}}, ids from 1
crosstask/tasks_primary.txt, tasks_related.txt
                                 records of id, title, url, number of steps, comma-separated steps; a blank
                                 line between two
crosstask/videos.csv, videos_val.csv      task,video,url
crosstask/annotations/<task>_<video>.csv  step (from 1),start,end
didemo/test_data.json            [{"video", "description", "times": [[first chunk, last chunk], ...]}]
didemo/feat                      30 s each
msrvtt/MSR_MC_test.csv           tab-separated vid_key, a1 .. a5, answer (0 .. 4)
how2-align/htm_align.json        {video: [[alignable, start, end, text], ...]}
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpt.synthetic.narration import Sentence
from mmpt.synthetic.parts import Step, stream
from mmpt.synthetic.timeline import Segment, Video
from mmpt.synthetic.world import Clip, World
from mmpt.synthetic.write import write_json, write_npy
from mmpt.synthetic.write_test_sets import write_table

CHUNK_S, CHUNKS = 5, 6  # DiDeMo: 30 s in six chunks
ANNOTATORS = 4
CHOICES = 5
FIRST_TASK_ID = 100001


def write_downstream(world: World, root: Path) -> None:
    """Write `coin/`, `crosstask/`, `didemo/`, `how2-align/` and the multiple-choice file of `msrvtt/`."""
    _write_coin(world, root / "coin")
    _write_crosstask(world, root / "crosstask")
    _write_didemo(world, root / "didemo")
    _write_multiple_choice(world, root / "msrvtt" / "MSR_MC_test.csv")
    _write_htm_align(world, root / "how2-align" / "htm_align.json")


def _write_coin(world: World, folder: Path) -> None:
    """Every second video of a task is for testing; the classes are the steps that occur, those of the test
    videos first."""
    videos = list(world.videos("labelled"))
    nth = {video.id: sum(other.task == video.task for other in videos[: video.index]) for video in videos}
    tested = {segment.step.label() for video in videos if nth[video.id] % 2 for segment in video.segments}
    labels = {segment.step.label() for video in videos for segment in video.segments}
    ids = {
        label: i
        for i, label in enumerate(sorted(labels, key=lambda label: (label not in tested, label)), start=1)
    }
    database = {}
    for video in videos:
        annotation = [
            {
                "id": str(ids[segment.step.label()]),
                "label": segment.step.label(),
                "segment": [float(segment.start_s), float(segment.end_s)],
            }
            for segment in video.segments
        ]
        subset = "testing" if nth[video.id] % 2 else "training"
        database[video.id] = {"subset": subset, "duration": float(video.length_s), "annotation": annotation}
    write_json(folder / "COIN.json", {"database": database})


def _write_crosstask(world: World, folder: Path) -> None:
    """Two thirds of the tasks are primary, the rest related; the last video of a primary task is for
    validation."""
    videos = list(world.videos("labelled"))
    tasks = sorted({video.task for video in videos})
    n_primary = max(1, 2 * len(tasks) // 3)
    for name, members in (("tasks_primary.txt", tasks[:n_primary]), ("tasks_related.txt", tasks[n_primary:])):
        _write_text(folder / name, "".join(_task_record(world, task) for task in members))
    rows = {video.id: (FIRST_TASK_ID + video.task, video.id, f"synthetic://{video.id}") for video in videos}
    last = {video.task: video.id for video in videos if video.task in tasks[:n_primary]}
    write_table(folder / "videos.csv", None, rows.values())
    write_table(folder / "videos_val.csv", None, [rows[video_id] for video_id in last.values()])
    for video in videos:
        numbers = {step: number for number, step in enumerate(world.tasks[video.task], start=1)}
        shown = [
            (numbers[segment.step], float(segment.start_s), float(segment.end_s))
            for segment in video.segments
        ]
        write_table(folder / "annotations" / f"{FIRST_TASK_ID + video.task}_{video.id}.csv", None, shown)


def _task_record(world: World, task: int) -> str:
    steps = [step.label() for step in world.tasks[task]]
    number = FIRST_TASK_ID + task
    return f"{number}\nTask {task}\nsynthetic://task/{task}\n{len(steps)}\n{','.join(steps)}\n\n"


def _write_didemo(world: World, folder: Path) -> None:
    """One 30 s piece of every test video that is long enough, and the sentence of a step in it."""
    records = []
    for video in world.videos("test"):
        if video.length_s < CHUNK_S * CHUNKS:
            continue
        rng = stream(world.settings.seed, "didemo", video.index)
        index = int(rng.integers(len(video.segments)))
        segment = video.segments[index]
        start = int(
            np.clip(
                segment.start_s - rng.integers(CHUNK_S * CHUNKS // 2), 0, video.length_s - CHUNK_S * CHUNKS
            )
        )
        name = f"moment{video.index:05d}"
        write_npy(folder / "feat", name, world.features(video)[start : start + CHUNK_S * CHUNKS])
        times = [_chunks(segment, start)] * ANNOTATORS
        records.append({"video": name, "description": world.captions(video)[index], "times": times})
    write_json(folder / "test_data.json", records)


def _chunks(segment: Segment, start_s: int) -> list[int]:
    """First and last chunk of the piece that the step fills by half at least, or else the one it fills
    most."""
    edges = start_s + CHUNK_S * np.arange(CHUNKS)
    filled = np.minimum(segment.end_s, edges + CHUNK_S) - np.maximum(segment.start_s, edges)
    inside = np.flatnonzero(2 * filled >= min(CHUNK_S, 2 * filled.max()))
    return [int(inside[0]), int(inside[-1])]


def _write_multiple_choice(world: World, path: Path) -> None:
    """The true caption of each gallery clip among four others, the role-swapped twin's included where there
    is one."""
    gallery = world.gallery()
    captions = {clip.step: world.captions(clip.video)[clip.index] for clip in gallery}
    rows = [(f"msr{i}", *_choices(world, i, clip, captions)) for i, clip in enumerate(gallery)]
    write_table(path, ("vid_key", *(f"a{n}" for n in range(1, CHOICES + 1)), "answer"), rows, delimiter="\t")


def _choices(world: World, index: int, clip: Clip, captions: dict[Step, str]) -> tuple[str | int, ...]:
    rng = stream(world.settings.seed, "multiple choice", index)
    twin = [clip.step.swapped()] if clip.step.partner and clip.step.swapped() in captions else []
    others = [step for step in captions if step not in (clip.step, *twin)]
    wrong = twin + [others[i] for i in rng.permutation(len(others))[: CHOICES - 1 - len(twin)]]
    answer = int(rng.integers(CHOICES))
    steps = [*wrong[:answer], clip.step, *wrong[answer:]]
    return (*(captions[step] for step in steps), answer)


def _write_htm_align(world: World, path: Path) -> None:
    """The narration of the labelled videos; a sentence is alignable where it tells a step, and its times are
    then the step's."""
    write_json(
        path,
        {
            video.id: [_judged(video, sentence) for sentence in world.narration(video)]
            for video in world.videos("labelled")
        },
    )


def _judged(video: Video, sentence: Sentence) -> list:
    if sentence.step < 0:
        return [0, sentence.start_s, sentence.end_s, sentence.text]
    shown = video.segments[sentence.step]
    return [1, float(shown.start_s), float(shown.end_s), sentence.text]


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
