"""Pictures of an evaluation. They need matplotlib (extra `plots`) and no display.

Letters: N captions or queries, M clips or gallery items.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpt.utils.optional import optional_import

Interval = tuple[float, float]


def _figure(width: float, height: float):
    figure = optional_import("matplotlib.figure", "plots")
    canvas = optional_import("matplotlib.backends.backend_agg", "plots")
    drawing = figure.Figure(figsize=(width, height), layout="constrained")
    canvas.FigureCanvasAgg(drawing)
    return drawing


def _save(figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def plot_rank_histogram(path: str | Path, ranks: Sequence[float], n_items: int, title: str = "") -> Path:
    """How many queries find their item at which rank (logarithmic axis)."""
    figure = _figure(6, 3.5)
    axes = figure.subplots()
    edges = np.unique(np.geomspace(1, n_items + 1, 30).round(2))
    axes.hist(ranks, bins=edges)
    axes.set(xscale="log", xlabel=f"rank of the right item (of {n_items})", ylabel="queries", title=title)
    return _save(figure, path)


def plot_score_matrix(path: str | Path, scores: np.ndarray, title: str = "") -> Path:
    """Scores (N, M) as an image; a good model shows a bright diagonal."""
    figure = _figure(6, 5)
    axes = figure.subplots()
    figure.colorbar(axes.imshow(np.asarray(scores), aspect="auto", interpolation="nearest"))
    axes.set(xlabel="gallery item", ylabel="query", title=title)
    return _save(figure, path)


def plot_alignment(
    path: str | Path,
    plan: np.ndarray,
    truth: Sequence[Interval | None],
    clips: Sequence[Interval],
    captions: Sequence[str] | None = None,
    title: str = "",
) -> Path:
    """One long video: which clips the transport plan couples with each caption, beside what each caption really describes.

    Args:
        path: PNG (or any format matplotlib writes).
        plan: (N, M) coupling mass of captions and clips.
        truth: (N) true interval of each caption in seconds; None for a caption that describes nothing shown.
        clips: (M) interval of each clip in seconds.
        captions: (N) texts, to label the rows.
        title: headline.

    Raises:
        ValueError: sizes do not agree.
    """
    plan = np.asarray(plan, dtype=np.float64)
    if plan.shape != (len(truth), len(clips)):
        raise ValueError(f"plan is {plan.shape} for {len(truth)} captions and {len(clips)} clips; expected a row and a column for each.")
    figure = _figure(13, 1.8 + 0.28 * len(truth))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    colours = optional_import("matplotlib", "plots").colormaps["viridis"]
    strength = plan / max(plan.max(), np.finfo(np.float64).tiny)
    for row, weights in enumerate(strength):
        bars = [(start, end - start) for start, end in clips]
        left.broken_barh(bars, (row - 0.45, 0.9), facecolors=colours(weights))
        if truth[row] is not None:
            start, end = truth[row]
            right.broken_barh([(start, end - start)], (row - 0.45, 0.9), facecolors="tab:orange")
    left.set(title="transport plan", xlabel="seconds", ylabel="caption")
    right.set(title="true alignment", xlabel="seconds")
    if captions is not None:
        left.set_yticks(range(len(captions)), [text if len(text) <= 48 else text[:45] + "..." for text in captions], fontsize=7)
    left.invert_yaxis()
    figure.suptitle(title)
    return _save(figure, path)
