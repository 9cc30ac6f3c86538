"""The main job's page: its tables, some long videos that training did not see with their alignment and the
truth, the curves of its trainings, and an index to search."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.inference import MMPTModel
from mmpt.inference.align import VideoAlignment, align_video
from mmpt.inference.loading import weights_sha256
from mmpt.inference.search import updated
from mmpt.pages.alignment import write_alignment
from mmpt.pages.render import link, write
from mmpt.pages.report import write_report
from mmpt.pages.runs import read_run
from mmpt.synthetic.truth import truth_alignment
from mmpt.utils import ShardedTensor, load_plain_pickle
from mmpt.utils.text import read_json

VIDEOS, WINDOW_S = 6, 4


def write_pages(out: Path, data: str, features: Path, runs: Mapping[str, Path], results: Path) -> Path:
    """Writes `index.html`, `pages/<id>.html`, `report.html` and `index/` into `out`.

    Args:
        out: folder of the main job, whose `model` aligns and searches.
        data: the synthetic data.
        features: its shards of features.
        runs: name -> run folder.
        results: `results.json` of the main job.

    Returns:
        The page to open.
    """
    source = (out / "model").resolve()
    model = MMPTModel.from_pretrained(source, video_encoder=None)[0]
    videos = load_plain_pickle(features / "val_meta.pkl")[0]
    shard = ShardedTensor.load(features / "val_0")
    seconds = {str(name): np.array(shard[index], np.float32) for index, name in enumerate(videos)}
    rows = []
    for name in list(seconds)[:VIDEOS]:
        video = _aligned(model, name, seconds[name], data)
        video.save(out / "alignments" / name)
        page = write_alignment(out / "pages" / f"{name}.html", video, home="../index.html")
        rows.append({"id": name, "page": link(page, out), "video": video, "agreement": agreement(video)})
    weights = weights_sha256(model.fusion)
    origin: dict[str, Any] = {"model": str(source), "checkpoint": None, "weights": weights, "files": {}}
    shutil.rmtree(out / "index", ignore_errors=True)
    updated(out / "index", model, seconds, origin | {"window": min(8, model.max_video_len), "stride": None})
    report = write_report(out / "report.html", [read_run(folder, name) for name, folder in runs.items()])
    found = read_json(results, dict, nan=True)
    values = {"tables": found["tables"], "facts": found["facts"], "rows": rows, "report": link(report, out)}
    title = "A model of long videos and text, trained here"
    return write(out / "index.html", "demo.html", title=title, out=str(out), **values)


def agreement(video: VideoAlignment) -> dict[str, float]:
    """Method -> share of the captions that are shown whose span holds the middle of where they are shown."""
    shown = [(index, span) for index, span in enumerate(video.truth or ()) if span is not None]
    return {
        method: sum(
            found is not None and found[0] <= sum(span) / 2 < found[1]
            for found, span in ((spans[index], span) for index, span in shown)
        )
        / max(1, len(shown))
        for method, spans in video.spans.items()
    }


def _aligned(model: MMPTModel, name: str, features: np.ndarray, data: str) -> VideoAlignment:
    truth = truth_alignment(data, name)
    spoken = truth.spoken_s.tolist()
    clips = {
        "start": [start for start, _ in spoken],
        "end": [end for _, end in spoken],
        "text": truth.captions,
    }
    steps = truth.shown_s.tolist()
    shown = [tuple(steps[step]) if step >= 0 else None for step in truth.caption_step.tolist()]
    return align_video(model, name, features, clips, WINDOW_S, truth=shown)
