"""Pictures of an evaluation. They need matplotlib (extra `reports`) and no display.

Letters: N captions or queries, M clips or gallery items, T seconds, K labels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec

import numpy as np

from mmpt.utils.optional import optional_import

P = ParamSpec("P")
Interval = tuple[float, float]
# distinguishable with any colour vision (Okabe and Ito)
BLUE, ORANGE, GREEN, PINK, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c8c8c"
MARKS = (
    (BLUE, "o"),
    (ORANGE, "s"),
    (GREEN, "^"),
    (PINK, "D"),
    ("#e69f00", "v"),
    ("#56b4e9", "P"),
    ("black", "X"),
)
PATH_STYLES = ((BLUE, "-", 5), (GREEN, "-", 2.5), (PINK, ":", 1.5))
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "image.cmap": "viridis",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mmpt",  # the same picture has the same bytes
}


def _styled(plot: Callable[P, Path]) -> Callable[P, Path]:
    @functools.wraps(plot)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Path:
        with optional_import("matplotlib", "reports").rc_context(STYLE):
            return plot(*args, **kwargs)

    return styled


def _figure(width: float, height: float):
    figure = optional_import("matplotlib.figure", "reports")
    canvas = optional_import("matplotlib.backends.backend_agg", "reports")
    drawing = figure.Figure(figsize=(width, height), layout="constrained")
    canvas.FigureCanvasAgg(drawing)
    return drawing


def _save(figure, path: str | Path) -> Path:
    """Writes the picture, and beside a PNG the same as SVG."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    if path.suffix == ".png":
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return path


@_styled
def plot_rank_histogram(path: str | Path, ranks: Sequence[float], n_items: int, title: str = "") -> Path:
    """How many queries find their item at which rank (logarithmic axis); a bar holds whole ranks."""
    figure = _figure(6, 3.5)
    axes = figure.subplots()
    edges = rank_edges(n_items)
    counts, _, _ = axes.hist(ranks, bins=edges, color=BLUE, edgecolor="white", linewidth=0.5)
    top = max(counts)
    median, chance = float(np.median(ranks)), (n_items + 1) / 2
    for name, at, colour, height in (("median", median, ORANGE, 1.06), ("chance", chance, GREY, 1.16)):
        axes.vlines(at, 0, height * top, color=colour)
        axes.text(at, height * top, f"{name} {at:g}", color=colour, ha="center", va="bottom")
    axes.set(xscale="log", xlabel=f"rank of the right item (of {n_items})", ylabel="queries", title=title)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.26 * top))
    axes.xaxis.set_major_formatter("{x:g}")
    return _save(figure, path)


@_styled
def plot_score_matrix(path: str | Path, scores: np.ndarray, shape: tuple[int, int]) -> Path:
    """Scores of captions and clips as an image; a good model shows a bright diagonal.

    Args:
        path: PNG (or any format matplotlib writes).
        scores: rows and columns evenly spread over the whole matrix.
        shape: (N, M) of the whole matrix, which the axes count.
    """
    figure = _figure(6, 5)
    axes = figure.subplots()
    n, m = shape
    image = axes.imshow(np.asarray(scores), extent=(0, m, n, 0), aspect="auto", interpolation="nearest")
    figure.colorbar(image, label="score")
    axes.set(xlabel="clip", ylabel="caption")
    return _save(figure, path)


