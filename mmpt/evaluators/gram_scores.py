"""Scores of texts against items of several modalities, block by block; high = close.

Shapes: N texts, M items, K modalities of an item, D width, C texts or items of a block.

Bases and directions are computed once per subset of modalities; a block costs K matrix products. Memory grows
with K * M * D and with the block, never with N * M.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmpt.config.conditions import letters_of
from mmpt.config.fields import Section, option
from mmpt.ops import gram
from mmpt.ops.normalize import unit_rows_once

SCORES = ("volume", "distance", "logvolume", "cosine", "triangle", "eigenvalue")
JOINT = "joint"  # besides: the cosine of modalities that a model embeds together
BLOCK_NUMBERS = 2**23  # scores of a block (32 MB in float32), for every one of the K dot products
ITEM_BLOCK = 512  # items whose bases are computed at once
EIGEN_NUMBERS = 2**22  # numbers of the small Gram matrices of a block


@dataclass(frozen=True, kw_only=True)
class SubsetKeys(Section):
    """Subsets of modalities and scores that are compared."""

    modalities: list | None = option(
        None,
        "N modalities: subsets compared, e.g. [tv, tva, tvas]: t and first letters; null: all modalities",
    )
    scores: list = option(
        ["volume"],
        "N modalities: volume, distance, logvolume, cosine, triangle, eigenvalue; joint: cosine of what "
        "model_cls: GRAM embeds together (single modalities, va, vs, vas)",
    )


@dataclass(frozen=True, kw_only=True)
class GramKeys(SubsetKeys):
    """What is compared, and what is ranked again."""

    rerank: int = option(
        0, "N modalities: best items of the last subset that the matching head ranks again; 0: none", least=0
    )
    rerank_mode: str = option(
        "replace",
        "how: probability instead of score, added to it, or among equals",
        one_of=("replace", "add", "tiebreak"),
    )


class ItemSet(NamedTuple):
    """Items in one subset of modalities."""

    modalities: list[
        Tensor
    ]  # K x (M, D) unit rows, anything where missing: galleries are large, a cleared copy would double them
    mask: Tensor  # (M, K) bool
    dim_norm: bool  # scores of items with different numbers of modalities must compare

    @classmethod
    def of(cls, modalities: Sequence[Tensor], mask: Tensor | None = None) -> ItemSet:
        """From embeddings and presence; what stands in the place of a missing modality is ignored."""
        gram.check_shapes(modalities)
        if mask is None:
            mask = torch.ones(len(modalities[0]), len(modalities), dtype=torch.bool)
        return cls([_unit(x, mask[:, k]) for k, x in enumerate(modalities)], mask, not bool(mask.all()))

    def take(self, rows: slice | Tensor) -> tuple[list[Tensor], Tensor]:
        """Some items: K tensors (m, D), zero where missing, and their mask (m, K)."""
        mask = self.mask[rows]
        return [x[rows].where(mask[:, k, None], 0.0) for k, x in enumerate(self.modalities)], mask


class Comparison(NamedTuple):
    """Queries of one subset of modalities and what they are compared with."""

    queries: Tensor  # (N, D) captions, or embeddings of the anchor modality
    targets: Tensor  # (N,) item of each query
    items: ItemSet
    names: list[str]  # anchor, then the modalities of the items


def compare(arrays: Mapping[str, Any], names: Sequence[str], subset: str) -> Comparison:
    """A predictor's arrays in one subset.

    Args:
        arrays: `pooled_text` (N, D), `targets` (N) item of each caption (None: caption i belongs to item i),
            `pooled_<name>` (M, D) and `present` (M, K) (None: all there).
        names: the K modalities.
        subset: first letters, the anchor first: `tva` = captions against video and audio, `va` = video
            against audio. Items that lack an anchor other than text are no queries.

    Raises:
        ValueError: the subset is not of that form.
    """
    anchor, *others = parse_subset(subset, names)
    mask = torch.ones(len(arrays[f"pooled_{names[0]}"]), len(names), dtype=torch.bool)
    mask = mask if arrays.get("present") is None else torch.as_tensor(arrays["present"])
    columns = [list(names).index(name) for name in others]
    items = ItemSet.of([torch.as_tensor(arrays[f"pooled_{name}"]) for name in others], mask[:, columns])
    queries, targets = torch.as_tensor(arrays[f"pooled_{anchor}"]), arrays.get("targets")
    if anchor != "text":
        targets = mask[:, list(names).index(anchor)].nonzero()[:, 0]
        queries = queries[targets]
    targets = torch.arange(len(queries)) if targets is None else torch.as_tensor(targets)
    return Comparison(queries, targets, items, [anchor, *others])


def parse_subset(subset: str, names: Sequence[str]) -> list[str]:
    """`tva` -> [text, video, audio].

    Raises:
        ValueError: a letter is unknown, repeated or ambiguous, or the text is not first.
    """
    by_letter = {name[0]: name for name in ("text", *names)}
    if len(by_letter) <= len(names):
        named = ", ".join(("text", *names))
        raise ValueError(
            f"eval.modalities: first letters of {named} are not all different. Rename one in "
            "dataset.modalities."
        )
    if (
        len(subset) < 2
        or len(set(subset)) < len(subset)
        or not set(subset) <= set(by_letter)
        or "t" in subset[1:]
    ):
        known = ", ".join(f"{letter} ({name})" for letter, name in by_letter.items())
        raise ValueError(
            f"eval.modalities: {subset!r} is no subset; expected the anchor and other modalities among "
            f"{known}, text first."
        )
    return [by_letter[letter] for letter in subset]


def subsets(chosen: Sequence[str] | None, names: Sequence[str], with_text: bool) -> Sequence[str]:
    """`eval.modalities`; null: all modalities at once."""
    return chosen or ["t" * with_text + "".join(name[0] for name in names)]


def _unit(x: Tensor, there: Tensor | None = None) -> Tensor:
    """Unit rows, refused unless finite; without a copy where they are unit already. Only the rows that are
    `there` count."""
    norm = torch.linalg.vector_norm(x, dim=1)
    norm = norm if there is None else norm.where(there, 1.0)
    if not norm.isfinite().all():
        raise ValueError(
            f"{int((~norm.isfinite()).sum())} of {len(x)} embeddings are not finite (first: row "
            f"{(~norm.isfinite()).nonzero()[0].item()}); "
            "look for NaN features or a checkpoint of a diverged run."
        )
    return (
        x
        if x.dtype in (torch.float32, torch.float64) and ((norm - 1).abs() < 1e-5).all()
        else unit_rows_once(x)
    )


def scorer_of(compared: Comparison, score: str, arrays: Mapping[str, Any]) -> Scorer:
    """The scores of a comparison.

    Args:
        compared: queries and items.
        score: one of `eval.scores`.
        arrays: for `joint`: `joint_<letters>` (M, D).

    Raises:
        ValueError: an unknown score, or the model does not embed these modalities together.
    """
    if score != JOINT:
        return Scorer(compared.queries, compared.items, score)
    known = [name.removeprefix("joint_") for name in arrays if name.startswith("joint_")]
    first = "".join(name[0] for name in compared.names[1:])
    letters = letters_of(first) if known else first
    if letters not in known:
        cure = f"expected modalities among {', '.join(known)}" if known else "set model.model_cls: GRAM"
        raise ValueError(f"eval.scores: {JOINT}: the model does not embed {letters} together; {cure}.")
    whole = compared.items.mask.all(1, keepdim=True)
    return Scorer(
        compared.queries, ItemSet.of([torch.as_tensor(arrays[f"joint_{letters}"])], whole), "cosine"
    )


class Scorer:
    """Scores of `texts` (N, D) against items, as rows of texts or rows of items.

    Args:
        texts: (N, D), unit rows.
        items: in one subset of modalities.
        score: volume, distance (text to the span of the item), logvolume, each negated, the first and last as
            geometric mean over the modalities present where some are missing; cosine (mean over the
            modalities); triangle: negated volume of the simplex of text and modalities, which sees signs
            (twice a triangle's area for two; the distance for one); eigenvalue: the largest of the Gram
            matrix over its size.

    Raises:
        ValueError: an unknown score, or widths that differ.
    """

    def __init__(self, texts: Tensor, items: ItemSet, score: str):
        if score not in SCORES:
            raise ValueError(
                f"eval.scores: {score!r} is unknown; expected some of {', '.join((*SCORES, JOINT))}."
            )
        gram.check_shapes(items.modalities, texts)
        self.texts, self.items, self.score = _unit(texts), items, score
        self.shape = (len(texts), len(items.mask))
        n_items, width = items.modalities[0].shape
        n_vectors = {"cosine": 1, "triangle": len(items.modalities) + 1}.get(score, len(items.modalities))
        self.vectors = self.texts.new_empty(n_vectors, n_items, width)
        if score in ("cosine", "eigenvalue"):
            for rows in _slices(n_items):
                vectors, mask = items.take(rows)
                self.vectors[:, rows] = (
                    torch.stack(vectors)
                    if score == "eigenvalue"
                    else sum(vectors) / mask.sum(1)[:, None].clamp_min(1)
                )
        else:
            self._span()

    def _span(self) -> None:
        """Orthonormal bases; of a triangle those of the edges from its first vertex, which becomes the last
        vector."""
        is_triangle, n_items = self.score == "triangle", self.shape[1]
        norms, counts = (
            self.vectors.new_empty(len(self.items.modalities), n_items),
            torch.empty(n_items, dtype=torch.long),
        )
        along = torch.empty_like(norms)  # read of a triangle alone
        for rows in _slices(n_items):
            vectors, mask = self.items.take(rows)
            corner = _first_vertex(vectors, mask)
            basis = gram.orthonormal_tuples(
                *(_edges(vectors, mask, corner) if is_triangle else (vectors, mask))
            )
            self.vectors[: len(vectors), rows], norms[:, rows], counts[rows] = basis
            if is_triangle:
                self.vectors[-1, rows], along[:, rows] = corner, (basis.directions * corner).sum(2)
        kind = "volume" if is_triangle else self.score
        # of the first vertices, (M,), and along the directions (K, M)
        self.corner = (self.vectors[-1].square().sum(1), along) if is_triangle else None
        self.log_own = gram.log_own_volume(gram.TupleBasis(self.vectors[: len(norms)], norms, counts), kind)
        self.power = gram.score_power(counts + is_triangle, kind, self.items.dim_norm and kind != "distance")

    def blocks(self, transposed: bool = False) -> Iterator[slice]:
        """Slices of rows of bounded size.

        What a caller keeps of each block goes into arrays that are there before: small results between large
        blocks fragment the heap, up to the size of the whole score matrix.
        """
        n_rows, n_columns = self.shape[::-1] if transposed else self.shape
        n = len(self.vectors) + 1
        numbers = EIGEN_NUMBERS // n**2 if self.score == "eigenvalue" else BLOCK_NUMBERS // n
        step = max(1, numbers // n_columns)
        return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))

    def rows(self, rows: slice, transposed: bool = False) -> Tensor:
        """(C, M) scores of a block of texts, or transposed (C, N) of a block of items; -inf for an item
        without any modality."""
        texts, columns = (slice(None), rows) if transposed else (rows, slice(None))
        scores = self._block(self.texts[texts], columns)
        scores = scores.masked_fill(~self.items.mask[columns].any(1), -torch.inf)
        return scores.T.contiguous() if transposed else scores

    def _block(self, texts: Tensor, columns: slice) -> Tensor:
        vectors = self.vectors[:, columns]
        if self.score == "cosine":
            return texts @ vectors[0].T
        if self.score == "eigenvalue":
            return _largest_eigenvalue(texts, vectors, self.items.mask[columns])
        squared = texts.square().sum(1, keepdim=True)
        offsets = None
        if self.corner is not None:  # |t - corner|^2
            square, along = self.corner
            squared, offsets = squared + square[columns] - 2 * (texts @ vectors[-1].T), along[:, columns]
            vectors = vectors[:-1]
        for k, direction in enumerate(vectors):
            along = texts @ direction.T
            along = along if offsets is None else along - offsets[k]
            squared = torch.addcmul(squared, along, along, value=-1)
        power = None if self.power is None else self.power[columns]
        kind = "volume" if self.score == "triangle" else self.score
        squared = squared.clamp_min(gram.least_square(power, squared.dtype))
        return -gram.score_of(squared, self.log_own[columns], power, kind)


def _slices(n_items: int) -> Iterator[slice]:
    return (slice(start, start + ITEM_BLOCK) for start in range(0, n_items, ITEM_BLOCK))


def _first_vertex(vectors: Sequence[Tensor], mask: Tensor) -> Tensor:
    """The first modality present of each item, (m, D)."""
    first = mask.int().argmax(1)
    return torch.stack(list(vectors), 1)[torch.arange(len(first)), first]


def _edges(vectors: Sequence[Tensor], mask: Tensor, corner: Tensor) -> tuple[list[Tensor], Tensor]:
    """Edges from the first vertex to the other modalities, and which of them there are."""
    return [x - corner for x in vectors], mask & (
        torch.arange(mask.shape[1]) != mask.int().argmax(1)[:, None]
    )


def _largest_eigenvalue(texts: Tensor, vectors: Tensor, mask: Tensor) -> Tensor:
    """lambda_max of the Gram matrix of [text, item] over its size, (C, M); vectors (K, M, D), zero where
    missing."""
    dots = (texts @ vectors.flatten(0, 1).T).unflatten(1, vectors.shape[:2]).permute(0, 2, 1)  # (C, M, K)
    among = torch.einsum("kmd,lmd->mkl", vectors, vectors)
    size = vectors.shape[0] + 1
    matrices = texts.new_zeros(*dots.shape[:2], size, size)
    matrices[..., 0, 0] = texts.square().sum(1, keepdim=True)
    matrices[..., 0, 1:] = matrices[..., 1:, 0] = dots
    matrices[..., 1:, 1:] = among
    return torch.linalg.eigvalsh(matrices)[..., -1] / (mask.sum(1) + 1)
