"""Where in the picture something happens: one feature map per second.

    m_t[h, w] = background of the place + noise_t[h, w],  plus at the step's spot its verb and tool, beside it
    its ingredient

Every position is brought to unit length. The spot changes from step to step, so a crop in space may or may
not show the action.
"""

from __future__ import annotations

import numpy as np

from mmpt.synthetic.parts import OBJECTS, TOOLS, VERBS, normalise, stream
from mmpt.synthetic.settings import Noise
from mmpt.synthetic.timeline import Video

MAP_SIDE, MAP_DIM = 4, 32


class Patches:
    """The unit vectors that parts look like from near by, drawn once per world."""

    def __init__(self, seed: int):
        rng = stream(seed, "patches")
        self.verbs, self.objects, self.tools = (
            normalise(_draw(rng, len(parts))) for parts in (VERBS, OBJECTS, TOOLS)
        )


def draw_maps(video: Video, patches: Patches, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """Maps of a whole video, (seconds, MAP_SIDE, MAP_SIDE, MAP_DIM) float16, unit vectors before rounding."""
    n = video.length_s
    x = noise.w_noise * _draw(rng, n, MAP_SIDE, MAP_SIDE) / np.float32(np.sqrt(MAP_DIM))
    x += noise.w_where * normalise(_draw(rng, 1, MAP_SIDE, MAP_SIDE))
    seen = rng.random((n, 2)) < (noise.visible_verb, noise.visible_object)
    spots = rng.integers(MAP_SIDE, size=(len(video.segments), 2))
    for segment, (row, column) in zip(video.segments, spots, strict=True):
        seconds, step = slice(segment.start_s, segment.end_s), segment.step
        action = noise.w_verb * patches.verbs[step.verb]
        if not step.partner:
            action = action + noise.w_third * patches.tools[step.third]
        x[seconds, row, column] += seen[seconds, 0, None] * action
        x[seconds, row, (column + 1) % MAP_SIDE] += seen[seconds, 1, None] * (
            noise.w_object * patches.objects[step.obj]
        )
    return normalise(x).astype(np.float16)


def _draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal((*shape, MAP_DIM), dtype=np.float32)