@_styled
def plot_alignment(
    path: str | Path,
    plan: np.ndarray,
    clips: Sequence[Interval],
    captions: Sequence[str],
    *,
    truth: Sequence[Interval | None] | None = None,
    said: Sequence[Interval] | None = None,
    frames: Sequence[tuple[Interval, np.ndarray, str]] = (),
    title: str = "",
) -> Path:
    """One long video: which clips the transport plan couples with each caption, beside when the caption is
    said and where it is really shown.

    Args:
        path: PNG (or any format matplotlib writes).
        plan: (N, M) coupling mass of captions and clips.
        clips: (M) interval of each clip in seconds.
        captions: (N) texts, which label the rows.
        truth: (N) true interval of each caption in seconds; None for a caption that describes nothing shown.
        said: (N) interval in which each caption is said, in seconds.
        frames: of the video, for a strip above: the seconds that each one stands for, an image (H, W, 3), and
            what is on it.
        title: headline.

    Raises:
        ValueError: sizes do not agree.
    """
    plan = np.asarray(plan, dtype=np.float64)
    if plan.shape != (len(captions), len(clips)):
        raise ValueError(
            f"plan is {plan.shape} for {len(captions)} captions and {len(clips)} clips; expected a row and a "
            "column for each."
        )
    matplotlib = optional_import("matplotlib", "reports")
    strip = 2.9 if frames else 0.0  # rows that the frames and what is on them take
    figure = _figure(9, 1.5 + 0.18 * (len(captions) + strip))
    axes = figure.subplots()
    shades = matplotlib.cm.ScalarMappable(
        matplotlib.colors.Normalize(0, 100 * max(plan.max(), np.finfo(np.float64).tiny)), "Blues"
    )
    for row, weights in enumerate(plan):
        bars = [(start, end - start) for start, end in clips]
        axes.broken_barh(bars, (row - 0.42, 0.84), facecolors=shades.to_rgba(100 * weights))
    outline = {"facecolors": "none", "edgecolors": ORANGE, "linewidth": 2}
    line = {"color": "black", "linewidth": 2.5, "solid_capstyle": "butt"}
    if truth is not None:
        for row, shown in enumerate(truth):
            if shown is not None:
                axes.broken_barh([(shown[0], shown[1] - shown[0])], (row - 0.42, 0.84), **outline)
        axes.broken_barh([], (0, 0), **outline, label="where it is shown")
    if said is not None:
        for row, spoken in enumerate(said):
            axes.plot(spoken, [row + 0.42] * 2, **line)
        axes.plot([], [], **line, label="when it is said")
    figure.colorbar(shades, ax=axes, label="mass of the transport plan, percent", pad=0.01)
    for (start, end), image, shows in frames:
        edge = (end - start) / 20
        place = (start + edge, end - edge, -1.8, -0.6 - strip)
        axes.imshow(image, extent=place, aspect="auto", interpolation="antialiased")
        axes.text((start + end) / 2, -1.75, shows, ha="center", va="top", fontsize=7, linespacing=1.0)
    axes.set(xlabel="seconds", title=title, xlim=(0, max(end for _, end in clips)))
    axes.set_ylim(len(captions) - 0.4, -0.6 - strip)
    names = [text if len(text) <= 44 else text[:41] + "..." for text in captions]
    axes.set_yticks(range(len(names)), names, fontsize=8)
    if truth is not None and any(shown is None for shown in truth):
        for label, shown in zip(axes.get_yticklabels(), truth, strict=True):
            label.set_color("black" if shown is not None else GREY)
        axes.plot([], [], " ", label="grey: nothing of it is shown")
    axes.tick_params(axis="y", length=0)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower right", ncols=3)
    return _save(figure, path)


@_styled
def plot_paths(
    path: str | Path, cost: np.ndarray, paths: Mapping[str, np.ndarray], plan: np.ndarray, title: str = ""
) -> Path:
    """One long video against its paragraph: alignment paths as lines and the transport plan as dots, over the
    cost of each pair. Where paths run together each is seen beside the next one, which is thinner.

    Args:
        path: PNG (or any format matplotlib writes).
        cost: (N, M) the largest score less the score of each pair; dark = close.
        paths: name -> (N, M) bool, the cells of a monotone path.
        plan: (N, M) coupling mass; a dot's area is its share of the largest one.
        title: headline.
    """
    n, m = np.shape(cost)
    figure = _figure(3 + 0.28 * m, 1.8 + 0.28 * n)
    axes = figure.subplots()
    image = axes.imshow(cost, aspect="auto", cmap="gray", interpolation="nearest")
    figure.colorbar(image, label="cost: largest score minus score")
    rows, cols = np.indices((n, m))
    axes.scatter(
        cols,
        rows,
        s=80 * plan / max(np.max(plan), np.finfo(np.float64).tiny),
        color=ORANGE,
        label="transport plan, area: mass",
    )
    for (name, cells), (colour, line, width) in zip(paths.items(), PATH_STYLES, strict=False):
        on_path = np.argwhere(cells)
        axes.plot(on_path[:, 1], on_path[:, 0], line, color=colour, linewidth=width, label=name)
    axes.set(xlabel="clip", ylabel="caption", title=title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=len(paths) + 1)
    return _save(figure, path)


