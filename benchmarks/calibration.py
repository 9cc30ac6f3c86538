"""How calibrated alignments fare: coverage and width of spans, false discovery of "visible", over splits.

    python benchmarks/calibration.py            # 1000 splits of three worlds, 4 aligners; figure and table
    python benchmarks/calibration.py --splits 100 --aligners plan --out /tmp/here

Three worlds. *synthetic*: narrated videos of the synthetic world that ridge regression on its training videos
did not see; 30 % of the sentences are chatter. *youcook2* and *crosstask*: durations, numbers and gaps of
steps as those data sets publish them, with synthetic features: every step is a direction, look-alike steps
share most of it, every video has its own noise. In *crosstask* the sentences are the steps of the task, of
which a video leaves out some. Half of the videos calibrate, the other half is asked.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import command_line, publish
from mmpt.calibration import AlignedVideo
from mmpt.calibration.rehearsal import rehearse
from mmpt.evaluators.plots import plot_dots
from mmpt.inference.moments import align_captions
from mmpt.inference.spans import ALIGNERS, with_truth
from mmpt.models.linear import fit_ridge_to_shards
from mmpt.ops.windows import window_ranges
from mmpt.processors.tokens import load_tokenizer
from mmpt.synthetic.build import build_world
from mmpt.synthetic.settings import NOISE, SIZES, Settings
from mmpt.synthetic.truth import truth_alignment
from mmpt.utils import ShardedTensor, load_plain_pickle

WINDOW_S = 4
VIDEOS = 400
WIDTH = 64
# steps per video, seconds per step, seconds between steps, share of steps that a video leaves out
STYLES = {"youcook2": (7.7, 19.6, 20.0, 0.0), "crosstask": (7.4, 9.6, 29.0, 0.35)}


def main() -> None:
    options = command_line(__doc__)
    options.add_argument("--splits", type=int, default=1000)
    options.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    options.add_argument("--aligners", nargs="+", choices=ALIGNERS, default=list(ALIGNERS))
    options.add_argument("--coverage", type=float, default=0.9)
    options.add_argument("--false-discovery", type=float, default=0.1)
    options.add_argument("--data", type=Path, default=Path("data/toy_calibration"))
    options.add_argument("--out", type=Path, default=Path("docs"))
    args = options.parse_args()
    kept = args.data / "tested"  # what was done is not done again
    kept.mkdir(parents=True, exist_ok=True)
    for world in args.worlds:
        todo = [a for a in args.aligners if not (kept / f"{world}_{a}_{args.splits}.npy").is_file()]
        for aligner, videos in (WORLDS[world](args.data, todo) if todo else {}).items():
            tested = np.array(rehearse(videos, args.coverage, args.false_discovery, args.splits))
            np.save(kept / f"{world}_{aligner}_{args.splits}.npy", tested)
            print(*row(f"{world}, {aligner}", tested), flush=True)
    found = {}
    for world in WORLDS:
        for aligner in ALIGNERS:
            path = kept / f"{world}_{aligner}_{args.splits}.npy"
            found |= {f"{world}, {aligner}": np.load(path)} if path.is_file() else {}
    args.out.mkdir(parents=True, exist_ok=True)
    title = (
        f"{args.splits} random splits of {VIDEOS} videos; promised: coverage {args.coverage:.0%}, "
        f"false discovery {args.false_discovery:.0%}"
    )
    rows = [row(name, tested) for name, tested in found.items()]
    publish(args.record, {title: [HEAD, *rows]}, timed=False)
    draw(args.out / "calibration.png", found, args.coverage, args.false_discovery)


HEAD = [
    *("world, aligner", "coverage", "width, s", "fixed window: coverage", "its width, s", "ours / fixed"),
    *("false discovery", "visible found"),
]


def row(name: str, tested: np.ndarray) -> list[str]:
    """A line of the table."""
    covered, width, fixed_covered, fixed_width, wrong, power = tested.mean(0)
    said = ["all are visible", ""] if np.isnan(wrong) else [f"{wrong:.1%}", f"{power:.0%}"]
    widths = [f"{width:.0f}", f"{fixed_covered:.1%}", f"{fixed_width:.0f}", f"{width / fixed_width:.2f}"]
    return [name, f"{covered:.1%}", *widths, *said]


def aligned(
    video_id: str, text: np.ndarray, seconds: np.ndarray, truth: np.ndarray, aligners: list[str]
) -> dict[str, AlignedVideo]:
    """One video by each aligner."""
    bounds = window_ranges(len(seconds), WINDOW_S)
    means = np.stack([seconds[first:last].mean(0) for first, last in bounds])
    text_vectors, vectors = (torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in (text, means))
    windows = torch.tensor(bounds, dtype=torch.float32)
    captions = [str(n) for n in range(len(text))]
    made = {
        relaxed: align_captions(captions, text_vectors, vectors, windows, relaxed)
        for relaxed in {aligner == "otam" for aligner in aligners}
    }
    return {a: with_truth(video_id, made[a == "otam"], truth, a) for a in aligners}


def synthetic(data: Path, aligners: list[str]) -> dict[str, list[AlignedVideo]]:
    """Narrated videos that the regression was not fitted to."""
    settings = Settings(size=SIZES["small"], noise=NOISE["moderate"]).with_knobs({"val_videos": VIDEOS})
    data = data / "world"
    build_world(data, settings)
    feat, words = data / "how2" / "feat", load_tokenizer(str(data / "model"))
    vocabulary = json.loads((data / "model" / "config.json").read_text())["vocab_size"]
    ridge = fit_ridge_to_shards(feat, f"{feat}/narration.", vocabulary)
    found: dict[str, list[AlignedVideo]] = {aligner: [] for aligner in aligners}
    for shard, ids in load_plain_pickle(feat / "val_meta.pkl").items():
        features = ShardedTensor.load(feat / f"val_{shard}", mmap_mode="r")
        for number, video in enumerate(ids):
            told = truth_alignment(data, video)
            text = ridge.embed_text([words(c, add_special_tokens=False)["input_ids"] for c in told.captions])
            seconds = np.asarray(features[number], dtype=np.float32)
            shown = np.where(told.caption_step[:, None] >= 0, told.shown_s[told.caption_step], np.nan)
            made = aligned(video, text - text.mean(0), seconds - seconds.mean(0), shown, aligners)
            for aligner, one in made.items():
                found[aligner].append(one)
    return found


def styled(style: str):
    """A world with the durations of a data set."""

    def make(data: Path, aligners: list[str]) -> dict[str, list[AlignedVideo]]:
        rng = np.random.default_rng(sum(map(ord, style)))
        found: dict[str, list[AlignedVideo]] = {aligner: [] for aligner in aligners}
        for number in range(VIDEOS):
            text, seconds, truth = video_of(style, rng)
            for aligner, one in aligned(f"{style}{number}", text, seconds, truth, aligners).items():
                found[aligner].append(one)
        return found

    return make


def video_of(style: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of sentences and seconds of one video, and where each sentence is shown."""
    mean_steps, step_s, gap_s, left_out = STYLES[style]
    n = 3 + rng.poisson(mean_steps - 3)
    basis = rng.standard_normal((2, n, WIDTH))
    steps = basis[0] + 0.9 * basis[0].mean(0)  # steps of one recipe resemble each other
    twins = rng.random(n) < 0.25  # repeats most of an earlier step
    for k in np.flatnonzero(twins[1:]) + 1:
        steps[k] = 0.8 * steps[rng.integers(k)] + 0.4 * steps[k]
    shown = rng.random(n) >= left_out
    shown[rng.integers(n)] = True
    loudness = rng.lognormal(0.9, 0.45)  # of the noise of this video
    truth, parts = np.full((n, 2), np.nan), []
    clock = 0
    for k in np.flatnonzero(shown):
        gap = int(rng.exponential(gap_s))
        length = max(2, int(rng.lognormal(np.log(step_s) - 0.25, 0.7)))
        background = 0.5 * basis[1, rng.integers(n)]
        parts += [np.tile(background, (gap, 1)), np.tile(steps[k], (length, 1))]
        truth[k] = clock + gap, clock + gap + length
        clock += gap + length
    parts.append(np.zeros((int(rng.exponential(gap_s)) + 1, WIDTH)))
    seconds = np.concatenate(parts)
    noise = rng.standard_normal(seconds.shape)
    for t in range(1, len(noise)):  # it changes slowly
        noise[t] = 0.6 * noise[t - 1] + 0.8 * noise[t]
    clarity = rng.lognormal(0.0, 0.4, (n, 1))  # how well a sentence says what is seen
    text = steps + 0.8 / clarity * rng.standard_normal((n, WIDTH))
    return text, seconds + loudness * noise, truth


WORLDS = {"synthetic": synthetic, "youcook2": styled("youcook2"), "crosstask": styled("crosstask")}


def draw(path: Path, found: dict[str, np.ndarray], coverage: float, false_discovery: float) -> None:
    """Coverage of all splits, widths beside the fixed window, false discovery."""

    def dots(column: int, scale: float = 1.0, less: float = 0.0) -> list[tuple[float, float, float] | None]:
        """The mean over splits, and between which bounds 95 % of them are."""
        columns = (scale * tested[:, column] - less for tested in found.values())
        return [
            (np.nanmean(v), *np.nanpercentile(v, [2.5, 97.5])) if np.isfinite(v).any() else None
            for v in columns
        ]

    panels = {
        ("", f"coverage less the {coverage:.0%}\npromised, points"): {
            "calibrated": dots(0, 100, 100 * coverage)
        },
        ("", "mean width,\nseconds"): {"calibrated": dots(1), "fixed window": dots(3)},
        ("", f"false discovery, percent\n({100 * false_discovery:g} at most)"): {"calibrated": dots(4, 100)},
    }
    plot_dots(path, panels, list(found), "mean over splits, and where 95 % of them are")


if __name__ == "__main__":
    main()
