"""Is this machine fit to train? Every finding with its cure.

    python -m mmpt.launch.doctor
    python -m mmpt.launch.doctor projects/retri/norton/how2_pretrain.yaml --ranks 8
    python -m mmpt.launch.doctor projects/toy/norton.yaml --ranks 2 --cpu
    python -m mmpt.launch.doctor --ranks 8 --nnodes 2 --rdzv-endpoint node1:29500  # the same line on both
        machines

Looks at Python and the packages, GPUs, shared memory, disk and open files, at the data that project
files name, and lets N processes of this machine, or of several, talk to each other for five seconds. Exit
code 1 when something would keep a job from running.
"""

from __future__ import annotations

import argparse
import glob
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mmpt.config import Config, ConfigError, load_config
from mmpt.launch.install_fairseq import install_fairseq
from mmpt.launch.local import visible_gpus
from mmpt.launch.torchrun import Layout

PYTHON = (3, 10)
OPEN_FILES = 4096
SHARED_GB, FREE_GB, LOW_GB = 1, 2, 20
PACKAGES = ("numpy", "transformers", "PyYAML")
LOADED = {
    "fairseq with mmpt's plugin": "import mmpt.fairseq_plugin",
    "BERT of transformers": "from transformers import BertModel",
}
MESSAGE_FLOATS = 4 << 20  # 16 MB: about the gradient buckets of training
START_SECONDS = 120
AS_RANK = ("-m", "mmpt.launch.doctor", "--as-rank")  # what torchrun starts for the test of collectives


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
                "error",
                f"{name} does not load: {last}",
                "Only training needs it: python -m mmpt.launch.doctor --fix fairseq",
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
        yield Finding("error", str(error), "Correct the file")
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
    save_dir = config.fairseq.get("checkpoint", {}).get("save_dir")
    if save_dir:
        yield disk(Path(save_dir))
    common = config.fairseq.get("common", {})
    if not cpu and not common.get("cpu") and not visible_gpus():
        yield Finding(
            "warning",
            f"{path} trains on GPUs, and there is none here",
            "Launch with --cpu, or on a machine with GPUs",
        )


def named_paths(config: Config) -> Iterator[tuple[str, str]]:
    """Key and value of every input file or folder."""
    for name, value in vars(config.dataset).items():
        if (
            value
            and isinstance(value, str)
            and name.endswith(("_path", "_dir", "trainval_annotation"))
            and name != "target_dir"
        ):
            yield f"dataset.{name}", value
    restored = config.fairseq.get("checkpoint", {}).get("restore_file")
    if restored and restored != "checkpoint_last.pt":
        yield "fairseq.checkpoint.restore_file", restored
    evaluated = config.fairseq.get("common_eval", {}).get("path")
    if evaluated:
        yield "fairseq.common_eval.path", evaluated


def tokenizer(config: Config) -> Iterator[Finding]:
    """bert_name is a local folder with its files, or in the hub's cache."""
    name = config.dataset.bert_name
    if not name:
        return
    if os.path.isdir(name):
        absent = [file for file in ("config.json", "vocab.txt") if not (Path(name) / file).is_file()]
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


def collectives(layout: Layout, seconds: float, cpu: bool) -> Iterator[Finding]:
    """All processes sum 16 MB over and over."""
    backend = "gloo" if cpu or len(visible_gpus()) < layout.per_node else "nccl"
    logs = Path(os.environ.get("TMPDIR", "/tmp")) / f"mmpt_doctor_{os.getpid()}"
    program = ["-m", "mmpt.launch.torchrun", f"--log-dir={logs}", *layout.torchrun_words()]
    command = [sys.executable, *program, *AS_RANK, backend, "--seconds", str(seconds)]
    ranks = f"{layout.world_size} ranks ({backend})" + f" on {layout.nodes} machines" * (layout.nodes > 1)
    cure = {
        "gloo": "Name the network interface with GLOO_SOCKET_IFNAME (see `ip addr`), or look for a "
        "firewall on the loopback",
        "nccl": "Run with NCCL_DEBUG=INFO; name the interface with NCCL_SOCKET_IFNAME; NCCL_P2P_DISABLE=1 "
        "rules out a broken link",
    }[backend]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + START_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        away = ", or another machine was not started" * (layout.nodes > 1)
        yield Finding(
            "error", f"{ranks} did not come to an end in {seconds + START_SECONDS:.0f} s{away}", cure
        )
        return
    finally:
        shutil.rmtree(logs, ignore_errors=True)
    if done.returncode:
        errors = [
            line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")
        ]
        yield Finding(
            "error",
            f"{ranks} failed: {(errors or done.stderr.splitlines() or ['no message'])[-1].strip()}",
            cure,
        )
        return
    found = [json.loads(line[line.index("{") :]) for line in done.stdout.splitlines() if '{"rounds"' in line]
    if not found:  # the first rank, which measures, is on another machine
        yield ok(f"{ranks}: those of this machine took part")
    for measured in found:
        yield ok(
            f"{ranks}: {measured['rounds']} sums of 16 MB in {measured['seconds']:.1f} s, "
            f"{measured['ms']:.1f} ms each"
        )


