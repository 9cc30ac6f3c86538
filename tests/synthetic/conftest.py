"""One tiny world for all tests here, in memory and written."""

from __future__ import annotations

import pytest

from mmpt.synthetic.build import build_world
from mmpt.synthetic.settings import SIZES, Settings
from mmpt.synthetic.world import World

TINY = Settings(size=SIZES["tiny"])


@pytest.fixture(scope="session")
def world():
    return World(TINY)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "toy"
    build_world(out, TINY)
    return out
