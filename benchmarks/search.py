"""Exact search at a thousand hours: build, memory, latency, and that every answer equals brute force.

    python benchmarks/search.py --rows 100000 --queries 20          # a rehearsal
    python benchmarks/search.py                                     # 3.6 million rows of 512; 6 GB of disk
    python benchmarks/search.py --rows 360000 --folder runs/smaller --peers   # and others beside it
    python benchmarks/search.py --peers fp16 int8 ivf                         # some of them, at full size

Rows are seconds of videos of ten minutes: a topic of the video, a scene that lasts some seconds, and noise,
in directions that are not equally likely, as in features of networks. Queries are mixtures of topics, half of
them with noise. All of them are compared with brute force; latencies are wall time, with the
CPU time beside it, which other work on the machine changes less.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import command_line, of_rows, publish, threads
from mmpt.neighbours.exact import ExactSearch, Moment, Vectors, exact_scores, window_scores
from mmpt.neighbours.store import VectorStore
from mmpt.ops.windows import window_ranges

WIDTH, VIDEO_S, TOPICS = 512, 600, 2000
WINDOW, TOKENS = 8, 10
PEERS = {
    "brute": "brute force in torch, float32",
    "fp16": "faiss flat, float16",
    "int8": "faiss flat, int8",
    "ivf": "faiss inverted lists, int8, 1/32 searched",
    "hnsw": "faiss HNSW32, int8",
    "usearch": "usearch HNSW, int8",
    "hnswlib": "hnswlib, float32",
}


def main() -> None:
    options = command_line(__doc__)
    options.add_argument("--rows", type=int, default=3_600_000)
    options.add_argument("--queries", type=int, default=1000)
    options.add_argument("--of-peers", type=int, default=50, help="queries that others are asked")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--folder", type=Path, default=Path("runs/search_bench"))
    options.add_argument("--peers", nargs="*", choices=PEERS, help="others beside it; without names: all")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    numbers: dict[str, Any] = {}
    store = built(args.folder, args.rows, numbers)
    search = ExactSearch(store)
    queries = list(asked(args.queries))
    numbers["cosine"] = timed(lambda q: search.search(q, 10, apart=False), queries)
    tokens = [np.stack(queries[n : n + TOKENS]) for n in range(0, len(queries) - TOKENS, TOKENS)]

    def by_tokens(q: np.ndarray):
        return search.search_tokens(q, 10, WINDOW, apart=False)

    numbers["tokens"] = timed(by_tokens, tokens)  # the first, which is not timed, makes the table of windows
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(numbers, indent=1), flush=True)
    for kind, asked_for, call, truth in (
        ("cosine", queries, lambda q: search.search(q, 10, apart=False), brute_force),
        ("tokens", tokens, by_tokens, brute_force_tokens),
    ):
        right = truth(search, asked_for, 10)
        equal = sum(call(query).hits == hits for query, hits in zip(asked_for, right, strict=True))
        numbers[kind] |= {"equal to brute force": f"{equal} of {len(asked_for)}"}
    kinds = {"cosine": "cosine", "tokens": f"similarity of {TOKENS} tokens, windows of {WINDOW} s"}
    rows = [{"query": what} | numbers[kind] for kind, what in kinds.items()]
    tables = {f"{args.rows:,} rows of {WIDTH} numbers, resident {memory:.2f} GB": of_rows(rows)}
    if build := numbers.pop("build", None):
        tables["Building"] = of_rows([build])
    if args.peers is not None:
        some = queries[: args.of_peers]
        own = {"index": "here", **timed(lambda q: search.search(q, 10, apart=False), some)}
        rows = [
            {name: own[name] for name in ("index", "p50 ms", "p95 ms", "cpu p50 ms")} | {"recall of ten": 1.0}
        ]
        for name in args.peers or PEERS:
            rows.append({"index": PEERS[name], **peer(name, search, some)})
            print(rows[-1], flush=True)
        tables[f"Beside others, {len(some)} queries by cosine"] = of_rows(rows)
        brute = plain_tokens(search.vectors)
        rows = [
            {"similarity of tokens": name, **timed(call, tokens[:10])}
            for name, call in (("here", by_tokens), ("brute force in torch, float32", brute))
        ]
        shown = ("similarity of tokens", "p50 ms", "p95 ms", "cpu p50 ms")
        tables["Beside brute force in the maxsim style"] = of_rows({k: r[k] for k in shown} for r in rows)
    publish(args.record, tables, numbers, setting=threads(args.threads))


def directions() -> np.ndarray:
    """(TOPICS, WIDTH): a decaying spectrum, as networks have."""
    rng = np.random.default_rng(0)
    spectrum = (1 + np.arange(WIDTH)) ** -0.5
    return (rng.standard_normal((TOPICS, WIDTH)) * spectrum).astype(np.float32)


def videos(rows: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """id, vectors, times."""
    topics, rng = directions(), np.random.default_rng(1)
    noise = rng.standard_normal((1 << 16, WIDTH)).astype(np.float32) * (0.7 * (1 + np.arange(WIDTH)) ** -0.25)
    for number in range(-(-rows // VIDEO_S)):
        count = min(VIDEO_S, rows - number * VIDEO_S)
        scenes = rng.integers(TOPICS, size=count)[np.cumsum(rng.random(count) < 0.1)[:, None] % count][:, 0]
        first = rng.integers(len(noise) - count)
        vectors = topics[rng.integers(TOPICS)] + topics[scenes] + noise[first : first + count]
        starts = np.arange(count, dtype=np.float32)
        yield f"v{number:06}", vectors.astype(np.float32), np.stack([starts, starts + 1], axis=1)


def asked(n: int) -> Iterator[np.ndarray]:
    """Queries."""
    topics, rng = directions(), np.random.default_rng(2)
    for number in range(n):
        mixed = topics[rng.integers(TOPICS, size=2 + number % 2)].sum(0)
        yield mixed + 0.3 * rng.standard_normal(WIDTH).astype(np.float32) * (number % 2)


def built(folder: Path, rows: int, numbers: dict[str, object]) -> VectorStore:
    """The index, written unless it is there."""
    if not (folder / "index.json").is_file():
        wall, cpu = time.perf_counter(), time.process_time()
        made = VectorStore.create(folder, WIDTH, True, {"made by": "benchmarks/search.py"})
        made.add(videos(rows), seconds_per_segment=float("inf"))
        seconds, of_cpu = time.perf_counter() - wall, time.process_time() - cpu
        numbers["build"] = {
            "s": round(seconds),
            "CPU s": round(of_cpu),
            "footage / clock": round(rows / seconds),
        }
    store = VectorStore(folder)
    if len(store) != rows:
        raise SystemExit(
            f"{folder}: holds {len(store)} rows, not {rows}. Remove it, or choose another --folder."
        )
    return store


def answered(call: Callable[[Any], Any], queries: list) -> tuple[list[Any], np.ndarray]:
    """The answers to queries, and (2, queries) wall and CPU milliseconds, after one query that reads the
    files."""
    call(queries[0])
    answers, taken = [], []
    for query in queries:
        wall, cpu = time.perf_counter(), time.process_time()
        answers.append(call(query))
        taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    return answers, 1000 * np.array(taken).T


def latencies(ms: np.ndarray) -> dict[str, float]:
    """Median and 95th percentile by the wall, median of the CPU."""
    found = {"p50 ms": np.median(ms[0]), "p95 ms": np.percentile(ms[0], 95), "cpu p50 ms": np.median(ms[1])}
    return {name: round(float(value), 1) for name, value in found.items()}


def timed(call: Callable[[Any], Any], queries: list) -> dict[str, object]:
    """Latencies, and how many rows were scored exactly."""
    answers, ms = answered(call, queries)
    exact = [answer.looked.exact if hasattr(answer, "looked") else 0 for answer in answers]
    return {
        "queries": len(queries),
        **latencies(ms),
        "least ms": round(float(ms[0].min()), 1),
        "cpu p95 ms": round(float(np.percentile(ms[1], 95)), 1),
        "scored exactly, median": int(np.median(exact)),
    }


class Nearest:
    """Of each query the candidates that scored best so far: more than are asked for, so that rounding of the
    scores does not decide which are among them."""

    def __init__(self, n_queries: int, k: int):
        self.kept = k + 10
        self.scores = np.full((n_queries, self.kept), -np.inf)
        self.places = np.zeros((n_queries, self.kept, 3), np.int64)  # part, first and last row

    def add(self, scores: np.ndarray, places: np.ndarray) -> None:
        """Scores (Q, m) of m candidates at places (m, 3)."""
        best = np.argpartition(-scores, min(self.kept, scores.shape[1]) - 1, axis=1)[:, : self.kept]
        found = np.concatenate([self.scores, np.take_along_axis(scores, best, 1)], axis=1)
        where = np.concatenate([self.places, places[best]], axis=1)
        best = np.argpartition(-found, self.kept - 1, axis=1)[:, : self.kept]
        self.scores = np.take_along_axis(found, best, 1)
        self.places = np.take_along_axis(where, best[..., None], 1)


def brute_force(search: ExactSearch, queries: list[np.ndarray], k: int) -> Iterator[list[Moment]]:
    """Without bounds, for all queries in one pass: every row in float64, the nearest ones again as the search
    scores them."""
    unit = np.stack([search._checked(query[None], k)[0] for query in queries])
    nearest = Nearest(len(unit), k)
    for number, part in enumerate(search.parts):
        for first in range(0, len(part.exact), 1 << 14):
            block = np.asarray(part.exact[first : first + (1 << 14)], dtype=np.float64)
            rows = first + np.arange(len(block))
            nearest.add(unit @ block.T, np.stack([np.full(len(rows), number), rows, rows + 1], axis=1))
    for query, places in zip(unit, nearest.places, strict=True):
        scored = [
            (-exact_scores(search.parts[p].exact[f:e], query)[0], p, f, e) for p, f, e in places.tolist()
        ]
        yield [type_of_hit(search, part, row, -score) for score, part, row, _ in sorted(scored)[:k]]


def brute_force_tokens(search: ExactSearch, queries: list[np.ndarray], k: int) -> Iterator[list[Moment]]:
    """The same over windows: every window in float32, the nearest ones again as the search scores them."""
    unit = np.stack([search._checked(tokens, k) for tokens in queries])  # (Q, T, D)
    nearest = Nearest(len(unit), k)
    for number, part in enumerate(search.parts):
        for first, count in part.segment.videos.values():
            video = np.asarray(part.exact[first : first + count], dtype=np.float32)
            windows = np.array(window_ranges(count, WINDOW))
            sums = np.add.reduceat(
                np.exp(video @ unit.reshape(-1, WIDTH).T.astype(np.float32)), windows[:, 0]
            )
            scores = np.log(sums).reshape(len(windows), *unit.shape[:2]).mean(2).T  # (Q, windows)
            places = np.concatenate([np.full((len(windows), 1), number), first + windows], axis=1)
            nearest.add(scores, places)
    for tokens, places in zip(unit, nearest.places, strict=True):
        scored = [
            (-window_scores(search.parts[p].exact[f:e][None], tokens, 1.0)[0], p, f, e)
            for p, f, e in places.tolist()
        ]
        yield [type_of_hit(search, part, row, -score, last) for score, part, row, last in sorted(scored)[:k]]


def type_of_hit(search: ExactSearch, part: int, row: int, score: float, last: int | None = None):
    """As the search returns it."""
    rows = search.parts[part].rows
    end = float(rows.end_s[row if last is None else last - 1])
    return Moment(search._video(part, row), float(rows.start_s[row]), end, score)


def peer(name: str, search: ExactSearch, queries: list[np.ndarray]) -> dict[str, object]:
    """Another index over the same vectors: latency, memory, and how many of the true ten it finds."""
    truth = [search.search(query, 10, apart=False).numbers for query in queries]
    unit = [search._checked(query[None], 1).astype(np.float32) for query in queries]
    before = resident()
    wall, cpu = time.perf_counter(), time.process_time()
    makers = {"usearch": usearch, "hnswlib": hnswlib, "brute": plain}
    ask = makers.get(name, faiss)(name, search.vectors)
    built_s, built_cpu = time.perf_counter() - wall, time.process_time() - cpu
    answers, ms = answered(ask, unit)
    right = sum(len({*map(int, rows)} & {*expected}) for rows, expected in zip(answers, truth, strict=True))
    return {
        "build, s": round(built_s),
        "build, CPU s": round(built_cpu),
        **latencies(ms),
        "GB": round(resident() - before, 2),
        "recall of ten": round(right / (10 * len(queries)), 4),
    }


def resident() -> float:
    """GB that this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30


