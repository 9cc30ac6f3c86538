"""Readers of what other projects save: matrices, ids, pairs, judgements. Nothing read here can run code.

| file | read as |
|---|---|
| `.npz`, `.pt`, `.safetensors` | named arrays; one array needs no name |
| `.npy` | one array |
| `.csv` | scores: first row the gallery ids, first column the query ids |
| `.json` | mteb predictions `{subset: {split: {query: {item: score}}}}`, or without the outer levels |
| `.jsonl` | VLM2Vec rankings: `{"prediction": [item, ...], "label": [item]}` a line |
| no suffix | VLM2Vec embeddings: a pickle of an array, or of item -> vector |
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmpt.utils.safe_pickle import load_array_pickle
from mmpt.utils.shardedtensor import load_npz, open_npy
from mmpt.utils.text import TextError, parse_json, read_json_lines, read_lines, read_text

QUERY_KEYS, ITEM_KEYS = ("query_id", "query", "query-id"), ("gallery_id", "item", "video_id", "corpus-id")


class BadFile(ValueError):
    """A file is not what it should be; the message names it, what was expected and what was found."""


def _names_its_file(reader: Callable) -> Callable:
    """A reader of one path whose failures on a broken file say which file that is."""

    @functools.wraps(reader)
    def read(path: str | Path, *arguments):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist.")
        try:
            return reader(path, *arguments)
        except (BadFile, TextError, ImportError, MemoryError):
            raise
        except (
            Exception
        ) as error:  # numpy, torch, json, csv, zipfile, ... each have their own for half a file
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadFile(
                f"{path}: not a whole file of its kind, or not of the expected form ({reason})."
            ) from error

    return read


PREDICTED = {"queries": "pooled_text", "gallery": "pooled_video"}  # in `predictions.npz` of mmpt predict


class Table(NamedTuple):
    """A matrix with the names of its rows and columns, where the file gives them."""

    values: Tensor
    rows: list[str] | None = None
    columns: list[str] | None = None
    label: list[str] | None = None  # right item of each row, where the file names it


class Pair(NamedTuple):
    """A query, its right item, and its caption (empty: unknown)."""

    query: str
    item: str
    caption: str = ""


@_names_its_file
def read_table(path: Path, name: str) -> Table:
    """One matrix; `name` picks it in a file of several.

    Raises:
        FileNotFoundError: no such file.
        BadFile: the file is not what its suffix says, lacks `name`, holds no matrix, or one with rows that
            are not finite.
    """
    readers = {
        ".csv": _score_csv,
        ".tsv": _score_csv,
        ".json": _mteb_run,
        ".jsonl": _vlm2vec_run,
        "": _vlm2vec_pickle,
        ".pkl": _vlm2vec_pickle,
    }
    if path.suffix in readers:
        return readers[path.suffix](path)
    return Table(_matrix(path, name, _pick(path, name, _arrays(path))))


def _arrays(path: Path) -> Mapping[str, Any]:
    """Name -> array; a file of one array names it ''."""
    if path.suffix == ".npz":
        return load_npz(path)
    if path.suffix == ".npy":
        array = open_npy(path, any_order=True)
        return {"": array.astype(array.dtype.newbyteorder("="), copy=False)}
    if path.suffix in (".pt", ".pth"):
        found = torch.load(path, map_location="cpu", weights_only=True)
        return found if isinstance(found, Mapping) else {"": found}
    if path.suffix == ".safetensors":
        return load_file(path)
    raise BadFile(
        f"{path}: unknown suffix {path.suffix!r}; expected npz, npy, pt, safetensors, csv, json or jsonl."
    )


def _pick(path: Path, name: str, arrays: Mapping[str, Any]) -> Any:
    for key in (name, PREDICTED.get(name, name)):
        if key in arrays:
            return arrays[key]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise BadFile(f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; expected an array named {name!r}.")


def _matrix(path: Path, name: str, values: Any) -> Tensor:
    values = torch.as_tensor(values)
    if values.ndim != 2 or not values.numel():
        raise BadFile(f"{path}: {name} has shape {tuple(values.shape)}; expected a matrix (rows, columns).")
    values = values.double() if values.dtype == torch.float64 else values.float()
    if name != "reranked" and (bad := ~values.isfinite().all(1)).any():
        raise BadFile(
            f"{path}: {int(bad.sum())} of {len(bad)} rows of {name} hold NaN or infinity (first: row "
            f"{int(bad.nonzero()[0])}); ranks of such rows mean nothing."
        )
    return values


def _score_csv(path: Path) -> Table:
    with io.StringIO(read_text(path), newline="") as file:
        head, *lines = list(
            csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        ) or [[]]
    for number, line in enumerate(lines, start=2):
        if len(line) != len(head):
            raise BadFile(
                f"{path}, line {number}: {len(line)} fields, the head has {len(head)}; expected a query id "
                "and one score an item."
            )
    try:
        values = np.array([line[1:] for line in lines], dtype=np.float64)
    except ValueError as error:
        raise BadFile(
            f"{path}: {error}; expected numbers below a row of gallery ids and beside a column of query ids."
        ) from error
    return Table(_matrix(path, "scores", values).float(), [line[0] for line in lines], head[1:])


def _mteb_run(path: Path) -> Table:
    run = parse_json(read_text(path), str(path))
    run = {key: value for key, value in run.items() if key != "mteb_model_meta"}
    while (first := next(iter(run.values()), None)) is not None and any(
        isinstance(value, Mapping) for value in first.values()
    ):
        if len(run) > 1:
            raise BadFile(
                f"{path} holds {', '.join(map(str, run))}; expected one subset and one split. Keep the one "
                "to audit."
            )
        run = first
    return _from_runs(path, {query: dict(items) for query, items in run.items()})


def _vlm2vec_run(path: Path) -> Table:
    records = read_json_lines(path)
    for number, record in enumerate(records, start=1):
        if not {"prediction", "label"} <= record.keys():
            raise BadFile(
                f"{path}, line {number}: expected the keys 'prediction' and 'label', got {', '.join(record)}."
            )
    runs = {
        str(row): {item: -float(place) for place, item in enumerate(record["prediction"])}
        for row, record in enumerate(records)
    }
    labels = [
        record["label"] if isinstance(record["label"], list) else [record["label"]] for record in records
    ]
    if any(len(label) != 1 for label in labels):
        raise BadFile(
            f"{path}: queries with several labels; expected one right item a query. Give the others as "
            "judgements."
        )
    return _from_runs(path, runs)._replace(label=[str(label[0]) for label in labels])


def _from_runs(path: Path, runs: Mapping[str, Mapping[str, float]]) -> Table:
    """A dense matrix from lists of scored items; what a list does not hold ranks below all that any list
    holds."""
    if not runs:
        raise BadFile(f"{path} holds no query.")
    columns = list(dict.fromkeys(str(item) for run in runs.values() for item in run))
    place = {item: column for column, item in enumerate(columns)}
    values = np.full((len(runs), len(columns)), np.nan)
    for row, run in enumerate(runs.values()):
        values[row, [place[str(item)] for item in run]] = list(run.values())
    values[np.isnan(values)] = np.nanmin(values) - 1
    return Table(_matrix(path, "scores", values).float(), [str(query) for query in runs], columns)


def _vlm2vec_pickle(path: Path) -> Table:
    found = load_array_pickle(path)
    if isinstance(found, Mapping):
        return Table(
            _matrix(path, "embeddings", np.stack(list(found.values()))), columns=[str(item) for item in found]
        )
    return Table(_matrix(path, "embeddings", found))


@_names_its_file
def read_ids(path: Path) -> list[str]:
    """Ids one a line, or a JSON list."""
    if path.suffix == ".json":
        return [str(item) for item in parse_json(read_text(path), str(path))]
    return read_lines(path)


def read_list(value: str | Path) -> list[str] | int:
    """A number of items, or a file of their ids."""
    return int(str(value)) if str(value).isdigit() else read_ids(value)


@_names_its_file
def read_pairs(path: Path) -> list[Pair]:
    """Which item each query belongs to: csv with the columns query_id, gallery_id and perhaps caption;
    VLM2Vec's info.jsonl; mteb's qrels.

    Raises:
        BadFile: a record lacks its item, or names several.
    """
    if path.suffix == ".json":
        return [
            Pair(query, _single(path, query, _relevant(items)))
            for query, items in parse_json(read_text(path), str(path)).items()
        ]
    if path.suffix == ".jsonl":
        records = read_json_lines(path)
        return [
            Pair(str(row), _single(path, row, record.get("label_name")), record.get("caption", ""))
            for row, record in enumerate(records)
        ]
    return [pair for pair, _ in _pair_csv(path)]


def _relevant(items: Any) -> list[Any]:
    """Items of a list, or those of {item: relevance} above zero."""
    return [item for item in items if items[item] > 0] if isinstance(items, Mapping) else list(items)


def _single(path: Path, query: Any, items: Any) -> str:
    items = items if isinstance(items, list) else [items]
    if len(items) != 1 or items[0] is None:
        raise BadFile(
            f"{path}: query {query} has {len(items)} right items; expected one. Give the others as "
            "judgements."
        )
    return str(items[0])


def _pair_csv(path: Path) -> list[tuple[Pair, float]]:
    """Records of a csv with a head, and the score that each gives its pair (1 where none is given)."""
    with io.StringIO(read_text(path), newline="") as file:
        records = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True))
    if not records or not any(key in records[0] for key in ITEM_KEYS):
        raise BadFile(f"{path}: expected a head with the columns query_id, gallery_id and perhaps caption.")
    query, item = (next((key for key in keys if key in records[0]), None) for keys in (QUERY_KEYS, ITEM_KEYS))
    found = []
    for line, record in enumerate(records, start=2):
        if not record[item] or None in record:
            raise BadFile(
                f"{path}, line {line}: expected the fields {', '.join(key for key in records[0] if key)}, "
                f"got {list(record.values())}."
            )
        name = record[query] if query else str(line - 2)
        found.append((Pair(name, record[item], record.get("caption") or ""), float(record.get("score") or 1)))
    return found


@_names_its_file
def read_judgements(path: Path) -> dict[str, set[str]]:
    """Further right items of a query: csv with query_id and gallery_id (and perhaps score > 0), or JSON
    {query: [item, ...]}."""
    found: dict[str, set[str]] = {}
    if path.suffix == ".json":
        return {
            query: set(map(str, _relevant(items)))
            for query, items in parse_json(read_text(path), str(path)).items()
        }
    for pair, score in _pair_csv(path):
        if score > 0:
            found.setdefault(pair.query, set()).add(pair.item)
    return found
