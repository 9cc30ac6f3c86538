"""Where Triton kernels are tested: on the GPU where there is one, else on the CPU by Triton's interpreter."""

import importlib.util

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNELS = [
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="triton is not installed (pip install triton)"
    ),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy, of infinities that the kernels mask
]
