"""Checkpoints in shards, each written by one of the processes that train.

    checkpoint_1_20.pt            all but the large tensors, and the checksums of their files
    shards/checkpoint_1_20-0/     the tensors, as `torch.distributed.checkpoint` writes them

The .pt file is written last, so the checkpoint is there as a whole or not at all, and several names
(checkpoint_last.pt) can stand for the same shards. It is read like any other, by any number of processes.
"""

from __future__ import annotations

import copy
import heapq
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mmpt.utils.files import file_sha256, sync_folder
from mmpt.utils.safe_pickle import load_known_pickle

KEY = "mmpt_shards"  # in the .pt file: {"folder": below its own, "files": {name: sha256}}
FOLDER = "shards"
METADATA = ".metadata"  # of torch: where in which file each tensor lies
PART = "in_shards"  # {PART: name} stands for a tensor
LARGE = ("model", "last_optimizer_state")  # the entries of a state whose tensors all processes hold alike
ALONE = "Such a file cannot be moved alone: `mmpt checkpoint convert` makes a single file of its weights."


def split(state: Mapping[str, Any], chosen: Callable[[Tensor], bool]) -> tuple[dict[str, Any], dict]:
    """A state without its large tensors, and these by name; one that stands in two places (tied weights) has
    one name.

    Args:
        state: of fairseq's trainer.
        chosen: which tensors of `LARGE` go to the shards.
    """
    names: dict[Any, str] = {}
    tensors: dict[str, Tensor] = {}

    def part(value: Any, path: str) -> Any:
        if not isinstance(value, Tensor) or not chosen(value):
            return value
        key = (value.data_ptr(), value.shape, value.stride()) if value.numel() else path
        name = names.setdefault(key, path)
        tensors[name] = value
        return {PART: name}

    rest = {key: _mapped(value, part, key) if key in LARGE else value for key, value in state.items()}
    return rest, tensors


def share(tensors: Mapping[str, Tensor], rank: int, ranks: int) -> dict[str, Tensor]:
    """What one of the processes writes; each gets about as many bytes as the others."""
    loads = [(0, number) for number in range(ranks)]
    mine = {}
    for name in sorted(tensors, key=lambda name: (-tensors[name].nbytes, name)):
        load, number = heapq.heappop(loads)
        heapq.heappush(loads, (load + tensors[name].nbytes, number))
        if number == rank:
            mine[name] = tensors[name]
    return mine


def new_folder(checkpoint: Path) -> Path:
    """Where the shards of a checkpoint go; never where those of another lie."""
    names = (f"{checkpoint.stem}-{number}" for number in range(10**9))
    return next(path for name in names if not (path := checkpoint.parent / FOLDER / name).exists())


def write(tensors: Mapping[str, Tensor], folder: Path, group: dist.ProcessGroup | None) -> dict[str, Any]:
    """Write this process's tensors beside those of the others of `group` (None: there are none).

    Returns:
        What `fill` needs to know, as the entry `KEY` of the state.

    Raises:
        OSError: a process could not write its share, or reads back something else; in all of them.
    """
    from torch.distributed.checkpoint import CheckpointException, FileSystemWriter, save

    rank = group.rank() if group is not None else 0
    problem, files = None, {}
    try:
        save(dict(tensors), storage_writer=FileSystemWriter(folder), process_group=group)
        own = [*folder.glob(f"__{rank}_*"), *([folder / METADATA] if rank == 0 else [])]
        files = {path.name: file_sha256(path) for path in own}
        problem = _other(tensors, read(folder, tensors))
    except CheckpointException as error:  # its text holds the traceback of every process
        problem = "; ".join(f"process {number}: {found[0]}" for number, found in error.failures.items())
    except (OSError, ValueError) as error:
        problem = str(error)
    found = _gathered((problem, files), group)
    problems = [said for said, _ in found if said is not None]
    if rank == 0 and not problems:
        for changed in (folder, folder.parent):
            sync_folder(changed)
    elif rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
    if problems:
        raise OSError(problems[0])
    return {
        "folder": f"{FOLDER}/{folder.name}",
        "files": {name: digest for _, part in found for name, digest in part.items()},
    }


