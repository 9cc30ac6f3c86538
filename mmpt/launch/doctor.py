"""Is this machine fit to train? Every finding with its cure.

Looks at Python and the packages, GPUs, shared memory, disk and open files, at the data that project
files name, and lets N processes of this machine, or of several, talk to each other for five seconds.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mmpt.config import Config, ConfigError, load_config
from mmpt.config.check import named_files
from mmpt.launch.collectives import sum_over_ranks
from mmpt.launch.local import visible_gpus
from mmpt.launch.torchrun import Topology

PYTHON = (3, 10)
OPEN_FILES = 4096
SHARED_GB, FREE_GB, LOW_GB = 1, 2, 20
PACKAGES = ("numpy", "transformers", "PyYAML")
LOADED = {
    "fairseq with mmpt's plugin": "import mmpt.fairseq_plugin",
    "tokenizers of transformers": "from transformers import AutoTokenizer",
}

COLLECTIVE_CURES = {
    "gloo": "Name the network interface with GLOO_SOCKET_IFNAME (see `ip addr`), or look for a firewall on "
    "the loopback",
    "nccl": "Run with NCCL_DEBUG=INFO; name the interface with NCCL_SOCKET_IFNAME; NCCL_P2P_DISABLE=1 rules "
    "out a broken link",
}


class Finding(NamedTuple):
    """One line of the report; `level` is ok, warning or error."""

    level: str
    text: str
    cure: str = ""


def ok(text: str) -> Finding:
    """All is well."""
    return Finding("ok", text)


def python() -> Iterator[Finding]:
    """Interpreter and plain packages."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON:
        yield Finding(
            "error",
            f"Python {found}",
            "Make the environment with Python 3.10 to 3.14: PYTHON=/path/to/python ./run.sh setup",
        )
    else:
        yield ok(f"Python {found} ({sys.executable})")
    for name in PACKAGES:
        try:
            yield ok(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding(
                "error", f"{name} is not installed", "Run ./run.sh setup, or: pip install -r requirements.txt"
            )


def torch_and_gpus() -> Iterator[Finding]:
    """torch, CUDA, NCCL."""
    if importlib.util.find_spec("torch") is None:
        yield Finding(
            "error", "torch is not installed", "Run ./run.sh setup, or: pip install -r requirements.txt"
        )
        return
    import torch

    yield ok(f"torch {torch.__version__}, CUDA {torch.version.cuda or 'not built in'}")
    gpus = visible_gpus()
    if gpus and torch.version.cuda is None:
        cure = "Install a CUDA build of the same version from pytorch.org"
        yield Finding("warning", f"{len(gpus)} GPUs, but this torch is for the CPU", cure)
    elif gpus and not torch.cuda.is_available():
        cure = "The driver is probably older than CUDA needs: see nvidia-smi"
        yield Finding("error", f"{len(gpus)} GPUs, but torch cannot use them", cure)
    elif not gpus:
        yield ok("no GPU: train with --cpu")
    else:
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            yield ok(f"GPU {number}: {properties.name}, {properties.total_memory / 2**30:.0f} GB")
        yield ok(f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}")


def imports() -> Iterator[Finding]:
    """fairseq and transformers really load; torchaudio, which breaks both."""
    broken = importlib.util.find_spec("torchaudio") is not None
    removal = f"{sys.executable} -m pip uninstall -y torchaudio"
    for name, code in LOADED.items():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            yield ok(f"{name} loads")
            continue
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if "torchaudio" in done.stderr or ("cuda" in last and broken):
            yield Finding(
                "error", f"{name} does not load: {last}", f"Nothing here needs torchaudio: {removal}"
            )
        elif "No module named 'fairseq" in last:
            yield Finding(
                "error", f"{name} does not load: {last}", "Only training needs it: mmpt doctor --fix fairseq"
            )
        else:
            yield Finding(
                "error", f"{name} does not load: {last}", f'See all of it with: {sys.executable} -c "{code}"'
            )
    if broken:
        cure = f"Nothing here needs it, and beside a CPU torch it breaks transformers: {removal}"
        yield Finding("warning", "torchaudio is installed", cure)


def machine() -> Iterator[Finding]:
    """Shared memory, disk here, open files."""
    if Path("/dev/shm").is_dir():
        shared = shutil.disk_usage("/dev/shm").free / 2**30
        if shared < SHARED_GB:
            yield Finding(
                "warning",
                f"/dev/shm has {shared:.2f} GB free; data loading processes pass batches through it",
                "In a container start it with --shm-size=8g; else mount -o remount,size=8g /dev/shm, or "
                "fairseq.dataset.num_workers: 0",
            )
        else:
            yield ok(f"/dev/shm: {shared:.1f} GB free")
    yield disk(Path.cwd())
    soft, hard = resource.getrlimit(
        resource.RLIMIT_NOFILE
    )  # readers of shards raise the soft limit themselves
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        cure = (
            f"Ask for a hard limit of {OPEN_FILES} or more (limits.conf, LimitNOFILE, docker run "
            "--ulimit nofile=65536)"
        )
        yield Finding(
            "warning",
            f"at most {hard} open files; shards would be closed and opened again all the time",
            cure,
        )
    else:
        yield ok(
            f"{soft} open files, {'any number' if hard == resource.RLIM_INFINITY else hard} where shards "
            "are read"
        )


def disk(folder: Path) -> Finding:
    """Room where a folder is, or will be."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    if not os.access(existing, os.W_OK):
        return Finding(
            "error",
            f"{folder}: cannot be written",
            f"Take another folder, or ask for the right to write to {existing}",
        )
    level = "error" if free < FREE_GB else "warning" if free < LOW_GB else "ok"
    cure = (
        "Free some space: a checkpoint with optimizer state is about three times the model, and "
        "several are kept"
    )
    return Finding(level, f"{folder}: {free:.0f} GB of disk free", "" if level == "ok" else cure)


def project(path: str, cpu: bool) -> Iterator[Finding]:
    """What a project file names is there."""
    try:
        config = load_config(path)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("error", str(problem), problem.cure or "Correct the file")
        return
    yield ok(f"{path}: every key is known")
    missing = [
        (key, value)
        for key, value in named_paths(config)
        if not glob.glob(glob.escape(value) + "*" * key.endswith("tfeat_dir"))
    ]
    for key, value in missing:
        source = (
            "DATASET.md says where it comes from"
            if key.startswith("dataset.")
            else "Train or fetch it first, or set the key to null"
        )
        cure = f"{source}; paths are relative to the current folder, {Path.cwd()}"
        yield Finding("error", f"{path}: {key}: {value} does not exist", cure)
    if not missing:
        yield ok(f"{path}: its data is there")
    yield from tokenizer(config)
    save_dir = config.trainer.save_dir
    if save_dir:
        yield disk(Path(save_dir))
    if not cpu and not config.trainer.cpu and not visible_gpus():
        yield Finding(
            "warning",
            f"{path} trains on GPUs, and there is none here",
            "Launch with --cpu, or on a machine with GPUs",
        )


def named_paths(config: Config) -> Iterator[tuple[str, str]]:
    """Key and value of every input file or folder."""
    yield from ((f"dataset.{name}", value) for name, value in named_files(vars(config.dataset)).items())
    restored = config.trainer.restore_file
    if restored and restored != "checkpoint_last.pt":
        yield "fairseq.checkpoint.restore_file", restored
    evaluated = config.trainer.path
    if evaluated:
        yield "fairseq.common_eval.path", evaluated


def tokenizer(config: Config) -> Iterator[Finding]:
    """bert_name is a local folder with its files, or in the hub's cache."""
    name = config.dataset.bert_name
    if not name:
        return
    if os.path.isdir(name):
        either = {
            "config.json": ("config.json",),
            "vocab.txt or tokenizer.json": ("vocab.txt", "tokenizer.json"),
        }
        absent = [
            text for text, files in either.items() if not any(Path(name, file).is_file() for file in files)
        ]
        cure = "Save tokenizer and model there with transformers' save_pretrained"
        yield (
            Finding("error", f"dataset.bert_name {name}: no {' and no '.join(absent)}", cure)
            if absent
            else ok(f"tokenizer: {name}")
        )
        return
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "vocab.txt"), str):
        yield ok(f"tokenizer: {name}, in the hub's cache")
    else:
        cure = "Without network: put config.json, vocab.txt and weights into a folder and name that"
        yield Finding("warning", f"dataset.bert_name {name} will be downloaded at the first start", cure)