def as_rank(backend: str, seconds: float) -> None:
    """One process of the test of collectives.

    Raises:
        RuntimeError: a sum is wrong.
    """
    import torch
    import torch.distributed as dist

    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(backend)
    world, rounds, start = dist.get_world_size(), 0, time.perf_counter()
    more = torch.ones(1, device=device)
    while more.item():
        numbers = torch.full((MESSAGE_FLOATS,), float(dist.get_rank() + 1), device=device)
        dist.all_reduce(numbers)
        if not (numbers == world * (world + 1) / 2).all():
            raise RuntimeError(
                f"the sum over {world} ranks is wrong: {numbers[0].item()}, expected "
                f"{world * (world + 1) / 2}."
            )
        rounds += 1
        more.fill_(time.perf_counter() - start < seconds)
        dist.broadcast(more, src=0)  # all ranks stop after the same round
    elapsed = time.perf_counter() - start
    if dist.get_rank() == 0:
        print(json.dumps({"rounds": rounds, "seconds": elapsed, "ms": 1000 * elapsed / rounds}))
    dist.destroy_process_group()


def main(argv: list[str] | None = None) -> int:
    """Print the findings; 1 when one is an error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("projects", nargs="*", metavar="YAML", help="project files whose data to look for")
    parser.add_argument(
        "--ranks",
        type=int,
        help="processes of this machine that talk to each other (default: one per GPU, or 2; 0: none)",
    )
    parser.add_argument(
        "--nnodes", type=int, default=1, metavar="N", help="machines; start the same line on each of them"
    )
    parser.add_argument(
        "--rdzv-endpoint", metavar="HOST:PORT", help="where the machines meet: one of them and a free port"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for how long (default: %(default)s)")
    parser.add_argument("--cpu", action="store_true", help="leave GPUs alone")
    parser.add_argument("--fix", choices=["fairseq"], help="install it into this environment, and look again")
    parser.add_argument("--as-rank", metavar="BACKEND", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.as_rank:
        as_rank(args.as_rank, args.seconds)
        return 0
    if args.fix:
        try:
            install_fairseq()
        except ConfigError as error:
            parser.exit(1, f"error: {error}\n")
    ranks = (0 if args.cpu else len(visible_gpus())) or 2
    try:
        layout = Layout(
            args.nnodes, ranks if args.ranks is None else args.ranks, args.rdzv_endpoint, "mmpt_doctor"
        )
    except ConfigError as error:
        parser.error(str(error))
    return report(findings(args.projects, layout, args.seconds, args.cpu))


def findings(projects: list[str], layout: Layout, seconds: float, cpu: bool) -> Iterator[Finding]:
    """Everything, in the order in which it matters."""
    yield from python()
    yield from torch_and_gpus()
    yield from imports()
    yield from machine()
    for path in projects:
        yield from project(path, cpu)
    if layout.per_node and layout.world_size > 1:
        yield from collectives(layout, seconds, cpu)


def report(found: Iterator[Finding]) -> int:
    """Print each finding as it comes; 1 when one is an error."""
    counts = {"ok": 0, "warning": 0, "error": 0}
    for finding in found:
        counts[finding.level] += 1
        print(f"{finding.level:8} {finding.text}", flush=True)
        if finding.cure:
            print(f"{'':8} cure: {finding.cure}")
    print(f"\n{counts['error']} errors, {counts['warning']} warnings")
    return 1 if counts["error"] else 0


if __name__ == "__main__":
    sys.exit(main())
