"""Where Triton kernels are tested: on the GPU where there is one, else on the CPU by Triton's interpreter."""

import importlib.metadata
import importlib.util

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OLDEST_INTERPRETER = (3, 9)  # earlier ones fail with numpy 2.4


def _cannot_run() -> str:
    """Why kernels cannot run here, or nothing."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if DEVICE == "cuda":
        return ""
    version = importlib.metadata.version("triton")
    old = tuple(int(part) for part in version.split(".")[:2]) < OLDEST_INTERPRETER
    return f"the interpreter of triton {version} is too old, 3.9 is not" if old else ""


KERNELS = [
    pytest.mark.skipif(bool(_cannot_run()), reason=_cannot_run()),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy, of infinities that the kernels mask
]
