import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmpt.utils import ItemRandom, set_seed


def draws(rng):
    return [rng.numpy.random(), rng.python.random(), torch.rand(1, generator=rng.torch).item()]


def test_the_same_item_draws_the_same():
    assert draws(ItemRandom.for_item(1, 2, 3)) == draws(ItemRandom.for_item(1, 2, 3))


@pytest.mark.parametrize("other", [(2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2)])
def test_another_seed_epoch_or_index_draws_otherwise(other):
    assert all(
        a != b
        for a, b in zip(draws(ItemRandom.for_item(1, 2, 3)), draws(ItemRandom.for_item(*other)), strict=True)
    )


def test_streams_do_not_touch_each_other():
    one, other = ItemRandom(5), ItemRandom(5)
    one.python.random(), torch.rand(3, generator=one.torch)
    assert one.numpy.random() == other.numpy.random()


def test_the_streams_are_those_of_the_seeded_global_generators():
    random.seed(7), torch.manual_seed(7)
    rng = ItemRandom(7)
    assert random.random() == rng.python.random()
    assert torch.rand(1) == torch.rand(1, generator=rng.torch)


def test_set_seed_repeats_all_global_draws():
    def global_draws():
        set_seed(11)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert global_draws() == global_draws()


def test_importing_the_utils_does_not_import_torch():
    subprocess.run(
        [sys.executable, "-c", "import mmpt.utils, sys; sys.exit('torch' in sys.modules)"], check=True
    )
