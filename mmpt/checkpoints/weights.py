"""Reading weights: fairseq checkpoints old and new, plain state dicts, safetensors; safely, and with a
verdict.

A `.pt` file is a pickle, and a pickle can run code. Files are read by torch's restricted unpickler; objects
that trainers stored beside the weights (settings of argparse, omegaconf and fairseq, optimizers, schedules,
classes of their own code) are replaced by empty placeholders: nothing of them is imported or called. A file
that names what weights have no use for, such as `os.system`, is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import pickletools
import re
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from mmpt.checkpoints import shards
from mmpt.utils.files import atomic_write, stream_sha256
from mmpt.zoo import remedy

logger = logging.getLogger(__name__)

STANDARD = (  # of Python's library, settings and counters; all else there is a reason to distrust a file
    "argparse.Namespace",
    "collections.",
    "copyreg._reconstructor",
    "datetime.",
    "enum.",
    "functools.partial",
    "pathlib.",
    "types.SimpleNamespace",
    "typing.Any",
    "uuid.UUID",
    "_codecs.encode",
)
PLAIN = {f"builtins.{kind.__name__}": kind for kind in (bool, dict, float, int, list, str, tuple)}
SMALL = ("bytearray", "complex", "frozenset", "object", "set")  # of builtins
LEGACY_PICKLES = 4  # of a file older than torch 1.6: magic number, protocol, system, and the content
KNOWN = PLAIN | {"argparse.Namespace": argparse.Namespace, "collections.defaultdict": lambda *args: {}}
# of DistributedDataParallel, of torch.compile, of the fairseq wrapper
PREFIXES = ("module.", "_orig_mod.", "mmmodel.")
# where trainers put the weights, first the state that is meant to be used
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "ema", "model_ema", "state_dict_ema")
CHECKSUM = "sha256"  # in the header of our safetensors files: of all else in the file, see `_checksum`


class _Placeholder:
    """Stands for a stored object: accepts what the pickle says and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any):
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did.

    Attributes:
        missing: model tensors that the file does not have; they keep their values.
        unexpected: file tensors that the model has no place for.
        verdict: both in one sentence, grouped.
        stripped: what was taken off the front of every name of the file, such as Lightning's `model.`.
    """

    missing: list[str]
    unexpected: list[str]
    verdict: str
    stripped: str = ""


@dataclass(frozen=True)
class Contents:
    """A checkpoint file, read once.

    Attributes:
        weights: tensors by parameter name, on the CPU, half precision widened to float32; unwrapped from
            `WRAPPERS`, `PREFIXES` stripped at any depth, the `position_ids` of old BERTs dropped.
        state: everything in a .pt file; objects of trainers are empty placeholders.
        header: of a safetensors file.
        sha256: of the whole file, where it was asked for.
        stripped: what was taken off the front of all its names, such as `module._orig_mod.`.
    """

    weights: dict[str, Tensor]
    state: Any
    header: Mapping[str, str]
    sha256: str | None = None
    stripped: str = ""


def read_file(path: str | Path, with_sha256: bool = False) -> Contents:
    """Opens a checkpoint file once, and takes all from it that anybody asks for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, would run code, or holds no weights.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such weights file. {remedy(path)}")
    state, header, digest = _read(Path(path), with_sha256)
    unwrapped = _unwrap(state)
    try:
        tensors = plain_state_dict(unwrapped)
    except ValueError as error:
        raise ValueError(f"{path}: {error} Save one of the two models alone.") from error
    if not tensors:
        expected = "expected tensors, or a dict of them under 'model' or 'state_dict'"
        raise ValueError(f"{path} holds no weights: {expected}, got {_kinds(unwrapped)}.")
    return Contents(tensors, state, header, digest, _stripped(unwrapped))


