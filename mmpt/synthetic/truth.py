"""truth.json: what is really shown and told in every video of the synthetic world, and how to read it.

    {"train00000": {"split": "train", "task": 0, "kind": "", "group": -1, "length_s": 141,
      "steps": [{"start_s": 4, "end_s": 15, "label": "chop onion with knife", "verb": 0, "object": 0, "third":
      0, "partner": false}, ...], "captions": [{"text": "um now chop the onions", "start_s": 6.1, "end_s":
      8.1, "step": 0}, ...]}, ...}

A caption's `step` is an index into `steps`, -1 for chatter. Captions are the narration, in test videos the
clean sentence of each step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpt.synthetic.narration import Sentence
from mmpt.synthetic.parts import Step
from mmpt.synthetic.timeline import Video
from mmpt.utils.text import read_json

TRUTH = "truth.json"


@dataclass(frozen=True)
class Alignment:
    """Which caption belongs to which seconds of a video.

    Attributes:
        captions: texts, by start time.
        spoken_s: (captions, 2) when each is said, seconds.
        caption_step: (captions,) index of the step it tells, -1 for none.
        shown_s: (steps, 2) when each step is shown, [start, end) seconds.
        labels: short standard name of each step.
        steps: the steps themselves.
    """

    captions: list[str]
    spoken_s: np.ndarray
    caption_step: np.ndarray
    shown_s: np.ndarray
    labels: list[str]
    steps: list[Step]

    def matrix(self, spans_s: np.ndarray | None = None) -> np.ndarray:
        """Share of each span that shows what each caption tells, (captions, spans) in [0, 1].

        Args:
            spans_s: (spans, 2) seconds; default the steps themselves, which makes the matrix 0/1.
        """
        spans = self.shown_s if spans_s is None else np.asarray(spans_s, dtype=np.float64)
        overlap = np.minimum(self.shown_s[:, None, 1], spans[None, :, 1]) - np.maximum(
            self.shown_s[:, None, 0], spans[None, :, 0]
        )
        share = np.clip(overlap, 0, None) / np.maximum(spans[:, 1] - spans[:, 0], 1e-9)  # (steps, spans)
        return np.where(self.caption_step[:, None] >= 0, share[self.caption_step], 0.0)


def truth_alignment(root: str | Path, video_id: str) -> Alignment:
    """The truth on one video of a synthetic world.

    Args:
        root: folder that make_data wrote.
        video_id: any id of its lists, pickles or databases.

    Raises:
        KeyError: no such video.
    """
    path = Path(root) / TRUTH
    videos = read_json(path, dict)
    if video_id not in videos:
        raise KeyError(
            f"{path}: no video {video_id!r}; it holds {len(videos)} videos, e.g. {next(iter(videos))!r}."
        )
    steps, captions = videos[video_id]["steps"], videos[video_id]["captions"]
    return Alignment(
        captions=[caption["text"] for caption in captions],
        spoken_s=np.array([(caption["start_s"], caption["end_s"]) for caption in captions], dtype=np.float64),
        caption_step=np.array([caption["step"] for caption in captions], dtype=np.int64),
        shown_s=np.array([(step["start_s"], step["end_s"]) for step in steps], dtype=np.float64),
        labels=[step["label"] for step in steps],
        steps=[Step(step["verb"], step["object"], step["third"], step["partner"]) for step in steps],
    )


def truth_entry(video: Video, sentences: list[Sentence]) -> dict:
    """What truth.json says about one video."""
    steps = [
        {
            "start_s": segment.start_s,
            "end_s": segment.end_s,
            "label": segment.step.label(),
            "verb": segment.step.verb,
            "object": segment.step.obj,
            "third": segment.step.third,
            "partner": segment.step.partner,
        }
        for segment in video.segments
    ]
    captions = [{"text": s.text, "start_s": s.start_s, "end_s": s.end_s, "step": s.step} for s in sentences]
    about = {
        "split": video.split,
        "task": video.task,
        "kind": video.kind,
        "group": video.group,
        "length_s": video.length_s,
    }
    return {**about, "steps": steps, "captions": captions}
