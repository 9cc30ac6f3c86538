"""Weights fetched to where this project looks for them: whole, verified, and resumed after a break."""

from __future__ import annotations

import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from mmpt.utils import optional_import
from mmpt.utils.files import BLOCK, file_sha256
from mmpt.zoo.entries import Entry

lines = logging.getLogger("mmpt.lines")
PART = ".part"  # of a file that is on its way
TIMEOUT_S = 60
Told = Callable[[int, int | None], None]


class FetchError(OSError):
    """Weights that could not be fetched; the message says what to fetch by hand and where to put it."""


def get(entry: Entry, told: Told = lambda done, total: None) -> list[str]:
    """Fetch what is missing of an entry, and verify what is there.

    Args:
        entry: of the list of known weights.
        told: called with the bytes that are there and, where known, the bytes of the whole file.

    Returns:
        Where it lies.

    Raises:
        FetchError: no network, an address that does not answer, or files that only a browser can fetch.
        ValueError: a file is another than the publisher's.
    """
    if entry.made_by:
        if entry.missing():
            raise FetchError(f"{entry.name} is not published. {entry.how()}")
        return list(entry.files)
    if entry.hub:
        return [_from_hub(entry)]
    by_hand = [path for path in entry.missing() if not entry.files[path]]
    if by_hand:
        raise FetchError(by_browser(entry, by_hand))
    for path, address in entry.files.items():
        if not Path(path).is_file():
            try:
                download(address, Path(path), entry.sha256.get(path), told)
            except (OSError, http.client.HTTPException) as error:
                raise FetchError(f"{address}: {error}.\n{by_browser(entry, entry.missing())}") from error
        verify(path, entry.sha256.get(path))
    return list(entry.files)


def by_browser(entry: Entry, paths: list[str]) -> str:
    """What a person has to do."""
    rows = [f"{entry.name}: put by hand (licence: {entry.licence})"]
    for path in paths:
        address = entry.files.get(path)
        rows.append(f"  from {address or entry.page}\n  to   {Path(path)}")
        rows += [f"  sha256 {entry.sha256[path]}"] if path in entry.sha256 else []
    return "\n".join(rows)


def download(
    address: str, path: Path, sha256: str | None = None, told: Told = lambda done, total: None
) -> None:
    """One file, by way of `<path>.part`, from which a later call goes on.

    Raises:
        OSError: the address does not answer, or ends early.
        ValueError: the file is another than `sha256` says; it is removed.
    """
    part = path.with_name(path.name + PART)
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: there is nothing beyond what is here
            raise
        answer = None
    if answer is not None:
        with answer:
            if have and answer.status != 206:  # a server that knows no ranges begins anew
                have = 0
            size = answer.headers.get("Content-Length")
            total = None if size is None else have + int(size)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "ab" if have else "wb") as file:
                while block := answer.read(BLOCK):
                    file.write(block)
                    have += len(block)
                    told(have, total)
            if total is not None and have < total:
                raise OSError(f"it ended after {have} of {total} bytes; the next call goes on from there")
    verify(part, sha256)
    part.replace(path)


def verify(path: str | Path, sha256: str | None) -> None:
    """Refuses a file that is another than its checksum says.

    Raises:
        ValueError: names both checksums; what was just fetched is removed.
    """
    if sha256 is None:
        return
    found = file_sha256(path)
    if found != sha256:
        if str(path).endswith(PART):
            Path(path).unlink()
        raise ValueError(f"{path}: sha256 {found}, expected {sha256}: another file, or a damaged one.")


def _from_hub(entry: Entry) -> str:
    hub = optional_import("huggingface_hub")
    try:
        return hub.snapshot_download(entry.hub, ignore_patterns=["*.msgpack", "*.h5", "*.ot", "*.onnx"])
    except (OSError, ValueError) as error:
        raise FetchError(
            f"{entry.hub}: {str(error).splitlines()[0]}\n{entry.name}: download the files of {entry.page} "
            f"into a folder, and give that folder instead of the name (licence: {entry.licence})."
        ) from error
