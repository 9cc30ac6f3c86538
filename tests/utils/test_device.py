"""The device that a command line names."""

import pytest
import torch

from mmpt.utils.device import choose_device


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_an_absent_gpu_says_what_to_ask_for():
    with pytest.raises(ValueError, match="--device cpu"):
        choose_device("cuda")
