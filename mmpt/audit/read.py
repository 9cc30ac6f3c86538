"""Evidence from files that were written by different hands: rows, ids and pairs are brought together."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmpt.audit import files
from mmpt.audit.evidence import Evidence


def read_evidence(
    *,
    scores: str | Path | None = None,
    queries: str | Path | None = None,
    gallery: str | Path | None = None,
    pairs: str | Path | None = None,
    gallery_ids: str | Path | None = None,
    reranked: str | Path | None = None,
    bank: str | Path | None = None,
    judgements: str | Path | None = None,
    listed: str | Path | None = None,
    claimed_list: str | Path | None = None,
    similarity: str = "cosine",
    measure: str = "",
) -> Evidence:
    """Evidence from files; see `mmpt.audit.files` for the forms and `Evidence` for the meaning.

    Args:
        pairs: which item each query belongs to; without it query i belongs to column i.
        gallery_ids: id of each column, where the matrix file does not name them.
        listed: file of the ids of the published list, or their number.
        claimed_list: file of the ids that the claim was made about, or their number.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is broken, or two do not fit together; the message names them and what was
            expected.
    """
    if (scores is None) == (queries is None or gallery is None):
        raise ValueError("give either a score matrix, or embeddings of queries and of the gallery.")
    matrix = files.read_table(scores, "scores") if scores else None
    asking = matrix or files.read_table(queries, "queries")
    answering = matrix or files.read_table(gallery, "gallery")
    n_rows, n_columns = matrix.values.shape if matrix else (len(asking.values), len(answering.values))
    known = _pairs(pairs, matrix, n_rows)
    columns = files.read_ids(gallery_ids) if gallery_ids else answering.columns
    columns = _columns(columns, known, n_rows, n_columns)
    known = known or [files.Pair(str(row), item) for row, item in enumerate(columns)]
    items = list(dict.fromkeys(columns))
    place = {item: i for i, item in enumerate(items)}
    asked = np.array([pair.item in place for pair in known])
    if not asked.any():
        raise ValueError(
            f"no query's right item is in the gallery: queries ask for {known[0].item!r}, ..., the gallery "
            f"has {columns[0]!r}, .... Give both the same ids."
        )
    kept = [pair for pair, there in zip(known, asked, strict=True) if there]
    rows = torch.from_numpy(np.flatnonzero(asked))
    second = files.read_table(reranked, "reranked").values if reranked else None
    matrices = {
        "scores": matrix.values[rows] if matrix else None,
        "queries": None if matrix else asking.values[rows],
        "gallery": None if matrix else answering.values,
        "reranked": None
        if second is None
        else _all_scored(second[rows] if len(second) == n_rows else second),
        "bank": files.read_table(bank, "bank").values if bank else None,
    }
    return Evidence(
        **_of_one_type(matrices),
        query_item=np.array([place[pair.item] for pair in kept]),
        column_item=np.array([place[item] for item in columns]),
        items=items,
        captions=[pair.caption for pair in kept] if all(pair.caption for pair in kept) else None,
        judged=_judged(files.read_judgements(judgements), kept, place) if judgements else None,
        listed=files.read_list(listed) if listed else None,
        claimed=files.read_list(claimed_list) if claimed_list else None,
        similarity=similarity,
        measure=measure,
        left_out=int((~asked).sum()),
    )


def _pairs(path: str | Path | None, matrix: files.Table | None, n_rows: int) -> list[files.Pair] | None:
    """One pair a row, in the order of the rows; None where nothing says it."""
    rows, label = (None, None) if matrix is None else (matrix.rows, matrix.label)
    if path is None:
        return None if rows is None or label is None else list(map(files.Pair, rows, label))
    found = files.read_pairs(path)
    if rows is not None:
        by_query = {pair.query: pair for pair in found}
        if len(by_query) < len(found):
            raise ValueError(
                f"{path} names {len(found)} items for {len(by_query)} queries; expected one right item a "
                "query. Give the others as judgements."
            )
        if lacking := [row for row in rows if row not in by_query]:
            raise ValueError(
                f"{path} names no item for {len(lacking)} of {n_rows} queries, first {lacking[0]!r}."
            )
        return [by_query[row] for row in rows]
    if len(found) != n_rows:
        raise ValueError(
            f"{path} has {len(found)} records for {n_rows} queries; expected one each, in their order."
        )
    return found


def _columns(ids: list[str] | None, pairs: list[files.Pair] | None, n_rows: int, n_columns: int) -> list[str]:
    """Id of each column; without ids column i is the item of query i."""
    if ids is None and n_rows != n_columns:
        raise ValueError(
            f"{n_rows} queries and {n_columns} columns: say which column each query belongs to (pairs, "
            "gallery ids)."
        )
    if ids is None:
        return [pair.item for pair in pairs] if pairs else [str(column) for column in range(n_columns)]
    if len(ids) != n_columns:
        raise ValueError(f"{len(ids)} gallery ids for {n_columns} columns; expected one each.")
    return ids


def _of_one_type(matrices: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """In the widest floating-point type among them."""
    types = [matrix.dtype for matrix in matrices.values() if matrix is not None]
    widest = functools.reduce(torch.promote_types, types)
    return {name: None if matrix is None else matrix.to(widest) for name, matrix in matrices.items()}


def _all_scored(second: Tensor) -> Tensor:
    """A second stage scores a few items a query; what it left out (NaN, infinity) comes after them."""
    scored = second.isfinite()
    return torch.where(scored, second, second[scored].min() - 1) if scored.any() else torch.zeros_like(second)


def _judged(
    found: Mapping[str, set[str]], pairs: list[files.Pair], place: Mapping[str, int]
) -> dict[int, set[int]]:
    """Query -> items, by index; judgements of items outside the gallery do not count."""
    row = {pair.query: i for i, pair in enumerate(pairs)}
    known = {
        row[query]: {place[i] for i in items if i in place} for query, items in found.items() if query in row
    }
    if not known:
        raise ValueError(
            f"no judged query is among the queries: judged is {next(iter(found), None)!r}, ..., queries are "
            f"{pairs[0].query!r}, .... Give both the same ids."
        )
    return known
