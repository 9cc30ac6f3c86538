"""What a video of the synthetic world shows, drawn for people: the models see features.

Ingredients are specks of their colour, a vessel is a disc under them, any other tool a bar beside them.
"""

from __future__ import annotations

import numpy as np

from mmpt.synthetic.parts import TOOLS, Step

HEIGHT, WIDTH = 72, 84
TABLE, VESSEL, TOOL = (214, 188, 152), (92, 98, 107), (60, 60, 66)
VESSELS = {"pan", "pot", "bowl", "tray", "board", "blender", "sieve", "foil"}
SPECKS, RADIUS = 14, 7
COLOURS = (  # of the ingredients, in their order
    *("#e8d9e6 #f3ead6 #d7301f #c9a35b #ef7d15 #c1121f #a58a74 #2f7d32 #a5cf7a #8fbf4d").split(),
    *("#f0c9a0 #8a2f25 #f2a6a0 #b5453a #fa8072 #ff9a76 #f4ecd2 #ffd23f #ffb52e #ffe680").split(),
    *("#ffffff #fff4dc #f5f7fa #f2e8d5 #c68642 #fbfbf2 #ead08a #b8763a #e2c18f #6d1f1a").split(),
    *("#8a6f3c #ffd400 #fff200 #d62839 #ffe135 #d2a15c #1f8a36 #3aa655 #4a2511 #b07b4f").split(),
)


def draw(step: Step | None, seed: int = 0) -> np.ndarray:
    """A frame (HEIGHT, WIDTH, 3) uint8 of a step; None: the empty table."""
    rng = np.random.default_rng(seed)
    picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    picture[:] = TABLE
    if step is None:
        return picture
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    tool = None if step.partner else TOOLS[step.third][0]
    if tool in VESSELS:
        picture[((rows - HEIGHT / 2) / 32) ** 2 + ((columns - WIDTH / 2) / 38) ** 2 < 1] = VESSEL
    elif tool:
        picture[np.abs(rows - 0.4 * columns - 12) < 3] = TOOL
    shown = [step.obj, step.third] if step.partner else [step.obj]
    for place, part in enumerate(shown):  # two ingredients lie side by side
        centre = WIDTH * (place + 1) / (len(shown) + 1)
        for _ in range(SPECKS):
            row, column = rng.normal((HEIGHT / 2, centre), (11, 12 if len(shown) == 1 else 8))
            near = (rows - row) ** 2 + (columns - column) ** 2 < (RADIUS * rng.uniform(0.6, 1)) ** 2
            picture[near] = _rgb(COLOURS[part]) * rng.uniform(0.88, 1)
    return picture


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
