"""Search that reads little and misses nothing: scores of rounded vectors with bounds, then exact scores of
what the bounds leave.

With codes c and step s of a vector x, x = s c + e and |e| known, and the query q rounded to 15 bits:
|q x - s (q' c)| <= |q| |e| + |q - q'| |s c|. All rows are scored by their codes (one byte a number); the k-th
greatest lower bound rules out every row whose upper bound is less; the rest are scored in float64 from the
float16 vectors. So the answer is that of brute force over those, ties by their order, and it says what it
cost.

The smooth maximum of tokens (Norton, eq. 7) changes by no more than its cosines do, so the same holds for
windows: mean over tokens t of alpha log sum over seconds f of exp(cosine(t, f) / alpha).

Letters: n rows, D width, T tokens of a query, F seconds of a window.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmpt.neighbours.store import LEVELS, Mapped, VectorStore
from mmpt.ops.windows import window_ranges

logger = logging.getLogger(__name__)
BASE = 128  # a query is the sum of two bytes, the higher times BASE
PRODUCT_ROWS = 4096  # per product of torch: fewer, and threads wait for the interpreter between products
EXACT_ROWS = 1024  # per product of float64
GROUP_ROWS = 1 << 16  # rows whose scores are looked at together
BLOCK = 64  # rows that share a bound
AT_ONCE = 256  # rows or windows scored exactly
ROUNDING = 2e-6  # of float32 arithmetic, relative
HALF_DIGIT = 2**-24  # of one sum of float32, relative
LARGEST_EXPONENT = 80.0
MOST = 2**31 - 1  # of an int32
MORE = 4  # times as many candidates, where those that do not overlap are too few


class Moment(NamedTuple):
    """A search result: seconds of a video, and how well they fit."""

    video_id: str
    start_s: float
    end_s: float
    score: float

    def overlaps(self, other: Moment) -> bool:
        """Both show some second of one video."""
        return self.video_id == other.video_id and self.start_s < other.end_s and other.start_s < self.end_s


class Looked(NamedTuple):
    """What an answer took: rows scored by their codes, and rows or windows scored exactly."""

    rows: int
    exact: int


class Answer(NamedTuple):
    """Results, best first; what they took; and the numbers of their first rows in `ExactSearch.vectors`."""

    hits: list[Moment]
    looked: Looked
    numbers: list[int]


class Vectors:
    """The rows that can be found, of all segments, numbered through; read when they are asked for.

    Args:
        parts: the segments.
        live: (n,) bool of each: rows that were not removed.
    """

    def __init__(self, parts: Sequence[Mapped], live: Sequence[np.ndarray]):
        self._exact = [part.exact for part in parts]
        self._rows = [np.flatnonzero(each) for each in live]
        self._first = np.cumsum([0, *map(len, self._rows)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, numbers: slice | np.ndarray | list[int]) -> np.ndarray:
        """(m, D) float16."""
        if isinstance(numbers, slice):
            numbers = np.arange(*numbers.indices(len(self)))
        numbers = np.asarray(numbers, dtype=np.int64)
        part_of = np.searchsorted(self._first, numbers, side="right") - 1
        found = np.empty((len(numbers), self._exact[0].shape[1] if self._exact else 0), np.float16)
        for part in np.unique(part_of).tolist():
            mine = part_of == part
            found[mine] = self._exact[part][self._rows[part][numbers[mine] - self._first[part]]]
        return found

    def number(self, part: int, row: int) -> int:
        """Of a row of a segment."""
        return int(self._first[part] + np.searchsorted(self._rows[part], row))


class ExactSearch:
    """Queries to a store; opens its segments once.

    Args:
        store: of vectors.
    """

    def __init__(self, store: VectorStore):
        self.store = store
        self.parts = list(store.mapped())
        self._live = [_live(part) for part in self.parts]
        self.vectors = Vectors(self.parts, self._live)
        self._products = _products_of_one()
        self._names = [
            (list(videos), np.array([first for first, _ in videos.values()]))
            for videos in (part.segment.videos for part in self.parts)
        ]
        self._windows: tuple[tuple[int, int], list[_Windows]] | None = None

    def search(self, query: np.ndarray, k: int, apart: bool = True, only: Set[str] | None = None) -> Answer:
        """The k rows with the greatest dot product with a query, cosine where the store holds unit vectors.

        Args:
            query: (D,).
            k: at least 1.
            apart: of rows that overlap in time the best one alone.
            only: ids of the videos to look at; None: all.
        """
        query = self._checked(query[None], k)[0]
        whole, step, lost = _rounded(query[None])
        length = float(np.linalg.norm(query)) * (1 + ROUNDING)
        chosen = self._live if only is None else self._chosen(only)
        found = [_Bounds.empty(len(live)) for live in chosen]

        def bound(number: int, rows: slice) -> None:
            part, bounds, live = self.parts[number], found[number], chosen[number][rows]
            scale, error, reach = (torch.from_numpy(x[rows]) for x in part.rows[:3])
            scores = self._products(part.codes[rows], whole[0]).float().mul_(float(step[0])).mul_(scale)
            slack = error * length + reach * (float(lost[0]) + ROUNDING * length)
            for side, out in ((torch.sub, bounds.lower), (torch.add, bounds.upper)):
                mine = side(scores, slack, out=torch.from_numpy(out[rows]))
                if not live.all():
                    mine.masked_fill_(torch.from_numpy(~live), -torch.inf)
            bounds.close(rows)

        _in_threads(
            bound, [(number, rows) for number, live in enumerate(chosen) for rows in _slices(len(live))]
        )

        def exact(part: int, rows: np.ndarray) -> np.ndarray:
            vectors = self.parts[part].exact
            pieces = [rows[first : first + GROUP_ROWS] for first in range(0, len(rows), GROUP_ROWS)]
            return np.concatenate([exact_scores(vectors[piece], query) for piece in pieces])

        def hit(part: int, row: int, score: float) -> Moment:
            rows = self.parts[part].rows
            return Moment(self._video(part, row), float(rows.start_s[row]), float(rows.end_s[row]), score)

        def first_row(part: int, row: int) -> int:
            return self.vectors.number(part, row)

        total = sum(int(live.sum()) for live in chosen)
        return self._answer(found, total, exact, hit, first_row, k, apart)

    def search_tokens(
        self,
        tokens: np.ndarray,
        k: int,
        size: int,
        stride: int | None = None,
        alpha: float = 1.0,
        apart: bool = True,
    ) -> Answer:
        """The k windows with the greatest mean of smooth maxima over the tokens of a query.

        Args:
            tokens: (T, D); scaled to unit length, as the rows of the store are.
            k: at least 1.
            size: F, rows of a window.
            stride: rows between starts; None: side by side.
            alpha: smoothing.
            apart: of windows that overlap the best one alone.

        Raises:
            ValueError: a store without unit vectors, or an alpha that is too small.
        """
        if not self.store.unit:
            raise ValueError(
                f"{self.store.folder}: similarity of tokens is made of cosines; build it of unit vectors."
            )
        if alpha <= 0 or 1 / alpha > LARGEST_EXPONENT:
            raise ValueError(f"alpha={alpha}: expected at least {1 / LARGEST_EXPONENT:g}.")
        tokens = self._checked(tokens, k)
        whole, step, lost = _rounded(tokens)
        columns, steps = _bytes(whole), torch.from_numpy((step / alpha).astype(np.float32))
        tables = self._tables(size, stride)
        found = [_Bounds.empty(len(windows.first)) for windows in tables]

        def bound(number: int, rows: slice, mine: slice) -> None:
            part, windows, bounds = self.parts[number], tables[number], found[number]
            codes, scale = (torch.from_numpy(x[rows]) for x in (part.codes, part.rows.step))
            cosines = _products(codes, columns).float()
            powers = cosines.mul_(steps).mul_(scale[:, None]).exp_()  # (rows, T)
            first = torch.from_numpy(windows.first[mine] - rows.start)
            lengths = torch.from_numpy(windows.last[mine] - windows.first[mine])
            if len(powers) != lengths.sum():  # windows share rows
                before = lengths.cumsum(0) - lengths
                powers = powers[(first - before).repeat_interleave(lengths) + torch.arange(lengths.sum())]
            sums = torch.segment_reduce(powers, "sum", lengths=lengths)  # (windows, T)
            scores = sums.log_().mean(1).mul_(alpha).numpy()
            # tokens have unit length, rows nearly; powers, sums and logarithms add some roundings of float32
            arithmetic = 10 * ROUNDING * (1 + alpha * (1 + np.log(size))) + alpha * size * HALF_DIGIT
            slack = windows.error[mine] + 1.1 * float(lost.max()) + arithmetic
            bounds.lower[mine], bounds.upper[mine] = scores - slack, scores + slack

        _in_threads(bound, [(number, *each) for number, table in enumerate(tables) for each in table.groups])
        for bounds, live, windows in zip(found, self._live, tables, strict=True):
            gone = np.flatnonzero(~live[windows.first])
            bounds.lower[gone] = bounds.upper[gone] = -np.inf
            bounds.close(slice(0, len(windows.first)))

        def exact(part: int, numbers: np.ndarray) -> np.ndarray:
            table, vectors = tables[part], self.parts[part].exact
            scores = np.empty(len(numbers))
            lengths = table.last[numbers] - table.first[numbers]
            for length in np.unique(lengths):
                alike = np.flatnonzero(lengths == length)
                for some in _slices(len(alike), AT_ONCE):
                    first = table.first[numbers[alike[some]]]
                    rows = vectors[first[:, None] + np.arange(length)]
                    scores[alike[some]] = window_scores(rows, tokens, alpha)
            return scores

        def hit(part: int, number: int, score: float) -> Moment:
            rows, table = self.parts[part].rows, tables[part]
            first, last = table.first[number], table.last[number] - 1
            return Moment(
                self._video(part, first), float(rows.start_s[first]), float(rows.end_s[last]), score
            )

        def first_row(part: int, number: int) -> int:
            return self.vectors.number(part, tables[part].first[number])

        alive = zip(self._live, tables, strict=True)
        total = sum(int(live[table.first].sum()) for live, table in alive)
        return self._answer(found, total, exact, hit, first_row, k, apart)

    def _answer(
        self,
        bounds: list[_Bounds],
        total: int,
        exact: Callable[[int, np.ndarray], np.ndarray],
        hit: Callable[[int, int, float], Moment],
        first_row: Callable[[int, int], int],
        k: int,
        apart: bool,
    ) -> Answer:
        """The certain best of all parts, exact scores of more and more of them until k stand apart."""
        wanted, scored = min(k, total), 0
        while True:
            found = _best(_candidates(bounds, wanted), exact, wanted) if wanted else []
            scored += len(found)
            hits, numbers = [], []
            better: dict[str, list[Moment]] = {}
            for negative, part, row in found[:wanted]:
                one = hit(part, row, -negative)
                others = better.setdefault(one.video_id, [])
                if not apart or not any(one.overlaps(other) for other in others):
                    hits.append(one)
                    numbers.append(first_row(part, row))
                    others.append(one)
                if len(hits) == k:
                    break
            if len(hits) == k or wanted == total:
                return Answer(hits, Looked(sum(len(part.codes) for part in self.parts), scored), numbers)
            wanted = min(MORE * wanted, total)

    def _chosen(self, only: Set[str]) -> list[np.ndarray]:
        """(n,) bool of each segment: rows of these videos that can be found."""
        chosen = [np.zeros_like(live) for live in self._live]
        for part, live, mine in zip(self.parts, self._live, chosen, strict=True):
            for video in part.segment.videos.keys() & only:
                first, count = part.segment.videos[video]
                mine[first : first + count] = live[first : first + count]
        return chosen

    def _checked(self, vectors: np.ndarray, k: int) -> np.ndarray:
        """(T, D) float64."""
        vectors = np.asarray(vectors, dtype=np.float64)
        if k < 1:
            raise ValueError(f"k={k}: ask for at least one moment.")
        if vectors.ndim != 2 or vectors.shape[1] != self.store.width or not len(vectors):
            raise ValueError(
                f"a query of shape {vectors.shape}; the index holds vectors of {self.store.width}."
            )
        if not np.isfinite(vectors).all():
            raise ValueError("a query that is not finite.")
        if self.store.unit:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
        return vectors

    def _video(self, part: int, row: int) -> str:
        names, firsts = self._names[part]
        return names[int(np.searchsorted(firsts, row, side="right")) - 1]

    def _tables(self, size: int, stride: int | None) -> list[_Windows]:
        """Of the windows last asked for."""
        if self._windows is None or self._windows[0] != (size, stride or size):
            tables = [_Windows.of(part, size, stride) for part in self.parts]
            self._windows = ((size, stride or size), tables)
        return self._windows[1]


class _Windows(NamedTuple):
    """The windows of a segment."""

    first: np.ndarray  # (w,) row
    last: np.ndarray  # (w,) row after the last
    error: np.ndarray  # (w,) greatest bound of its rows
    groups: list[tuple[slice, slice]]  # rows of whole videos, and their windows

    @classmethod
    def of(cls, part: Mapped, size: int, stride: int | None) -> _Windows:
        bounds, groups, open_row, open_window, count = [], [], 0, 0, 0
        for first, length in part.segment.videos.values():
            bounds.append(first + np.array(window_ranges(length, size, stride)))
            count += len(bounds[-1])
            if first + length - open_row >= GROUP_ROWS:
                groups.append((slice(open_row, first + length), slice(open_window, count)))
                open_row, open_window = first + length, count
        if open_row < part.segment.n_rows:
            groups.append((slice(open_row, part.segment.n_rows), slice(open_window, count)))
        table = np.concatenate(bounds)
        # the greatest of each [first, last): reduceat takes pairs, and wants the last one within
        error = np.maximum.reduceat(np.append(part.rows.error, 0.0), table.reshape(-1))[::2]
        return cls(table[:, 0], table[:, 1], error, groups)


def exact_scores(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(m, D) float16 and (D,) float64 -> (m,) float64; of each row the same, whatever others there are."""
    parts = (vectors[some] for some in _slices(len(vectors), EXACT_ROWS))
    scores = [(np.asarray(part, dtype=np.float64) * query).sum(1) for part in parts]
    return np.concatenate(scores) if scores else np.zeros(0)


