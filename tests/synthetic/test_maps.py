import numpy as np

from mmpt.synthetic.settings import NOISE, Settings
from mmpt.synthetic.world import World


def test_a_map_shows_the_action_at_one_spot_of_its_step():
    world = World(
        Settings().with_knobs({"w_noise": 0.0, "w_where": 0.0, "visible_verb": 1.0, "visible_object": 1.0})
    )
    video = world.video("train", 3)
    with np.errstate(invalid="ignore"):  # spots that show nothing have no direction
        maps = np.nan_to_num(world.maps(video).astype(np.float32))
    for segment in video.segments:
        shown = np.abs(maps[segment.start_s : segment.end_s]).sum(-1) > 0.1  # (seconds, 4, 4)
        assert (shown.sum((1, 2)) == 2).all() and (shown == shown[0]).all()
        spots = [maps[segment.start_s, r, c] for r, c in np.argwhere(shown[0])]
        assert max(spot @ world.patches.objects[segment.step.obj] for spot in spots) > 0.99


def test_maps_are_the_same_whatever_was_drawn_before():
    first, second = (World(Settings(noise=NOISE["moderate"])) for _ in range(2))
    list(second.videos("val"))
    np.testing.assert_array_equal(first.maps(first.video("train", 5)), second.maps(second.video("train", 5)))