def updates_of(path: Path) -> int:
    """For how many updates a fairseq checkpoint was trained."""
    state = read_outline(path)
    try:
        return int(state["optimizer_history"][-1]["num_updates"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not say after which update it was saved.") from error


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Checkpoints by the updates they were trained for, fewest first, and by name among equals; before them
    those that do not say it: weights alone, and damaged files.

    Their times say nothing: a backup brings files back in any order.
    """

    def key(path: Path) -> tuple[int, str]:
        try:
            return updates_of(path), path.name
        except ValueError:
            return -1, path.name

    return sorted(paths, key=key)


def read_outline(path: Path) -> Any:
    """What a .pt file holds, its tensors left on disk, or in its shards; errors as in `read_file`."""
    with open(path, "rb") as file:
        return _read_pickle(file, path, on_disk=True)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint file; see `Contents.weights`, errors as in `read_file`."""
    return read_file(path).weights


def read_stored(path: str | Path) -> Any:
    """All that a checkpoint file holds, on the CPU; errors as in `read_file`."""
    return _read(Path(path))[0]


def plain_state_dict(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a stored state by plain parameter name, half precision widened; see
    `read_state_dict`.

    Raises:
        ValueError: two different tensors have one plain name.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Tensor) and isinstance(name, str):
            plain = _plain_name(name)
            if plain in tensors and not _same(tensors[plain], value):
                raise ValueError(f"{name} and another tensor of the file are both {plain}, and they differ.")
            tensors[plain] = value
    return {name: _widen(value) for name, value in tensors.items() if not name.endswith("position_ids")}


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Copies the weights of a checkpoint file into `model` and says what fitted; errors as in
    `fit_state_dict`."""
    contents = read_file(path)
    return fit_state_dict(model, contents.weights, path, contents.stripped)


def fit_state_dict(
    model: nn.Module, state: Mapping[str, Tensor], path: str | Path, stripped: str = ""
) -> LoadReport:
    """Copies `state` (plain names, see `read_state_dict`) into `model` and says what fitted.

    A model that knows older names and sizes of its tensors has a method `released_state`, which translates
    them; one that cannot do without some tensors names them as `required_weights`. Tensors that it must
    not leave unread, since its scores would be others without an error, are the keys of `decisive_weights`;
    the values say what makes it read them.

    Args:
        path: where `state` came from, for messages.
        stripped: what was taken off its names before, for the report.

    Raises:
        ValueError: a tensor has another shape than the model's, less than half of the model's tensors are in
            the file, or one that the model requires is not.
    """
    own = model.state_dict()
    if hasattr(model, "released_state"):
        state = model.released_state(state)
    state, more = _fitted_names(state, own)
    stripped += more
    filled = {own[name].data_ptr() for name in own if name in state}  # tied weights need one name in the file
    missing = [name for name in own if name not in state and own[name].data_ptr() not in filled]
    unexpected = [name for name in state if name not in own]
    matched = len(own) - len(missing)
    verdict = _verdict(matched, len(own), missing, unexpected)
    verdict += f"; {stripped!r} taken off the names" if stripped else ""
    if 2 * matched < len(own) or not matched:
        raise ValueError(
            f"{path} is a checkpoint of another model: {verdict}. Check model.model_cls against the file."
        )
    for name, cure in getattr(model, "decisive_weights", {}).items():
        if name in unexpected:
            raise ValueError(f"{path} holds {name}, which this model does not read. {cure}")
    required = [name for name in missing if name in getattr(model, "required_weights", ())]
    if required:
        raise ValueError(
            f"{path} lacks {_grouped(required)} of {type(model).__name__}. Take the file of a whole model, "
            "or leave out the modality that needs them."
        )
    wrong = [
        f"{name}: file {tuple(state[name].shape)}, model {tuple(own[name].shape)}"
        for name in own
        if _differs(state, own, name)
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        listed = "; ".join(wrong[:5]) + more
        raise ValueError(
            f"{path} does not fit the model's sizes: {listed}. Check dataset.bert_name and the model section."
        )
    model.load_state_dict({name: state[name] for name in own if name in state}, strict=False)
    logger.log(logging.WARNING if missing else logging.INFO, "%s: %s", path, verdict)
    return LoadReport(missing, unexpected, verdict, stripped)


def _fitted_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """The state with what stands before all its names taken off, part by part, as long as that makes more of
    them names of the model; and what was taken off."""
    best, stripped, found = (state, ""), "", _shared(state, own)
    while state and len({name.split(".")[0] for name in state}) == 1 and all("." in name for name in state):
        first = next(iter(state)).split(".")[0] + "."
        state, stripped = {name.removeprefix(first): value for name, value in state.items()}, stripped + first
        if _shared(state, own) > found:
            best, found = (state, stripped), _shared(state, own)
    return best


def _shared(state: Mapping[str, Any], own: Mapping[str, Any]) -> int:
    return sum(name in own for name in state)


def seal(path: str | Path) -> None:
    """Writes a checksum into the header of a safetensors file; `read_file` compares it."""
    content = Path(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header["__metadata__"] = header.get("__metadata__", {}) | {CHECKSUM: _checksum(header, data)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(data)


def _checksum(header: Mapping[str, Any], data: bytes) -> str:
    """SHA-256 of names, shapes, places and description of the tensors, and of their bytes."""
    said = {key: value for key, value in header.get("__metadata__", {}).items() if key != CHECKSUM}
    digest = hashlib.sha256(json.dumps({**header, "__metadata__": said}, sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()


def refuse_other_files(path: str | Path, head: bytes) -> None:
    """Raises ValueError where the first bytes show what was fetched in place of weights."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(
            f"{path} is a web page, not a checkpoint: the download led to a log-in or confirmation page. "
            "Open its address in a browser and save the file itself."
        )
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a pointer of Git LFS, not the file. Fetch it with: git lfs pull")


def broken_record(path: str | Path) -> str | None:
    """The first record of a zip archive, which .pt files are, whose checksum differs; None when all agree."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile and zlib have errors of their own for each damage
        return str(error)[:200] or type(error).__name__
    return f"checksum of {broken} differs" if broken else None


def _read(path: Path, with_sha256: bool = False) -> tuple[Any, Mapping[str, str], str | None]:
    """What is stored, the header of a safetensors file, and the checksum."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}.")
    with open(path, "rb") as file:
        refuse_other_files(path, file.read(64))
        file.seek(0)
        digest = stream_sha256(file) if with_sha256 else None
        file.seek(0)
        if path.suffix == ".safetensors":
            return *_read_safetensors(file, path), digest
        return shards.fill(_read_pickle(file, path), path), {}, digest


