"""Nearest neighbours among video vectors, and batches of near neighbours made from them.

Shapes: V stored vectors, Q queries, D width, k neighbours.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmpt.config.fields import Section, option
from mmpt.registry import RETRIEVERS
from mmpt.utils.optional import optional_import

logger = logging.getLogger(__name__)

METRICS = ("l2", "innerproduct")
FAISS_INDEXES = ("flatl2", "innerproduct", "pq")
MAX_SCORES = 1 << 27  # 512 MiB in float32
VECTORS_PER_CELL = 39  # fewer train a cell badly, says faiss
PQ_CODES = 256  # of a product quantiser, which needs as many vectors to be trained on
PQ_PARTS = 32


@RETRIEVERS.register()
class VectorRetriever:
    """Looks up the nearest stored vectors of stored vectors.

    `index="exact"` compares with every vector in torch, in chunks, on whatever device the vectors came from;
    the names of VideoCLIP and Norton (`flatl2`, `innerproduct`, `pq`: inverted lists) use faiss.

    Args:
        metric: "l2" (Euclidean, the default) or "innerproduct"; of the exact index.
        index: "exact", "flatl2", "innerproduct" or "pq".
        centroids: cells of a faiss index.
        examples_per_cent_to_train: vectors per cell it is trained on.
        nprobe: cells of a faiss index searched per query; 1 is the historic value, more finds more of the
            true neighbours.
        chunk: queries compared at once, fewer when chunk * V scores would pass `MAX_SCORES`.

    Raises:
        ValueError: unknown metric or index.
        ImportError: a faiss index without faiss; names the extra to install.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        """The search."""

        retri_index: str = option(
            "exact",
            "neighbour search: exact (torch), or with faiss flatl2, innerproduct, pq",
            one_of=("exact", "flatl2", "innerproduct", "pq"),
        )
        retri_metric: str = option(
            "l2", "closeness of the exact search: l2 or innerproduct", one_of=("l2", "innerproduct")
        )
        centroids: int = option(512, "cells of the approximate index", least=1)
        examples_per_cent_to_train: int = option(48, "training vectors per cell", least=1)
        retri_nprobe: int = option(1, "cells searched per video; 1 is the historic value", least=1)

    def __init__(
        self,
        metric: str = "l2",
        index: str = "exact",
        centroids: int = 512,
        examples_per_cent_to_train: int = 48,
        nprobe: int = 1,
        chunk: int = 1024,
    ):
        if metric not in METRICS:
            raise ValueError(f"retri_metric={metric!r} is unknown; known: {', '.join(METRICS)}.")
        if index != "exact" and index not in FAISS_INDEXES:
            raise ValueError(f"retri_index={index!r} is unknown; known: exact, {', '.join(FAISS_INDEXES)}.")
        self.metric, self.index, self.chunk = metric, index, chunk
        self.centroids, self.per_cell, self.nprobe = centroids, examples_per_cent_to_train, nprobe
        self.faiss: Any = optional_import("faiss", extra="fast") if index != "exact" else None
        self.clear()

    def clear(self) -> None:
        """Forget every vector."""
        self.ids: list[str] = []
        self._row: dict[str, int] = {}
        self._parts: list[torch.Tensor] = []

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: Sequence[str], vectors: torch.Tensor) -> None:
        """Store (len(ids), D) vectors; an id that is already stored keeps its first vector.

        Raises:
            ValueError: numbers of ids and vectors differ, or a vector is not finite.
        """
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors; every vector needs one id.")
        if not torch.isfinite(vectors).all():
            bad = [ids[i] for i in (~torch.isfinite(vectors).all(-1)).nonzero().flatten().tolist()[:3]]
            raise ValueError(
                f"vectors of {', '.join(map(str, bad))} hold NaN or infinity; neighbours would be "
                "meaningless."
            )
        new = []
        for position, video_id in enumerate(ids):
            if video_id not in self._row:
                self._row[video_id] = len(self.ids)
                self.ids.append(video_id)
                new.append(position)
        self._parts.append(vectors.detach().float()[new])

    @property
    def vectors(self) -> torch.Tensor:
        """(V, D) float32, in the order of `ids`."""
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]
        return self._parts[0]

    def search_by_video_ids(self, ids: Sequence[str], k: int) -> list[list[str]]:
        """For every id its nearest `k` stored videos, itself first (so k - 1 others); fewer when fewer are
        stored or reached.

        Raises:
            KeyError: an id that is not stored.
        """
        rows = torch.tensor([self._row[video_id] for video_id in ids])
        neighbours = self._faiss_search(rows, k) if self.faiss else self._exact_search(rows, k)
        result = []
        for video_id, found in zip(ids, neighbours, strict=True):
            others = [self.ids[row] for row in found if row >= 0 and self.ids[row] != video_id]
            result.append([video_id, *others[: k - 1]])
        return result

    def batches(self, size: int, n_candidates: int, rng: random.Random) -> list[list[str]]:
        """Groups of `size` videos that lie near each other.

        Centres are drawn without replacement, one for every `size` stored videos; each group is drawn from
        the centre's `n_candidates` nearest videos, so a video may come twice in an epoch or not at all, and
        the centre itself may be left out (VideoCLIP, section 3.3, arXiv 2109.14084).

        Args:
            size: videos per group; every group has exactly this many.
            n_candidates: neighbours to draw from, the centre included.
            rng: source of randomness.

        Raises:
            ValueError: fewer stored videos, or fewer candidates, than a group needs.
        """
        if len(self) < size or n_candidates < size:
            raise ValueError(
                f"a batch of {size} videos (dataset.num_video_per_batch) needs as many: "
                f"{len(self)} videos are stored and num_cands={n_candidates} neighbours are drawn from."
            )
        centres = rng.sample(self.ids, len(self) // size)
        groups = []
        for candidates in self.search_by_video_ids(centres, n_candidates):
            if len(candidates) > size:
                candidates = rng.sample(candidates, size)
            elif (
                len(candidates) < size
            ):  # a sparse cell of an approximate index: fill up, so that the loss gets its size
                taken = set(candidates)
                candidates = candidates + rng.sample(
                    [v for v in self.ids if v not in taken], size - len(candidates)
                )
            groups.append(candidates)
        return groups

    def _exact_search(self, rows: torch.Tensor, k: int) -> list[list[int]]:
        vectors = self.vectors
        k = min(k, len(vectors))
        squared = vectors.square().sum(-1)  # (V,)
        found = []
        for part in rows.split(max(1, min(self.chunk, MAX_SCORES // len(vectors)))):
            closeness = vectors[part] @ vectors.T  # (chunk, V)
            if self.metric == "l2":
                closeness = 2 * closeness - squared  # -|a - b|^2 up to a constant of the query
            found += closeness.topk(k, dim=-1).indices.tolist()
        return found

    def _faiss_search(self, rows: torch.Tensor, k: int) -> list[list[int]]:
        vectors = self.vectors.cpu().numpy()
        index = self._faiss_index(vectors)
        found = []
        for part in rows.split(self.chunk):
            found += index.search(vectors[part.numpy()], k)[1].tolist()
        return found

    def _faiss_index(self, vectors: np.ndarray):
        faiss, (count, width) = self.faiss, vectors.shape
        cells = min(self.centroids, max(count // VECTORS_PER_CELL, 1))
        if cells < self.centroids:
            logger.info(
                "retrieval index: %d vectors suffice for %d cells, not for the %d asked for",
                count,
                cells,
                self.centroids,
            )
        if self.index == "flatl2":
            index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, cells, faiss.METRIC_L2)
        elif self.index == "innerproduct":
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        else:
            if count < PQ_CODES or width % PQ_PARTS:
                raise ValueError(
                    f"retri_index=pq needs at least {PQ_CODES} videos and vectors whose width divides by "
                    f"{PQ_PARTS}, got {count} of width "
                    f"{width}. Use retri_index: flatl2, or exact."
                )
            # np: no polysemous training, which takes a minute, serves a filter that is not used here, and
            # changes no result
            index = faiss.index_factory(width, f"IVF{cells}_HNSW32,PQ{PQ_PARTS}np")
        index.nprobe = self.nprobe
        n_train = (
            cells * self.per_cell
            if self.index != "pq"
            else max(cells * self.per_cell, VECTORS_PER_CELL * PQ_CODES)
        )
        index.train(vectors[:n_train])
        index.add(vectors)
        return index


# VideoCLIP has two classes, of which one maps videos to vectors anew at every call; this one never does
RETRIEVERS.register("VectorRetrieverDM")(VectorRetriever)
