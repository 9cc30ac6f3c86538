"""What a video looks like: one vector per second.

x_t = seen parts of the step (verb, ingredient, third) + look of the pair + person + place + drift_t +
    noise_t,  f_t = x_t / |x_t|
"""

from __future__ import annotations

import numpy as np

from mmpt.synthetic.parts import DIM, N_SCENERY, Looks, normalise, unit_rows
from mmpt.synthetic.settings import Noise
from mmpt.synthetic.timeline import Segment, Video

DRIFT_KNOT_S = 15  # the drift is linear between random points this far apart


def draw_features(video: Video, looks: Looks, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """Features of a whole video, (seconds, DIM) float16, unit length before rounding."""
    n = video.length_s
    x = noise.w_noise * _scatter(rng, n)
    who, where = unit_rows(rng, 2)
    x += noise.w_who * who + noise.w_where * where
    x += noise.w_drift * _drift(n, rng)
    # Drawn for every second, used or not: the timeline never shifts the stream.
    seen = rng.random((n, 3)) < (noise.visible_verb, noise.visible_object, noise.visible_third)
    views = np.where(rng.random(n) < noise.p_scenery, rng.integers(N_SCENERY, size=n), -1)
    background = np.ones(n, dtype=bool)
    for segment in video.segments:
        background[segment.start_s : segment.end_s] = False
        x[segment.start_s : segment.end_s] += _sight(
            segment, seen[segment.start_s : segment.end_s], looks, noise
        )
    shown = background & (views >= 0)
    x[shown] += noise.w_scenery * looks.scenery[views[shown]]
    return normalise(x).astype(np.float16)


def _sight(segment: Segment, seen: np.ndarray, looks: Looks, noise: Noise) -> np.ndarray:
    """The step's own contribution to its seconds; seen (seconds, 3) -> (seconds, DIM)."""
    step = segment.step
    verb, obj, third = (seen[:, i, None].astype(np.float32) for i in range(3))
    return (
        verb * (noise.w_verb * looks.verbs[step.verb])
        + obj * (noise.w_object * looks.objects[step.obj])
        + third * (noise.w_third * looks.third(step))
        + noise.w_pair * looks.pairs[step.verb, step.obj]
    )


def _drift(n: int, rng: np.random.Generator) -> np.ndarray:
    knots = _scatter(rng, n // DRIFT_KNOT_S + 2)
    position = np.arange(n, dtype=np.float32) / DRIFT_KNOT_S
    left = position.astype(int)
    share = (position - left)[:, None]
    return (1 - share) * knots[left] + share * knots[left + 1]


def _scatter(rng: np.random.Generator, n: int) -> np.ndarray:
    """n vectors of expected length 1, (n, DIM)."""
    return rng.standard_normal((n, DIM), dtype=np.float32) / np.float32(np.sqrt(DIM))