def _read_safetensors(file: BinaryIO, path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = file.read()
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); it may be truncated. Fetch or save it "
            "again."
        ) from error
    length = int.from_bytes(content[:8], "little")  # of the JSON header that follows
    whole = json.loads(content[8 : 8 + length])
    header = whole.get("__metadata__") or {}
    if CHECKSUM in header and _checksum(whole, content[8 + length :]) != header[CHECKSUM]:
        raise ValueError(
            f"{path} is damaged: its tensors are not those that were saved. Fetch or save it again."
        )
    return tensors, header


def _read_pickle(file: BinaryIO, path: Path, on_disk: bool = False) -> Any:
    archive = zipfile.is_zipfile(file)
    mmap = on_disk and archive
    file.seek(0)
    # torch compares no checksums: a bit that flipped in a weight would pass
    if archive and not on_disk and (problem := broken_record(path)):
        raise ValueError(f"{path} is damaged ({problem}). Fetch or save it again.")
    try:
        foreign = _foreign_classes(file)
        refused = sorted(name for name in foreign if _is_suspect(name))
        if not refused:
            file.seek(0)
            with torch.serialization.safe_globals(
                [(KNOWN.get(name, _Placeholder), name) for name in foreign]
            ):
                return torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch, pickle and zip have errors of their own for each damage
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named:
            raise _refusal(path, [named[1]]) from error
        # the rest of what torch says is advice to switch its safety off
        torchs = re.search(r"WeightsUnpickler error: ([^\n]*)", str(error))
        said = (torchs[1] if torchs else str(error).split("\n")[0].split(". ")[0]).strip()[:200] or type(
            error
        ).__name__
        raise ValueError(
            f"{path} is not a readable torch checkpoint ({said}); it may be truncated. Fetch or save "
            "it again."
        ) from error
    raise _refusal(path, refused)