def read(folder: Path, names: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """The tensors in a folder of shards, or those of them that are named.

    Raises:
        ValueError: it is damaged, or would run code.
    """
    from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader
    from torch.distributed.checkpoint.metadata import StorageMeta, TensorStorageMetadata

    try:
        metadata = load_known_pickle(folder / METADATA, _known())
        metadata.storage_meta = StorageMeta()
        about = {
            name: entry
            for name, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata) and (names is None or name in names)
        }
        tensors = {name: torch.empty(one.size, dtype=one.properties.dtype) for name, one in about.items()}
        reader, planner = FileSystemReader(folder), DefaultLoadPlanner()
        # what `load` does, which for several processes is a collective
        planner.set_up_planner(tensors, metadata, is_coordinator=True)
        reader.set_up_storage_reader(metadata, is_coordinator=True)
        reader.read_data(reader.prepare_local_plan(planner.create_local_plan()), planner).wait()
    except Exception as error:  # torch has errors of its own for each damage
        raise ValueError(f"{folder} is damaged ({str(error)[:200]}). Fetch or save it again.") from error
    return tensors


def fill(state: Any, path: Path) -> Any:
    """The state of a checkpoint file with its tensors, wherever they lie.

    Raises:
        ValueError: a file of its shards is missing, or is not the one that was saved.
    """
    name_of_folder = named_by(state)
    if name_of_folder is None:
        return state
    folder = path.resolve().parent / name_of_folder  # a link stands for the checkpoint and its shards
    for name, digest in state[KEY]["files"].items():
        if not (folder / name).is_file():
            raise ValueError(f"{path} has its tensors in {folder}, where {name} is missing. {ALONE}")
        if file_sha256(folder / name) != digest:
            raise ValueError(f"{folder / name}, a shard of {path}, is damaged. Fetch or save it again.")
    tensors = read(folder)

    def whole(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping) or PART not in value:
            return value
        if value[PART] not in tensors:
            raise ValueError(f"{path} has {value[PART]} in {folder}, where it is missing.")
        return tensors[value[PART]]

    large = {key: _mapped(state[key], whole, key) for key in LARGE if key in state}
    return {key: value for key, value in state.items() if key != KEY} | large


def named_by(state: Any) -> str | None:
    """The folder of the shards of a checkpoint file, below its own; None: it holds its tensors itself."""
    about = state.get(KEY) if isinstance(state, Mapping) else None
    return about["folder"] if isinstance(about, Mapping) and about.keys() == {"folder", "files"} else None


def _mapped(value: Any, change: Callable[[Any, str], Any], path: str) -> Any:
    """`change` of everything in nested containers, which keep their kind."""
    changed = change(value, path)
    if changed is not value or not isinstance(value, dict | list | tuple):
        return changed
    if isinstance(value, dict):
        twin = copy.copy(value)  # an OrderedDict of torch has attributes
        twin.update({key: _mapped(inner, change, f"{path}.{key}") for key, inner in value.items()})
        return twin
    return type(value)(_mapped(inner, change, f"{path}.{number}") for number, inner in enumerate(value))


def _other(given: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    for name, tensor in given.items():
        same = name in found and found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        if not same or not torch.equal(_bytes(found[name]), _bytes(tensor)):
            return f"read back, {name} differs"
    return None


def _bytes(tensor: Tensor) -> Tensor:
    """Its bytes: NaN is not equal to NaN."""
    return tensor.contiguous().view(-1).view(torch.uint8)


def _gathered(mine: Any, group: dist.ProcessGroup | None) -> list[Any]:
    """What each process has, in every process."""
    if group is None:
        return [mine]
    found = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, mine, group=group)
    return found


def _known() -> dict[tuple[str, str], Any]:
    """The classes that describe tensors in shards; others in `.metadata` could run code."""
    from torch.distributed.checkpoint import filesystem, metadata

    classes = {
        metadata: (
            *("ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties"),
            *("TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
        ),
        filesystem: ("_StorageInfo",),
    }
    known = {(room.__name__, name): getattr(room, name) for room, names in classes.items() for name in names}
    dtypes = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
    known |= {("torch", name): value for name, value in (dtypes | {"Size": torch.Size}).items()}
    known[("torch.serialization", "_get_layout")] = lambda name: torch.strided
    # where they were written, by the name of the class in Python 3.10 to 3.12, and in 3.13
    return known | {(room, "PosixPath"): lambda *parts: None for room in ("pathlib", "pathlib._local")}
