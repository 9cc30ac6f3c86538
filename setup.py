"""Package metadata; version ranges here, the tested set pinned in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(
    r'__version__ = "(.+)"', Path(__file__).with_name("mmpt").joinpath("__init__.py").read_text()
)[1]

EXTRAS = {
    "text": ["transformers>=5,<6"],
    # fairseq-fixed itself comes without its dependencies: `pip install --no-deps --no-build-isolation -r
    # requirements-fairseq.txt`. It asks for torchaudio, which training never imports and whose wheel breaks
    # transformers beside a CPU torch.
    "train": [
        "transformers>=5,<6",
        "hydra-core>=1.3.2,<1.4",
        "omegaconf>=2.3,<2.4",
        "cffi",
        "regex",
        "sacrebleu",
        "bitarray",
        "scikit-learn",
        "packaging",
        "tensorboardX",
    ],
    "video": ["av>=14,<19"],
    "torchcodec": ["av>=14,<19", "torchcodec>=0.11"],  # uses the FFmpeg libraries of the system
    "open_clip": ["open_clip_torch>=2.24"],  # brings torchvision
    "notebooks": ["ipykernel>=6", "nbclient>=0.9", "nbformat>=5.9", "matplotlib>=3.8"],
    "retrieval": ["faiss-cpu>=1.8"],
    "remote": ["fsspec>=2024.2"],
    "plots": ["matplotlib>=3.8"],
    "captions": ["sacrebleu", "nltk>=3.9"],  # METEOR also reads WordNet: python -m nltk.downloader wordnet
    "fast": ["numba>=0.60"],
}
EXTRAS["test"] = [
    *EXTRAS["train"],
    *EXTRAS["video"],
    *EXTRAS["plots"],
    *EXTRAS["captions"],
    *EXTRAS["retrieval"],
    *EXTRAS["fast"],
    *EXTRAS["remote"],
    *EXTRAS["notebooks"],
    "pytest>=8",
    "pytest-xdist>=3",
    "POT>=0.9",
    "tslearn>=0.6",
]
EXTRAS["dev"] = [*EXTRAS["test"], "ruff"]

setup(
    name="mmpt",
    version=VERSION,
    description="Joint representations of long videos and text: VideoCLIP, VLM, Norton and further "
    "losses, trained by fairseq",
    license="Apache-2.0",
    packages=find_packages(include=["mmpt", "mmpt.*", "mmpt_cli", "mmpt_cli.*"]),
    python_requires=">=3.11",
    install_requires=["torch>=2.6", "numpy>=1.26", "pyyaml>=6", "tqdm>=4.60"],
    extras_require=EXTRAS,
)
