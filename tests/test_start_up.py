"""Commands import what they use: not every package that one of theirs can do something with."""

import subprocess
import sys

from tests.conftest import ROOT

# fairseq is for training alone; the others are for single features, imported there
NEVER = (
    *("fairseq", "hydra", "sklearn", "scipy.stats", "pandas", "matplotlib", "numba", "av", "faiss"),
    *("torchvision", "torchaudio", "triton", "tensorboardX", "tensorboard", "wandb", "nltk", "sacrebleu"),
)


def left_out(modules: str, names: tuple[str, ...]) -> bool:
    code = f"import sys, {modules}; print(*[name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    return True


def test_predicting_and_estimating_import_no_package_that_they_do_not_use():
    assert left_out("mmpt_cli.predict, mmpt_cli.train, mmpt.api.evaluation, mmpt.api.estimate", NEVER)


def test_losses_do_without_transformers():
    assert left_out("mmpt.losses", (*NEVER, "transformers"))
