"""What an audit has to go on: a model's output on a test set, and what is known of the claim.

Letters: N queries, M columns of the output, I different gallery items, D width, B queries of a bank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

MEASURES = ("", "DTW", "OTAM")
METRIC = re.compile(r"(?:(R|nDCG)@?(\d+)|MR)")


@dataclass(frozen=True)
class Claim:
    """Numbers in percent (`MR`: a rank), and half a unit of the last printed digit of each."""

    values: Mapping[str, float]
    half_unit: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> Claim:
        """`R1=47.3,R5=74.1,R10=82.9`; also `R@1`, `nDCG10` and `MR`. The first is the one that is decomposed.

        Raises:
            ValueError: not of this form, a number outside 0..100, or recalls given as shares instead of
                percent.
        """
        values, half = {}, {}
        for part in text.replace(" ", "").split(","):
            name, _, number = part.partition("=")
            if not METRIC.fullmatch(name) or not re.fullmatch(r"\d+(\.\d+)?", number):
                raise ValueError(
                    f"claim {part!r}: expected e.g. R1=47.3 (or R@5, nDCG10, MR), several joined by commas."
                )
            name = name.replace("@", "")
            values[name], half[name] = float(number), 0.5 * 10.0 ** -len(number.partition(".")[2])
            if name != "MR" and values[name] > 100:
                raise ValueError(f"claim {part!r}: a recall lies within 0..100 percent.")
        if all(value <= 1 for name, value in values.items() if name != "MR"):
            raise ValueError(
                f"claim {text!r}: give recalls in percent (47.3, not 0.473); MR alone cannot be decomposed."
            )
        if next(iter(values)) == "MR":
            raise ValueError(f"claim {text!r}: give a recall first; it is the number that is decomposed.")
        return cls(values, half)


@dataclass(frozen=True)
class Evidence:
    """A test set as a model scored it.

    Attributes:
        query_item: (N) index of each query's right item among `items`.
        column_item: (M) index of the item that each column stands for.
        items: (I) ids of the different gallery items.
        scores: (N, M), or None with embeddings.
        queries: (N, D) embeddings.
        gallery: (M, D) embeddings.
        captions: (N) texts of the queries.
        reranked: (N, M) scores of a second stage (a matching head, a cross-encoder).
        bank: (B, D) embeddings or (B, M) scores of further queries, for QB-norm.
        judged: query -> further right items, by index.
        listed: ids of the published test list, or their number; None: the gallery is the list.
        claimed: ids, or number, of the items that the claim was made about, where known to be fewer.
        similarity: the declared one, "cosine" or "dot"; stored scores are taken as they are.
        measure: "" where columns are items; "DTW" or "OTAM" where rows are captions and columns clips of a
            video.
        left_out: queries whose right item the gallery does not hold.
    """

    query_item: np.ndarray
    column_item: np.ndarray
    items: list[str]
    scores: Tensor | None = None
    queries: Tensor | None = None
    gallery: Tensor | None = None
    captions: list[str] | None = None
    reranked: Tensor | None = None
    bank: Tensor | None = None
    judged: Mapping[int, set[int]] | None = None
    listed: list[str] | int | None = None
    claimed: list[str] | int | None = None
    similarity: str = "cosine"
    measure: str = ""
    left_out: int = 0

    def __post_init__(self):
        if self.measure not in MEASURES:
            raise ValueError(f"measure {self.measure!r}; expected one of {', '.join(map(repr, MEASURES))}.")
        if self.similarity not in ("cosine", "dot"):
            raise ValueError(f"similarity {self.similarity!r}; expected 'cosine' or 'dot'.")
        if self.measure and self.scores is None:
            raise ValueError(f"{self.measure} needs the scores of captions (rows) against clips (columns).")
        shape = (len(self.query_item), len(self.column_item))
        for name, found in self._matrices().items():
            if tuple(found) != shape:
                raise ValueError(
                    f"{name} is {found[0]} x {found[1]}; the pairs and gallery ids name {shape[0]} queries "
                    f"and {shape[1]} columns."
                )
        if self.queries is not None and self.gallery is not None:
            wide, gallery_wide = self.queries.shape[1], self.gallery.shape[1]
            if wide != gallery_wide:
                raise ValueError(
                    f"queries are {wide} wide, the gallery {gallery_wide}; both must come from one model."
                )
        width, what = (
            (len(self.column_item), "one score an item")
            if self.queries is None
            else (self.queries.shape[1], "embeddings as wide as the queries")
        )
        if self.bank is not None and self.bank.shape[1] != width:
            raise ValueError(f"bank is {self.bank.shape[1]} wide; expected {width}: {what}.")
        listed = set(self.items if self.listed is None or isinstance(self.listed, int) else self.listed)
        if foreign := [item for item in self.items if item not in listed]:
            raise ValueError(
                f"{len(foreign)} of {len(self.items)} gallery items are not on the published list (first: "
                f"{foreign[0]!r}). Give the list with the same ids, or leave these items out of the gallery."
            )
        if isinstance(self.claimed, list) and set(self.claimed).isdisjoint(self.items):
            raise ValueError(
                f"no item of the claim's list is in the gallery: the list has {self.claimed[0]!r}, ..., the "
                f"gallery {self.items[0]!r}, .... Give both the same ids."
            )
        if self.n_listed < len(self.items):
            raise ValueError(
                f"the gallery has {len(self.items)} items, the published list {self.n_listed}; expected no "
                "more than the list."
            )

    def _matrices(self) -> dict[str, tuple[int, int]]:
        matrices = {"scores": self.scores, "reranked": self.reranked}
        found = {name: tuple(matrix.shape) for name, matrix in matrices.items() if matrix is not None}
        if self.queries is not None and self.gallery is not None:
            found["embeddings"] = len(self.queries), len(self.gallery)
        return found

    @property
    def n_listed(self) -> int:
        """Items of the published list."""
        if self.listed is None:
            return len(self.items)
        return self.listed if isinstance(self.listed, int) else len(self.listed)

    @cached_property
    def first_column(self) -> np.ndarray:
        """(I) the first column of each item."""
        return np.unique(self.column_item, return_index=True)[1]

    @cached_property
    def equal_captions(self) -> list[list[int]]:
        """Queries with the same words, in groups."""
        groups: dict[str, list[int]] = {}
        for row, text in enumerate(self.captions or ()):
            groups.setdefault(" ".join(text.lower().split()), []).append(row)
        return list(groups.values())

    @property
    def one_row_a_caption(self) -> bool:
        """The gallery lists an item once for each of its captions, in the order of the queries."""
        return len(self.column_item) > len(self.items) and np.array_equal(self.query_item, self.column_item)
