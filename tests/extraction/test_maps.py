"""Feature maps of augmented videos."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mmpt.models.gdt import AVGDT
from mmpt_cli.features import main
from tests.media.media import write_clip

pytest.importorskip("av")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    (folder / "videos").mkdir()
    write_clip(folder / "videos" / "v0.mkv", 3)
    write_clip(folder / "videos" / "v1.mkv", 5)
    (folder / "videos" / "broken.mp4").write_text("no video")
    torch.manual_seed(0)
    torch.save({"model": AVGDT(width=8).state_dict()}, folder / "gdt.pth")
    main(arguments(folder, "maps"))
    return folder


def arguments(folder, out, *more):
    settings = ["--weights", str(folder / "gdt.pth"), "--fps", "10", "--size", "32", "--quiet", *more]
    return ["maps", str(folder / "videos"), str(folder / out), *settings]


def test_every_second_has_its_maps_in_two_versions(made):
    first, second = (np.load(made / "maps" / f"v1_aug{k}.npy") for k in range(2))
    assert first.shape == second.shape == (5 * 2, 2, 2, 64) and first.dtype == np.float16
    assert np.load(made / "maps" / "v0_aug0.npy").shape[0] == 3 * 2
    assert not np.allclose(first, second, atol=1e-3)
    assert np.isfinite(first).all() and first.std() > 0


def test_the_passport_says_how_many_maps_there_are_a_second(made):
    passport = json.loads((made / "maps" / "passport.json").read_text())
    assert (passport["seconds_per_feature"], passport["map"], passport["versions"]) == (0.5, [2, 2], 2)
    assert json.loads((made / "maps" / "failures.json").read_text()).keys() == {"broken_aug0", "broken_aug1"}


def test_another_run_gives_the_same_and_another_seed_is_refused(made, capsys):
    main(arguments(made, "again"))
    name = "v0_aug1.npy"
    np.testing.assert_array_equal(np.load(made / "again" / name), np.load(made / "maps" / name))
    with pytest.raises(ValueError, match="seed 0.* there, .*seed 1.* now"):
        main(arguments(made, "again", "--seed", "1"))


def test_a_size_that_gives_no_whole_maps_is_refused(made):
    with pytest.raises(ValueError, match="multiple of 16"):
        main([*arguments(made, "other"), "--size", "40"])