def _foreign_classes(file: BinaryIO) -> list[str]:
    """Names in the pickle that torch does not know as safe; of files older than torch 1.6, which are no zip
    archives, all names."""
    archive = zipfile.is_zipfile(file)
    file.seek(0)
    if archive:
        return torch.serialization.get_unsafe_globals_in_checkpoint(file)
    named = set()
    try:
        for _ in range(LEGACY_PICKLES):
            named |= {str(word) for code, word, _ in pickletools.genops(file) if code.name == "GLOBAL"}
    except (ValueError, EOFError):  # not such a file: torch says so when it reads it
        pass
    return [".".join(_name_of_today(*name.split(" ", 1))) for name in named]


def _name_of_today(module: str, name: str) -> tuple[str, str]:
    """Pickles of protocol 2, torch's, spell Python's own classes as Python 2 did."""
    return NAME_MAPPING.get((module, name)) or (IMPORT_MAPPING.get(module, module), name)


def _is_suspect(name: str) -> bool:
    """Is a name in a pickle of Python's own library, and nothing that stands beside weights?"""
    if name.split(".")[0] not in sys.stdlib_module_names or name in PLAIN:
        return False
    return name.removeprefix("builtins.") not in SMALL and not name.startswith(STANDARD)


def _refusal(path: Path, names: Iterable[str]) -> ValueError:
    return ValueError(
        f"{path} would run code of {', '.join(names)}; a weights file needs none of it. "
        "If you trust its source, re-save its tensors alone with torch.save(state_dict, path) where that "
        "code is installed."
    )


def _unwrap(loaded: Any) -> Mapping[str, Any]:
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            return loaded
        loaded = inner
    return {}


def _plain_name(name: str) -> str:
    parts = name.split("._orig_mod.")  # of a part that was compiled alone
    name = ".".join(parts)
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def _stripped(state: Mapping[str, Any]) -> str:
    """What `_plain_name` takes off the front of every name; nothing where it is what training puts there."""
    names = [name for name, value in state.items() if isinstance(value, Tensor) and isinstance(name, str)]
    plain = map(_plain_name, names)
    fronts = {name[: len(name) - len(rest)] for name, rest in zip(names, plain, strict=True)}
    front = fronts.pop() if len(fronts) == 1 else ""
    return "" if front == "mmmodel." or _plain_name(front) else front


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.equal(one, other))


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _differs(state: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str) -> bool:
    return name in state and state[name].shape != own[name].shape


def _kinds(state: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, state))[:8]) or "nothing of the kind"


def _verdict(matched: int, total: int, missing: list[str], unexpected: list[str]) -> str:
    parts = [f"all {total} tensors loaded" if not missing else f"{matched} of {total} tensors loaded"]
    if missing:
        parts.append(f"missing from the file: {_grouped(missing)}")
    if unexpected:
        parts.append(f"not used by the model: {_grouped(unexpected)}")
    return "; ".join(parts)


def _grouped(names: Iterable[str]) -> str:
    """`video_encoder.classifier.* (2), text_encoder.* (199)`: by first component, by the first two where one
    group holds them all."""
    groups = Counter(name.split(".")[0] for name in names)
    if len(groups) == 1:
        groups = Counter(".".join(name.split(".")[:2]) for name in names)
    return ", ".join(f"{group}.* ({count})" if count > 1 else group for group, count in groups.items())
