"""One video with its file of captions: where each caption is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmpt.inference.mmpt_model import MMPTModel
from mmpt.processors.captions.readers import check_captions, read_captions


def aligned_captions(
    model: MMPTModel, video: Path, captions: Path, window_s: int = 4, relaxed: bool = False
) -> list[dict[str, Any]]:
    """Start and end of each caption on the path of the alignment, in seconds, and `mass`: the share of the
    caption's mass that the transport plan puts on those windows, 1 where path and plan agree.

    Args:
        model: a trained model.
        video: its file, or features `<id>.npy`.
        captions: a file that `read_captions` reads, of this video alone or of several with its id.
        window_s, relaxed: as in `MMPTModel.align`.

    Raises:
        ValueError: no captions of this video, or a caption has impossible times.
    """
    said = read_captions(captions)
    if len(said) > 1 and video.stem not in said:
        known = ", ".join(list(said)[:5])
        raise ValueError(f"{captions}: no captions of {video.stem}; it has those of {known}.")
    checked, _ = check_captions(said)
    clips = checked[video.stem if len(said) > 1 else next(iter(said))]
    if not clips["text"]:
        raise ValueError(f"{captions}: holds no caption of {video.stem}.")
    found = model.align(video, clips["text"], window_s, relaxed=relaxed)
    rows = []
    for index, text in enumerate(clips["text"]):
        cells = found.path[index]
        if not bool(cells.any()):  # left out, as a relaxed alignment may
            continue
        times = found.windows[cells]
        rows.append(
            {
                "start": float(times[:, 0].min()),
                "end": float(times[:, 1].max()),
                "mass": float(found.plan[index][cells].sum() / found.plan[index].sum()),
                "text": text,
            }
        )
    return rows
