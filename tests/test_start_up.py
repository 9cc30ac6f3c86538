"""Commands import what they use: not every package that one of theirs can do something with."""

import subprocess
import sys

from tests.conftest import ROOT

# fairseq is for training alone; the others are for single features, imported there
NEVER = (
    *("fairseq", "hydra", "sklearn", "scipy.stats", "pandas", "matplotlib", "numba", "av", "faiss"),
    *("torchvision", "torchaudio", "triton", "tensorboardX", "tensorboard", "wandb", "nltk", "sacrebleu"),
)


def left_out(modules: str, names: tuple[str, ...], beside: str = "torch") -> bool:
    """Do the modules import none of these, but for what `beside` imports already: a torch for CUDA Triton,
    transformers up to 5.20 scikit-learn?"""
    code = (
        f"import sys, {beside}; theirs = set(sys.modules); import {modules}; "
        f"print(*[name for name in {names} if name in sys.modules and name not in theirs])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    return True


def test_predicting_and_estimating_import_no_package_that_they_do_not_use():
    commands = "mmpt_cli.predict, mmpt_cli.train, mmpt.api.evaluation, mmpt.api.estimate"
    assert left_out(commands, NEVER, beside="transformers.models.bert.modeling_bert")


def test_losses_do_without_transformers():
    assert left_out("mmpt.losses", (*NEVER, "transformers"))