def collectives(topology: Topology, seconds: float, cpu: bool) -> Iterator[Finding]:
    """All processes sum 16 MB over and over."""
    backend = "gloo" if cpu or len(visible_gpus()) < topology.processes else "nccl"
    ranks = f"{topology.world_size} ranks ({backend})" + f" on {topology.nodes} machines" * (
        topology.nodes > 1
    )
    try:
        measured = sum_over_ranks(topology, backend, seconds)
    except (TimeoutError, RuntimeError) as error:
        yield Finding("error", f"{ranks} {error}", COLLECTIVE_CURES[backend])
        return
    if measured is None:  # the first rank, which measures, is on another machine
        yield ok(f"{ranks}: those of this machine took part")
    else:
        each = 1000 * measured.seconds / measured.rounds
        yield ok(f"{ranks}: {measured.rounds} sums of 16 MB in {measured.seconds:.1f} s, {each:.1f} ms each")


def findings(projects: list[str], topology: Topology, seconds: float, cpu: bool) -> Iterator[Finding]:
    """Everything, in the order in which it matters."""
    yield from python()
    yield from torch_and_gpus()
    yield from imports()
    yield from machine()
    for path in projects:
        yield from project(path, cpu)
    if topology.per_node and topology.world_size > 1:
        yield from collectives(topology, seconds, cpu)
