"""Frames of the synthetic world, for people to look at."""

import numpy as np

from mmpt.synthetic.parts import OBJECTS, TOOLS, Step
from mmpt.synthetic.pictures import COLOURS, TABLE, VESSELS, draw


def test_every_ingredient_has_a_colour_of_its_own():
    assert len(set(COLOURS)) == len(COLOURS) == len(OBJECTS)
    assert {name for name, *_ in TOOLS} > VESSELS


def test_a_frame_shows_ingredients_and_tool_and_the_empty_table_none():
    knife, pan = (next(i for i, names in enumerate(TOOLS) if names[0] == name) for name in ("knife", "pan"))
    steps = [None, Step(0, 2, knife, False), Step(0, 2, pan, False), Step(0, 2, 3, True), Step(0, 3, 2, True)]
    frames = [draw(step, seed=1) for step in steps]
    assert (frames[0] == TABLE).all() and all((frame != TABLE).any() for frame in frames[1:])
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    np.testing.assert_array_equal(draw(steps[1], seed=1), frames[1])