@_styled
def plot_shift_curve(
    path: str | Path, shifts: Sequence[float], curve: Mapping[str, Mapping[str, float]]
) -> Path:
    """What a constant added to all scores does to a result.

    Args:
        path: PNG (or any format matplotlib writes).
        shifts: the constants, in standard deviations of the scores.
        curve: measure -> R@1 at each constant, 0..1.
    """
    figure = _figure(9, 4)
    axes = figure.subplots()
    together: dict[tuple[float, ...], list[str]] = {}  # curves that are the same share a label
    for measure, values in curve.items():
        together.setdefault(tuple(100 * r1 for r1 in values.values()), []).append(measure)
    marks = iter(MARKS)
    below = -np.inf  # of the last label
    for heights, measures in sorted(together.items(), key=lambda item: item[0][-1]):
        moves = len(set(heights)) > 1
        colour, marker = next(marks) if moves else ("black", "")
        width = 1.5 if moves else 1
        axes.plot(shifts, heights, color=colour, marker=marker, markersize=5, linewidth=width, clip_on=False)
        below = max(heights[-1], below + 6)
        axes.annotate(
            ", ".join(measures),
            (shifts[-1], heights[-1]),
            (1.02, below),
            textcoords=("axes fraction", "data"),
            color=colour,
            va="center",
            annotation_clip=False,
        )
    axes.set(xlabel="constant added to all scores (standard deviations)", ylabel="R@1, percent")
    axes.set(xlim=(shifts[0], shifts[-1]), ylim=(-2, 102))
    return _save(figure, path)


@_styled
def plot_dots(
    path: str | Path,
    panels: Mapping[tuple[str, str], Mapping[str, Sequence[tuple[float, float, float] | None]]],
    names: Sequence[str],
    title: str = "",
    differences: bool = False,
) -> Path:
    """Numbers with their intervals, a panel for each of several measures and groups of marks.

    Args:
        path: PNG (or any format matplotlib writes).
        panels: (group, measure) -> mark -> a number with the bounds of its interval for each name, None where
            there is none; groups are rows, measures columns. A mark called "" has no legend.
        names: of the numbers, from top to bottom.
        title: of the horizontal axes.
        differences: zero is drawn, and the panels of a row have one scale; else each scale begins at 0.

    Raises:
        ValueError: more marks in a panel than can be told apart.
    """
    groups, measures = (list(dict.fromkeys(part)) for part in zip(*panels, strict=True))
    if max(map(len, panels.values())) > len(MARKS):
        raise ValueError(f"at most {len(MARKS)} marks in a panel can be told apart.")
    heights = [len(names) * (0.16 + 0.11 * len(panels[group, measures[0]])) + 0.3 for group in groups]
    figure = _figure(9, sum(heights) + 0.4)
    shared = "row" if differences else False
    grid = figure.subplots(
        len(groups), len(measures), squeeze=False, sharex=shared, sharey=True, height_ratios=heights
    )
    for axes, measure in zip(grid[0], measures, strict=True):
        axes.set_title(measure)
    for group, row in zip(groups, grid, strict=True):
        for measure, axes in zip(measures, row, strict=True):
            marks = panels[group, measure]
            for place, (mark, points) in enumerate(marks.items()):
                colour, marker = MARKS[place]
                known = [(at, *point) for at, point in enumerate(points) if point is not None]
                at, middle, low, high = np.array(known, dtype=np.float64).reshape(-1, 4).T
                at = at + 0.8 * ((place + 0.5) / len(marks) - 0.5)
                style = {"color": colour, "marker": marker, "markersize": 4, "linestyle": "", "elinewidth": 1}
                axes.errorbar(middle, at, xerr=(middle - low, high - middle), label=mark, **style)
            for edge in range(1, len(names)):
                axes.axhline(edge - 0.5, color="#e6e6e6", linewidth=0.8, zorder=0)
            if differences:
                axes.axvline(0, color=GREY, linewidth=1, zorder=0)
            else:
                axes.set_xlim(left=min(0, axes.get_xlim()[0]))
            axes.set_yticks(range(len(names)), names)
            axes.tick_params(axis="y", length=0)
        shown = [axes.get_legend_handles_labels() for axes in row]
        handles = {label: handle for pair in shown for handle, label in zip(*pair, strict=True)}
        if any(handles):
            beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "title": group}
            row[-1].legend(handles.values(), handles.keys(), **beside, alignment="left", fontsize=8)
    grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(title, fontsize=9)
    return _save(figure, path)