def blocks(vectors: Vectors) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers and float32 vectors."""
    for first in range(0, len(vectors), 1 << 16):
        block = vectors[first : first + (1 << 16)].astype(np.float32)
        yield np.arange(first, first + len(block)), block


def plain(name: str, vectors: Vectors) -> Callable[[np.ndarray], np.ndarray]:
    """One product with all vectors, held in memory as float32, and the ten best."""
    held = torch.from_numpy(vectors[:].astype(np.float32))
    return lambda query: torch.topk(held @ torch.from_numpy(query[0]), 10).indices.numpy()


def plain_tokens(vectors: Vectors) -> Callable[[np.ndarray], np.ndarray]:
    """The same by tokens: a product, exp, a sum over each window, log and mean. Videos are whole windows
    long here."""
    held = torch.from_numpy(vectors[:].astype(np.float32))

    def ask(tokens: np.ndarray) -> np.ndarray:
        unit = torch.nn.functional.normalize(torch.from_numpy(tokens), dim=1)
        scores = (held @ unit.T).exp_().unflatten(0, (-1, WINDOW)).sum(1).log_().mean(1)
        return torch.topk(scores, 10).indices.numpy()

    return ask


def faiss(name: str, vectors: Vectors) -> Callable[[np.ndarray], np.ndarray]:
    """Flat, inverted lists, HNSW."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    cells = max(1, min(4096, len(vectors) // 1500))
    recipe = {"fp16": "SQfp16", "int8": "SQ8", "ivf": f"IVF{cells},SQ8", "hnsw": "HNSW32,SQ8"}[name]
    index = faiss.index_factory(WIDTH, recipe, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        index.train(vectors[:: max(1, len(vectors) // (40 * cells))].astype(np.float32))
    for _, block in blocks(vectors):
        index.add(block)
    if name == "ivf":
        index.nprobe = max(1, cells // 32)
    return lambda query: index.search(query, 10)[1][0]


def usearch(name: str, vectors: Vectors) -> Callable[[np.ndarray], np.ndarray]:
    """HNSW over int8."""
    from usearch.index import Index

    index = Index(ndim=WIDTH, metric="cos", dtype="i8")
    for numbers, block in blocks(vectors):
        index.add(numbers, block, threads=torch.get_num_threads())
    return lambda query: index.search(query[0], 10, threads=torch.get_num_threads()).keys


def hnswlib(name: str, vectors: Vectors) -> Callable[[np.ndarray], np.ndarray]:
    """HNSW over float32."""
    import hnswlib

    index = hnswlib.Index(space="ip", dim=WIDTH)
    index.init_index(max_elements=len(vectors), M=32, ef_construction=200)
    index.set_ef(100)
    for numbers, block in blocks(vectors):
        index.add_items(block, numbers, num_threads=torch.get_num_threads())
    return lambda query: index.knn_query(query, 10, num_threads=1)[0][0]


if __name__ == "__main__":
    main()
