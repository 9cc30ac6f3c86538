"""Commands import what they use: not every package that one of theirs can do something with."""

import subprocess
import sys

from tests.conftest import ROOT

# fairseq is for training alone, transformers for tokenizers and other people's networks, the rest for single
# features; each is imported there
NEVER = (
    *("fairseq", "hydra", "transformers", "sklearn", "scipy.stats", "pandas", "matplotlib", "numba", "av"),
    *("torchvision", "torchaudio", "triton", "tensorboardX", "tensorboard", "wandb", "nltk", "sacrebleu"),
    "faiss",
)


def left_out(modules: str, names: tuple[str, ...]) -> bool:
    """Do the modules import none of these, but for what torch does (one for CUDA imports Triton)?"""
    code = (
        f"import sys, torch; theirs = set(sys.modules); import {modules}; "
        f"print(*[name for name in {names} if name in sys.modules and name not in theirs])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    return True


def test_predicting_and_estimating_import_no_package_that_they_do_not_use():
    commands = "mmpt_cli.predict, mmpt_cli.train, mmpt.api.evaluation, mmpt.api.estimate"
    assert left_out(f"{commands}, mmpt.models, mmpt.losses, mmpt.datasets", NEVER)