@_styled
def plot_timeline(
    path: str | Path, truth: np.ndarray, predicted: np.ndarray, names: Sequence[str], title: str = ""
) -> Path:
    """One long video second by second: a row per label, its true seconds above and the predicted ones below.

    Args:
        path: PNG (or any format matplotlib writes).
        truth: (T, K) bool.
        predicted: (T, K) bool.
        names: (K) of the labels.
        title: headline.

    Raises:
        ValueError: sizes do not agree.
    """
    truth, predicted = np.asarray(truth, dtype=bool), np.asarray(predicted, dtype=bool)
    if not truth.shape == predicted.shape == (len(truth), len(names)):
        raise ValueError(
            f"truth is {truth.shape}, prediction {predicted.shape} for {len(names)} names; expected "
            "seconds x names for both."
        )
    figure = _figure(11, 1.8 + 0.3 * len(names))
    axes = figure.subplots()
    for label, seconds, colour, above in (("truth", truth, ORANGE, 0.4), ("predicted", predicted, BLUE, 0.0)):
        for row in range(len(names)):
            axes.broken_barh(runs(seconds[:, row]), (row - above, 0.4), facecolors=colour)
        axes.broken_barh([], (0, 0), facecolors=colour, label=label)
    axes.set(xlim=(0, len(truth)), xlabel="seconds", title=title)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=2)
    return _save(figure, path)


@_styled
def plot_waterfall(
    path: str | Path,
    start: tuple[str, float],
    steps: Sequence[tuple[str, float, Interval | None]],
    end: tuple[str, float, Interval],
    title: str = "",
) -> Path:
    """From one number to another in steps, one bar each, drawn from top to bottom.

    Args:
        path: PNG (or any format matplotlib writes).
        start: name and height of the first number.
        steps: name, signed height and 95 % interval of each step.
        end: name, height and interval of the last number.
        title: of the axis.
    """
    figure = _figure(9, 1.4 + 0.45 * (len(steps) + 2))
    axes = figure.subplots()
    names = [start[0], *(name for name, _, _ in steps), end[0]]
    axes.barh(0, start[1], color=GREY)
    at = start[1]
    for row, (_, height, interval) in enumerate(steps, start=1):
        axes.barh(row, height, left=at, color=ORANGE if height < 0 else GREEN)
        if interval is not None:
            axes.plot([at + bound for bound in interval], [row, row], color="black", marker="|")
        at += height
    last = len(steps) + 1
    axes.barh(last, end[1], color=BLUE)
    axes.plot(end[2], [last, last], color="black", marker="|")
    numbers = [
        f"{start[1]:.1f}",
        *(f"{round(height, 1) + 0.0:+.1f}" for _, height, _ in steps),
        f"{end[1]:.1f}",
    ]
    labels = [name if len(name) <= 60 else name[:57] + "..." for name in names]
    axes.set_yticks(
        range(last + 1), [f"{label}   {number}" for label, number in zip(labels, numbers, strict=True)]
    )
    axes.set(xlabel=title)
    axes.invert_yaxis()
    return _save(figure, path)


def rank_edges(n_items: int) -> np.ndarray:
    """Edges of bars that hold whole ranks, from 1 to `n_items`, and are about as wide on a logarithmic
    axis."""
    return np.unique(np.geomspace(1, n_items + 1, 30).round()) - 0.5


def runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """(start, length) of each unbroken run of true entries."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(np.int8)))
    return [(int(start), int(end - start)) for start, end in edges.reshape(-1, 2)]  # (runs, 2)