def window_scores(vectors: np.ndarray, tokens: np.ndarray, alpha: float) -> np.ndarray:
    """Windows (m, F, D) and tokens (T, D) -> (m,): mean over tokens of alpha log sum over rows of
    exp(cosine / alpha), in float64; of each window the same, whatever others there are."""
    scaled = np.matmul(np.asarray(vectors, dtype=np.float64), tokens.T) / alpha  # (m, F, T)
    top = scaled.max(1)
    return alpha * (top + np.log(np.exp(scaled - top[:, None]).sum(1))).mean(1)


def _live(part: Mapped) -> np.ndarray:
    """(n,) bool: rows of videos that were not removed."""
    live = np.ones(part.segment.n_rows, dtype=bool)
    for video in part.segment.removed:
        first, count = part.segment.videos[video]
        live[first : first + count] = False
    return live


def _rounded(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T, D) as whole numbers (T, D) int16 times a step (T,), and the length of what was lost (T,)."""
    most = min(LEVELS * BASE, MOST // (LEVELS * queries.shape[1]))  # products of D of them are an int32
    step = np.maximum(np.abs(queries).max(1), 1e-30) / most
    whole = np.rint(queries / step[:, None])
    return whole.astype(np.int16), step, np.linalg.norm(queries - step[:, None] * whole, axis=1)


def _bytes(whole: np.ndarray) -> Tensor:
    """(T, D) as columns of two matrices of bytes side by side, (D, 2 T): the higher ones, then the lower."""
    high = (whole + BASE // 2) // BASE
    return torch.from_numpy(np.concatenate([high, whole - BASE * high]).astype(np.int8)).T.contiguous()


def _products(codes: Tensor, columns: Tensor) -> Tensor:
    """(rows, D) bytes times (D, 2 T) of `_bytes` -> (rows, T) int32."""
    into = torch.empty(len(codes), columns.shape[1], dtype=torch.int32)
    for some in _slices(len(codes), PRODUCT_ROWS):
        torch._int_mm(codes[some], columns, out=into[some])
    high, low = into.chunk(2, dim=1)
    return torch.add(low, high, alpha=BASE)


@functools.cache
def _products_of_one() -> Callable[[np.ndarray, np.ndarray], Tensor]:
    """Bytes (rows, D) times a query (D,) of int16 -> (rows,) int32: compiled where numba can be imported,
    else, said once, of torch, which takes 1.6 times as long."""
    try:
        from mmpt.neighbours._numba import products
    except ImportError:
        logger.info("search: numba is not installed; products of torch are used.")
        return lambda codes, query: _products(torch.from_numpy(codes), _bytes(query[None]))[:, 0]

    def compiled(codes: np.ndarray, query: np.ndarray) -> Tensor:
        into = np.empty(len(codes), np.int32)
        products(codes, query, into)
        return torch.from_numpy(into)

    return compiled


def _slices(n: int, size: int = GROUP_ROWS) -> Iterator[slice]:
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def _in_threads(work: Callable[..., None], tasks: Iterable[Sequence[Any]]) -> None:
    """Every task, on as many threads as torch uses; each of them has one for itself."""
    n_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(lambda task: work(*task), tasks))
    finally:
        torch.set_num_threads(n_threads)  # part of the setting is that of the process


class _Bounds(NamedTuple):
    """Of the scores of a segment; filled up with minus infinity to whole blocks."""

    lower: np.ndarray
    upper: np.ndarray
    lower_max: np.ndarray  # of each block
    upper_max: np.ndarray

    @classmethod
    def empty(cls, n: int) -> _Bounds:
        blocks = -(-n // BLOCK)
        bounds = cls(*(np.empty(size, np.float32) for size in (blocks * BLOCK,) * 2 + (blocks,) * 2))
        bounds.lower[n:] = bounds.upper[n:] = -np.inf
        return bounds

    def close(self, rows: slice) -> None:
        """The maxima of the blocks of rows that are complete now."""
        first, last = rows.start // BLOCK, -(-rows.stop // BLOCK)
        for values, most in ((self.lower, self.lower_max), (self.upper, self.upper_max)):
            blocks = torch.from_numpy(values[first * BLOCK : last * BLOCK]).view(-1, BLOCK)
            torch.amax(blocks, dim=1, out=torch.from_numpy(most[first:last]))


def _candidates(bounds: list[_Bounds], k: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Parts, rows and upper bounds of whatever may be among the k best."""
    bar = _kth(np.concatenate([each.lower_max for each in bounds]), k)
    found = []
    for part, each in enumerate(bounds):
        blocks = np.flatnonzero(each.upper_max >= bar)
        rows = (blocks[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
        found.append((part, rows[np.isfinite(each.upper[rows])]))
    # a block has several good rows: what they say is sharper
    bar = max(bar, _kth(np.concatenate([bounds[part].lower[rows] for part, rows in found]), k))
    sharp = [(part, rows[bounds[part].upper[rows] >= bar]) for part, rows in found]
    return [(part, rows, bounds[part].upper[rows]) for part, rows in sharp]


def _best(
    candidates: list[tuple[int, np.ndarray, np.ndarray]],
    exact: Callable[[int, np.ndarray], np.ndarray],
    k: int,
) -> list[tuple[float, int, int]]:
    """(-score, part, row) in the order of brute force, the first k of them certain: candidates are scored
    from the greatest upper bound on, until that is less than the k-th exact score."""
    parts = np.concatenate([np.full(len(rows), part) for part, rows, _ in candidates])
    rows, uppers = (np.concatenate(arrays) for arrays in list(zip(*candidates, strict=True))[1:])
    order = np.argsort(-uppers, kind="stable")
    found: list[tuple[float, int, int]] = []
    for some in _slices(len(order), AT_ONCE):
        if len(found) >= k and uppers[order[some.start]] < -found[k - 1][0]:
            break
        for part in np.unique(parts[order[some]]).tolist():
            mine = np.sort(rows[order[some]][parts[order[some]] == part])
            scores = exact(part, mine).tolist()
            found += [(-score, part, row) for score, row in zip(scores, mine.tolist(), strict=True)]
        found.sort()
    return found


def _kth(values: np.ndarray, k: int) -> float:
    """The k-th greatest; minus infinity where there are fewer."""
    return float(np.partition(values, len(values) - k)[len(values) - k]) if 0 < k <= len(values) else -np.inf
