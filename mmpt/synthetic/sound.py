"""What a video sounds like: one vector per second.

    x_t = heard parts of the step (verb, tool) + room + noise_t,   f_t = x_t / |x_t|

Sound says what is done and with what; ingredients make none. A video may lack its sound track.
"""

from __future__ import annotations

import numpy as np

from mmpt.synthetic.parts import TOOLS, VERBS, normalise, stream
from mmpt.synthetic.settings import Noise
from mmpt.synthetic.timeline import Video

SOUND_DIM = 128


class Sounds:
    """The unit vectors that parts sound like, drawn once per world."""

    def __init__(self, seed: int):
        rng = stream(seed, "sounds")
        self.verbs = normalise(_draw(rng, len(VERBS)))
        self.tools = normalise(_draw(rng, len(TOOLS)))


def draw_sound(video: Video, sounds: Sounds, noise: Noise, rng: np.random.Generator) -> np.ndarray | None:
    """Sound of a whole video, (seconds, SOUND_DIM) float16, unit length before rounding; None where there is
    no track."""
    has_track = rng.random() >= noise.p_no_sound
    n = video.length_s
    x = noise.w_hiss * _draw(rng, n) / np.float32(np.sqrt(SOUND_DIM)) + noise.w_room * normalise(
        _draw(rng, 1)
    )
    heard = rng.random((n, 2)) < (noise.audible_verb, noise.audible_tool)
    for segment in video.segments:
        seconds, step = slice(segment.start_s, segment.end_s), segment.step
        x[seconds] += heard[seconds, 0, None] * sounds.verbs[step.verb] * np.float32(noise.w_sound_verb)
        if not step.partner:
            x[seconds] += heard[seconds, 1, None] * sounds.tools[step.third] * np.float32(noise.w_sound_tool)
    return normalise(x).astype(np.float16) if has_track else None


def _draw(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal((n, SOUND_DIM), dtype=np.float32)
