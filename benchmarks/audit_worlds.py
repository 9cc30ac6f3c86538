"""Synthetic test sets of known truth, and claims made about them by one departure from the clean protocol.
Nothing here imports `mmpt`.

What plants must not share code with what detects: ranks come from sorting, post-processing and alignment are
written out in numpy, and parameters are drawn from what public code uses and, half of the time, from a
continuous range. Files that some departures need (a second stage, judgements, a query bank, captions that
occur twice, several captions a video) lie beside every world with some probability, so that a file's
presence gives nothing away.

Letters: N queries, V videos of the list, D width.
"""

from __future__ import annotations

import csv
import json
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

TRAPS = (
    "gallery",
    "captions",
    "duplicates",
    "ties",
    "postprocessing",
    "similarity",
    "rerank",
    "averaging",
    "direction",
    "constant",
    "judgements",
    "hubness",
)
PAIRED = (
    "direction",
    "judgements",
    "averaging",
    "captions",
    "rerank",
    "postprocessing",
)  # tried together with the other similarity
METRICS = ("R1", "R5", "R10")
SMALLEST_EFFECT = 0.5  # points of R@1 that a planted departure must move
Numbers = dict[str, float]


class Redraw(Exception):
    """This draw does not move the number enough, or does not apply to this world."""


@dataclass
class World:
    """What the author of a claim had. Rows of `text` are captions, `owner` their video's index."""

    text: np.ndarray  # (N, D)
    video: np.ndarray  # (V, D)
    owner: np.ndarray  # (N)
    captions: list[str]
    similarity: str
    digits: int | None  # decimals that stored scores are rounded to
    second_stage: np.ndarray | None  # (N, V)
    judged: np.ndarray | None  # (N, V) bool, right items beside the own one
    bank: np.ndarray | None  # (B, D) captions of a training set
    pool: np.ndarray  # further videos, for the truth about larger galleries

    @property
    def right(self) -> np.ndarray:
        """(N, V) bool: the own video of each caption."""
        return own(self.owner, len(self.video))


@dataclass
class Case:
    """Files of one world, a claim about it and the truth."""

    trap: str
    variant: str
    options: dict[str, str]  # of the audit: option -> path or word
    claims: dict[
        str, Numbers
    ]  # planted; honest: the clean number; foreign: the clean number of another, slightly different model
    clean: Numbers
    gallery: dict[str, float] = field(default_factory=dict)  # truths about another gallery size


# -- ranks


def places(scores: np.ndarray, right: np.ndarray, ties: str = "mean") -> np.ndarray:
    """Rank of the best right item of each row, from a full sort; `right` is (N, V) bool."""
    if ties == "later":
        order = scores.shape[1] - 1 - np.argsort(-scores[:, ::-1], axis=1, kind="stable")
    else:
        order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(right, order, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1)
    first = hits.argmax(1)
    best = ordered[np.arange(len(scores)), first][:, None]
    above, same = (ordered > best).sum(1), ((ordered == best) & ~hits).sum(1)
    return {
        "mean": 1 + above + same / 2,
        "optimistic": 1.0 + above,
        "later": 1.0 + first,
        "earlier": 1.0 + first,
    }[ties]


def numbers(rank: np.ndarray) -> Numbers:
    return {f"R{k}": float(100 * np.mean(rank <= k)) for k in (1, 5, 10)}


def recalls(scores: np.ndarray, right: np.ndarray, ties: str = "mean") -> Numbers:
    return numbers(places(scores, right, ties))


def own(owner: np.ndarray, n_videos: int) -> np.ndarray:
    return owner[:, None] == np.arange(n_videos)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def similarities(world: World, kind: str | None = None) -> np.ndarray:
    text, video = world.text, world.video
    if (kind or world.similarity) == "cosine":
        text, video = unit(text), unit(video)
    scores = (text @ video.T).astype(np.float32)
    return scores if world.digits is None else np.round(scores, world.digits)


def clean_numbers(world: World) -> Numbers:
    return recalls(similarities(world), world.right)


# -- worlds


def make_world(
    rng: np.random.Generator,
    captions: int | None = None,
    duplicates: bool | None = None,
    digits: int | None = None,
    norms: float | None = None,
    second_stage: bool | None = None,
    judged: bool | None = None,
    bank: bool | None = None,
    videos: int | None = None,
    offset: float | None = None,
) -> World:
    """A world with R@1 between 15 and 75; what is None is drawn."""
    captions = int(rng.choice([1, 1, 5, 10])) if captions is None else captions
    n_videos = int(rng.choice([300, 500, 800, 1000])) if videos is None else videos
    if captions > 1:
        n_videos = min(n_videos, 2400 // captions)
    width, latent = int(rng.choice([64, 128, 256])), int(rng.choice([16, 24, 32]))
    n_pool = 2000
    topics = rng.normal(size=(max(4, n_videos // 12), latent))
    about = rng.integers(len(topics), size=n_videos + n_pool)
    share = rng.uniform(0.2, 0.6)
    meaning = np.sqrt(share) * topics[about] + np.sqrt(1 - share) * rng.normal(size=(len(about), latent))
    basis = rng.normal(size=(latent, width)) / np.sqrt(latent)
    owner = np.repeat(np.arange(n_videos), captions)
    hard = np.exp(0.5 * rng.normal(size=(len(owner), 1)))
    noise_text, noise_video = hard * rng.normal(size=(len(owner), latent)), rng.normal(size=meaning.shape)
    said, heard, shown, seen = (
        meaning[owner] @ basis,
        noise_text @ basis,
        meaning @ basis,
        noise_video @ basis,
    )
    offset = rng.uniform(0.3, 1.0) if offset is None else offset
    offsets = offset * rng.normal(size=(2, width)) / np.sqrt(width) * np.sqrt(latent)
    spread = (rng.choice([0.0, 0.1, 0.25]) if norms is None else norms) * rng.normal(
        size=len(owner) + len(meaning)
    )
    aim = rng.uniform(20, 70)

    def sides(sigma: float) -> tuple[np.ndarray, np.ndarray]:
        text, video = unit(said + sigma * heard + offsets[0]), unit(shown + 0.5 * sigma * seen + offsets[1])
        scale = np.exp(spread)[:, None]
        return (text * scale[: len(owner)]).astype(np.float32), (video * scale[len(owner) :]).astype(
            np.float32
        )

    low, high = 0.02, 4.0
    for _ in range(9):
        sigma = np.sqrt(low * high)
        text, video = sides(sigma)
        some = rng.permutation(len(owner))[:300]
        reached = recalls(unit(text[some]) @ unit(video[:n_videos]).T, own(owner[some], n_videos))["R1"]
        low, high = (sigma, high) if reached > aim else (low, sigma)

    texts = [" ".join(f"w{word}" for word in words) for words in rng.integers(2000, size=(len(owner), 8))]
    if rng.random() < 0.6 if duplicates is None else duplicates:
        for i in rng.permutation(len(owner))[: int(rng.uniform(0.01, 0.05) * len(owner)) + 2]:
            near = np.argsort(-(unit(meaning[:n_videos]) @ unit(meaning[owner[i]])))[1:4]
            source = int(rng.choice(np.flatnonzero(owner == rng.choice(near))))
            texts[i], text[i] = (
                texts[source].capitalize() if rng.random() < 0.5 else texts[source],
                text[source],
            )
    second = None
    if rng.random() < 0.5 if second_stage is None else second_stage:
        better = unit(
            meaning[owner] + 0.6 * sigma * (noise_text + rng.normal(size=noise_text.shape)) / np.sqrt(2)
        )
        second = (8 * better @ unit(meaning[:n_videos] + 0.2 * sigma * noise_video[:n_videos]).T - 3).astype(
            np.float32
        )
    found = None
    if rng.random() < 0.5 if judged is None else judged:
        close = unit(meaning[owner]) @ unit(meaning[:n_videos]).T
        found = np.zeros(close.shape, dtype=bool)
        for i in np.flatnonzero(rng.random(len(owner)) < rng.uniform(0.2, 0.7)):
            found[i, np.argsort(-close[i])[1 : 1 + int(rng.integers(1, 5))]] = True
        found &= ~own(owner, n_videos)
    queries = None
    if rng.random() < 0.4 if bank is None else bank:
        other = rng.integers(n_videos, len(meaning), size=int(rng.choice([500, 1000, 2000])))
        mixed = meaning[other] + sigma * np.exp(0.5 * rng.normal(size=(len(other), 1))) * rng.normal(
            size=(len(other), latent)
        )
        queries = unit(mixed @ basis + offsets[0]).astype(np.float32)
    similarity = "dot" if rng.random() < 0.3 else "cosine"
    if digits is None and rng.random() < 0.25:
        digits = 3
    return World(
        text, video[:n_videos], owner, texts, similarity, digits, second, found, queries, video[n_videos:]
    )


# -- departures: each returns (variant, claimed numbers, world as its files show it, options)


def soft(x: np.ndarray, axis: int) -> np.ndarray:
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return x / x.sum(axis=axis, keepdims=True)


def drawn(rng: np.random.Generator, usual: list[float], low: float, high: float) -> float:
    """Half of the time a value that public code uses, else log-uniform."""
    return (
        float(rng.choice(usual))
        if rng.random() < 0.5
        else float(np.exp(rng.uniform(np.log(low), np.log(high))))
    )


def whole(rng: np.random.Generator, usual: list[float], low: float, high: float) -> int:
    return round(drawn(rng, usual, low, high))


def plant_postprocessing(rng, world, kind):
    scores = similarities(world).astype(np.float64)
    scale = 1.0 if world.similarity == "cosine" else 1 / np.abs(scores).max()
    if kind in (0, 1):
        t = drawn(rng, [20, 50, 100], 8, 200) * scale
        variant, out = f"dual softmax, {t:.4g}", scores * soft(scores * t, 0) * len(scores)
    elif kind == 2:
        t = drawn(rng, [20, 50, 100], 8, 200) * scale
        variant, out = (
            f"softmax over queries times softmax over items, {t:.4g}",
            soft(scores * t, 0) * soft(scores * t, 1),
        )
    elif kind == 3:
        beta, k = drawn(rng, [20, 50], 8, 100) * scale, whole(rng, [1, 5], 2, 15)
        queries = world.bank if world.similarity == "dot" else unit(world.bank)
        bank = (queries @ (world.video if world.similarity == "dot" else unit(world.video)).T).astype(
            np.float64
        )
        active = np.isin(scores.argmax(1), np.unique(np.argsort(-bank, axis=1)[:, :k]))
        out = np.exp(beta * (scores - scores.max()))
        out[active] /= np.exp(beta * (bank - scores.max())).sum(0)
        variant = f"QB-norm, beta {beta:.4g}, k {k}"
    else:
        eps, steps = (
            drawn(rng, [0.01, 0.02, 0.05, 0.1], 0.008, 0.1) / scale,
            whole(rng, [5, 10, 20, 50, 100], 3, 200),
        )
        kernel = np.exp((scores - scores.max(1, keepdims=True)) / eps)
        rows, cols = np.ones(len(kernel)), np.ones(kernel.shape[1])
        columns_first = rng.random() < 0.3
        if columns_first:
            cols = len(kernel) / kernel.shape[1] / (kernel.T @ rows)
        for _ in range(steps):
            rows = 1 / (kernel @ cols)
            cols = len(kernel) / kernel.shape[1] / (kernel.T @ rows)
        variant, out = (
            f"Sinkhorn, {eps:.4g}, {steps} steps",
            np.log(np.maximum(kernel, 1e-300)) + np.log(cols),
        )
    return variant, recalls(out, world.right), world, {}


def plant_similarity(rng, world, kind):
    other = {"cosine": "dot", "dot": "cosine"}[world.similarity]
    return other, recalls(similarities(world, other), world.right), world, {}


def plant_ties(rng, world, kind):
    rule = ["optimistic", "optimistic", "later", "earlier"][
        kind % 4
    ]  # the pessimistic rule leaves R@1 as it is
    return rule, recalls(similarities(world), world.right, rule), world, {}


def plant_duplicates(rng, world, kind):
    right = world.right
    if kind % 2:
        copies = rng.permutation(len(world.video))[: 2 * int(rng.uniform(0.02, 0.06) * len(world.video)) + 2]
        video = world.video.copy()
        again = video[copies[::2]]  # a second upload of the same clip, half of the time encoded anew
        jitter = (
            rng.choice([0.0, 2e-3]) * np.linalg.norm(again, axis=1, keepdims=True) / np.sqrt(again.shape[1])
        )
        video[copies[1::2]] = again + jitter * rng.normal(size=again.shape)
        world = replace(world, video=video)
        for a, b in zip(copies[::2], copies[1::2], strict=True):
            right[:, a] |= right[:, b]
            right[:, b] |= right[:, a]
        return "copies of an item", recalls(similarities(world), right), world, {}
    folded = [" ".join(text.lower().split()) for text in world.captions]
    for i, text in enumerate(folded):
        for j in (j for j in range(len(folded)) if folded[j] == text):
            right[i, world.owner[j]] = True
    return "equal captions", recalls(similarities(world), right), world, {}


def plant_captions(rng, world, kind):
    kind = ("first", "any", "rows")[kind % 3]
    scores, right = similarities(world), world.right
    first = np.unique(world.owner, return_index=True)[1]
    if kind == "first":
        return kind, recalls(scores[first], right[first]), world, {}
    if kind == "any":
        rank = places(scores, right)
        return (
            kind,
            numbers(np.array([rank[world.owner == v].min() for v in range(len(world.video))])),
            world,
            {},
        )
    clips = world.video[world.owner]  # one clip a caption, encoded anew each time
    clips = clips + 0.02 * rng.normal(size=clips.shape) * np.linalg.norm(
        clips, axis=1, keepdims=True
    ) / np.sqrt(clips.shape[1])
    listed = similarities(replace(world, video=clips.astype(np.float32)))
    world = replace(world, video=clips[first].astype(np.float32))
    return kind, recalls(listed, np.eye(len(listed), dtype=bool)), world, {"rows": clips.astype(np.float32)}


def plant_averaging(rng, world, kind):
    kind = ("unit embeddings", "embeddings", "scores", "best")[kind % 4]
    n_videos = len(world.video)
    first = np.unique(world.owner, return_index=True)[1]
    if kind in ("scores", "best"):
        scores, join = similarities(world), {"scores": np.mean, "best": np.max}[kind]
        joined = np.stack([join(scores[world.owner == v], axis=0) for v in range(n_videos)])
        return kind, recalls(joined, np.eye(n_videos, dtype=bool)), world, {}
    text = unit(world.text) if kind == "unit embeddings" else world.text
    joined = np.stack([text[world.owner == v].mean(0) for v in range(n_videos)])
    one = replace(world, text=joined.astype(np.float32), owner=world.owner[first])
    return kind, recalls(similarities(one), np.eye(n_videos, dtype=bool)), world, {}


def plant_direction(rng, world, kind):
    return "video to text", recalls(similarities(world).T, world.right.T), world, {}


def plant_rerank(rng, world, kind):
    depth = (
        int(rng.choice([5, 10, 16, 20, 32, 50, 100, 128]))
        if rng.random() < 0.5
        else int(rng.integers(2, 200))
    )
    scores = similarities(world)
    out = scores - scores.max() - 1e4
    for i, row in enumerate(scores):
        top = np.argsort(-row, kind="stable")[:depth]
        out[i, top] = world.second_stage[i, top]
    return f"depth {depth}", recalls(out, world.right), world, {}


def plant_judgements(rng, world, kind):
    return "judged items", recalls(similarities(world), world.right | world.judged), world, {}


def plant_hubness(rng, world, kind):
    kind = ("hub items left out", "centred", "column z-score", "CSLS")[kind % 4]
    right = world.right
    if kind == "hub items left out":
        hubs = rng.permutation(len(world.video))[: int(rng.integers(3, 11))]
        video = world.video.copy()
        video[hubs] = (
            unit(world.text).mean(0)
            + 0.01 * rng.normal(size=(len(hubs), video.shape[1])) * unit(world.text).mean(0).std()
        )
        video[hubs] = unit(video[hubs]) * np.linalg.norm(world.video[hubs], axis=1, keepdims=True)
        world = replace(world, video=video)
        keep = ~np.isin(np.arange(len(video)), hubs)
        often = np.bincount(np.argsort(-similarities(world), axis=1)[:, :10].ravel(), minlength=len(video))
        if often[hubs].min() <= often[keep].max():
            raise Redraw  # a hub is what is retrieved most often
        asked = keep[world.owner]
        return kind, recalls(similarities(world)[asked][:, keep], right[asked][:, keep]), world, {}
    if kind == "centred":
        cosine = world.similarity == "cosine"
        text, video = (
            (unit(world.text), unit(world.video))
            if cosine and rng.random() < 0.5
            else (world.text, world.video)
        )
        other = replace(world, text=text - text.mean(0), video=video - video.mean(0))
        return kind, recalls(similarities(other), right), world, {}
    scores = similarities(world).astype(np.float64)
    if kind == "column z-score":
        out = (scores - scores.mean(0)) / scores.std(0)
    else:
        k = whole(rng, [5, 10], 2, 40)
        kind = f"CSLS, k {k}"
        near_items = np.sort(scores, axis=1)[:, -k:].mean(1, keepdims=True)
        near_queries = np.sort(scores, axis=0)[-k:].mean(0)
        out = 2 * scores - near_items - near_queries
    return kind, recalls(out, right), world, {}


def larger_gallery(world: World, keep: np.ndarray) -> dict[str, float]:
    """Expected recall of the kept videos' captions against the whole list's size, other videos drawn from
    the population."""
    asked = keep[world.owner]
    scores, pool = similarities(world), similarities(replace(world, video=world.pool))
    n_missing, n_pool = int((~keep).sum()), len(world.pool)
    right = scores[np.arange(len(scores)), world.owner][asked]
    better = (scores[asked][:, keep] > right[:, None]).sum(1)
    chance = (pool[asked] > right[:, None]).mean(1)
    expected = {}
    for k in (1, 5, 10):
        reached = np.zeros(len(better))
        for extra in range(k):
            ways = np.prod([(n_missing - i) / (i + 1) for i in range(extra)])
            reached += np.where(
                better + extra < k, ways * chance**extra * (1 - chance) ** (n_missing - extra), 0.0
            )
        expected[f"R{k}"] = float(100 * reached.mean())
    assert n_pool > n_missing
    return expected


def plant_gallery(rng, world, kind):
    """Four ways a claim comes from fewer items than the list has."""
    kind = ("file lacks ids", "file lacks items, size known", "claimed ids", "claimed size")[kind % 4]
    n_videos = len(world.video)
    gone = rng.permutation(n_videos)[: int(rng.uniform(0.06, 0.25) * n_videos)]
    keep = ~np.isin(np.arange(n_videos), gone)
    asked = keep[world.owner]
    scores, right = similarities(world), own(world.owner, n_videos)
    claim = recalls(scores[asked][:, keep], right[asked][:, keep])
    options = {"kept": keep, "kind": kind}
    return kind, claim, world, options


# -- paragraphs


@dataclass
class Paragraphs:
    """Scores of captions (rows) against clips (columns), and the video of each."""

    scores: np.ndarray
    caption_video: np.ndarray
    clip_video: np.ndarray


def make_paragraphs(rng: np.random.Generator) -> Paragraphs:
    n_videos, latent = int(rng.integers(60, 110)), 24
    topics = rng.normal(size=(max(3, n_videos // 10), latent))
    clips, captions, clip_video, caption_video = [], [], [], []
    sigma = np.exp(rng.uniform(np.log(0.9), np.log(1.8)))
    for v in range(n_videos):
        steps = int(rng.integers(3, 11))
        base = 0.9 * topics[rng.integers(len(topics))] + 0.7 * rng.normal(size=latent)
        meaning = base + 0.7 * rng.normal(size=(steps, latent))
        clips.append(meaning + 0.6 * sigma * rng.normal(size=meaning.shape))
        told = [i for i in range(steps) if rng.random() > 0.15] or [0]
        captions.append(meaning[told] + sigma * rng.normal(size=(len(told), latent)))
        clip_video += [v] * steps
        caption_video += [v] * len(told)
    scores = (
        unit(np.concatenate(captions)) @ unit(np.concatenate(clips)).T * float(rng.choice([1.0, 1.0, 10.0]))
    )
    return Paragraphs(scores.astype(np.float32), np.array(caption_video), np.array(clip_video))


def warp(cost: np.ndarray) -> float:
    table = np.full((cost.shape[0] + 1, cost.shape[1] + 1), np.inf)
    table[0, 0] = 0
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            table[i + 1, j + 1] = cost[i, j] + min(table[i, j], table[i, j + 1], table[i + 1, j])
    return float(table[-1, -1])


def ordered(cost: np.ndarray) -> float:
    """OTAM: free start (also down the first column) and free end, each later column once."""
    table = np.empty(cost.shape)
    for i in range(cost.shape[0]):
        table[i, 0] = cost[i, 0] + (min(0.0, table[i - 1, 0]) if i else 0.0)
    for j in range(1, cost.shape[1]):
        above = np.concatenate([[np.inf], table[:-1, j - 1]])
        table[:, j] = cost[:, j] + np.minimum(above, table[:, j - 1])
    return float(table[:, -1].min())


def paragraph_places(data: Paragraphs, measure: str, constant: float | None) -> np.ndarray:
    """Ranks of each video for its own paragraph; constant None = shift-free."""
    n_videos = int(data.caption_video.max()) + 1
    scores = data.scores.astype(np.float64)
    cost = scores.max() - scores if constant is None else constant - scores
    rows = [np.flatnonzero(data.caption_video == v) for v in range(n_videos)]
    cols = [np.flatnonzero(data.clip_video == v) for v in range(n_videos)]
    found = np.empty((n_videos, n_videos))
    for q in range(n_videos):
        for v in range(n_videos):
            block = cost[np.ix_(rows[q], cols[v])]
            r, c = block.shape
            if measure == "DTW":
                found[q, v] = -warp(block) / (max(r, c) if constant is None else r * c)
            elif constant is None:
                found[q, v] = -ordered(block) / c - ordered(block.T) / r
            else:
                found[q, v] = -(ordered(block) + ordered(block.T)) / (r * c)
    return places(found, np.eye(n_videos, dtype=bool))


def plant_constant(rng: np.random.Generator, kind: int) -> tuple[str, str, Numbers, Numbers, Paragraphs]:
    data = make_paragraphs(rng)
    measure = ("DTW", "DTW", "OTAM")[kind % 3]
    constant = (
        float(rng.choice([0.0, 1.0])) if rng.random() < 0.5 else float(rng.uniform(-3, 6) * data.scores.std())
    )
    claim = numbers(paragraph_places(data, measure, constant))
    return (
        measure,
        f"{measure}, constant {constant:.4g}",
        claim,
        numbers(paragraph_places(data, measure, None)),
        data,
    )


# -- files


def write_arrays(folder: Path, kind: str, arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """Arrays by name as one npz, npy files, a torch file or safetensors."""
    if kind == "npz":
        np.savez(folder / "arrays.npz", **arrays)
        return dict.fromkeys(arrays, str(folder / "arrays.npz"))
    if kind in ("pt", "safetensors"):
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        (torch.save if kind == "pt" else save_file)(tensors, folder / f"arrays.{kind}")
        return dict.fromkeys(arrays, str(folder / f"arrays.{kind}"))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: str(folder / f"{name}.npy") for name in arrays}


def write_pairs(path: Path, owner: list[str], captions: list[str] | None) -> str:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "gallery_id", *(["caption"] if captions else [])])
        for i, video in enumerate(owner):
            writer.writerow([f"q{i}", video, *([captions[i]] if captions else [])])
    return str(path)


def write_lines(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def write_world(
    rng: np.random.Generator, folder: Path, world: World, needs_embeddings: bool, options: dict
) -> dict[str, str]:
    """All files of a world; returns the options of the audit."""
    keep, kind = options.get("kept"), options.get("kind")
    names = [f"video{v}" for v in range(len(world.video))]
    found: dict[str, str] = {"similarity": world.similarity}
    stored = (
        keep
        if kind in ("file lacks ids", "file lacks items, size known")
        else np.ones(len(world.video), dtype=bool)
    )
    asked = stored[world.owner]
    gallery = [name for name, there in zip(names, stored, strict=True) if there]
    owner = [names[v] for v in world.owner[asked]]
    captions = [text for text, there in zip(world.captions, asked, strict=True) if there]
    scores = similarities(world)[asked][:, stored]
    text, video = world.text[asked], world.video[stored]
    if "rows" in options:
        gallery, video = owner, options["rows"]
        scores = similarities(replace(world, video=video))
    foreign = rng.random() < 0.25 and not needs_embeddings and "rows" not in options
    if foreign and rng.random() < 0.5:
        run = {f"q{i}": dict(zip(gallery, map(float, row), strict=True)) for i, row in enumerate(scores)}
        (folder / "run_predictions.json").write_text(
            json.dumps({"mteb_model_meta": {"model_name": "x"}, "default": {"test": run}})
        )
        found["scores"] = str(folder / "run_predictions.json")
        found["pairs"] = write_pairs(folder / "pairs.csv", owner, captions)
    elif foreign:
        with open(folder / "scores.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["", *gallery])
            writer.writerows([f"q{i}", *(f"{value:.9g}" for value in row)] for i, row in enumerate(scores))
        found["scores"] = str(folder / "scores.csv")
        found["pairs"] = write_pairs(folder / "pairs.csv", owner, captions)
    elif (
        needs_embeddings
        and world.digits is None
        and world.second_stage is None
        and world.judged is None
        and "rows" not in options
        and rng.random() < 0.2
    ):
        with open(folder / "set_qry", "wb") as file:
            pickle.dump(text, file)
        with open(folder / "set_tgt", "wb") as file:
            pickle.dump(dict(zip(gallery, video, strict=True)), file)
        with open(folder / "set_info.jsonl", "w") as file:
            file.writelines(
                json.dumps({"label_name": name, "caption": text}) + "\n"
                for name, text in zip(owner, captions, strict=True)
            )
        found |= {
            "queries": str(folder / "set_qry"),
            "gallery": str(folder / "set_tgt"),
            "pairs": str(folder / "set_info.jsonl"),
        }
    else:
        kinds = ["npz", "npy", "pt", "safetensors"]
        embeddings = needs_embeddings or (world.digits is None and rng.random() < 0.7)
        arrays = {"queries": text, "gallery": video} if embeddings else {"scores": scores}
        found |= write_arrays(folder, str(rng.choice(kinds)), arrays)
        found["pairs"] = write_pairs(folder / "pairs.csv", owner, captions)
        found["gallery_ids"] = write_lines(folder / "gallery_ids.txt", gallery)
    if world.second_stage is not None:
        second = world.second_stage[asked][:, stored]
        np.save(folder / "reranked.npy", second[:, world.owner] if "rows" in options else second)
        found["reranked"] = str(folder / "reranked.npy")
    if world.judged is not None:
        lines = [
            (f"q{n}", names[v])
            for n, i in enumerate(np.flatnonzero(asked))
            for v in np.flatnonzero(world.judged[i] & stored)
        ]
        with open(folder / "judgements.csv", "w", newline="") as file:
            csv.writer(file).writerows([("query_id", "gallery_id"), *lines])
        found["judgements"] = str(folder / "judgements.csv")
    if world.bank is not None:
        np.save(
            folder / "bank.npy", world.bank if "queries" in found else bank_scores(world, stored, options)
        )
        found["bank"] = str(folder / "bank.npy")
    if kind == "file lacks ids":
        found["listed"] = write_lines(folder / "list.txt", names)
    elif kind == "file lacks items, size known":
        found["listed"] = str(len(names))
    elif kind == "claimed ids":
        found["claimed_list"] = write_lines(
            folder / "claimed.txt", [name for name, there in zip(names, keep, strict=True) if there]
        )
    elif kind == "claimed size":
        found["claimed_list"] = str(int(keep.sum()))
    return found


def bank_scores(world: World, stored: np.ndarray, options: dict) -> np.ndarray:
    cosine = world.similarity == "cosine"
    video = options["rows"] if "rows" in options else world.video[stored]
    return (unit(world.bank) if cosine else world.bank) @ (unit(video) if cosine else video).T


# -- cases

NEEDS = {  # what a world must have for a departure to be possible
    "captions": {"captions": "several", "digits": 9},
    "duplicates": {"duplicates": True},
    "ties": {"digits": "few"},
    "similarity": {"norms": 0.25},
    "rerank": {"second_stage": True},
    "averaging": {"captions": "several", "digits": 9},
    "judgements": {"judged": True},
}
PLANT = {
    name.removeprefix("plant_"): plant
    for name, plant in globals().items()
    if name.startswith("plant_") and name != "plant_constant"
}


def make_case(trap: str, index: int, seed: int, folder: Path) -> Case:
    """Case `index` of a trap.

    Args:
        trap: one of TRAPS, or "similarity+" one of PAIRED.
        index: which of them; chooses the variant.
        seed: of the benchmark.
        folder: existing, empty; files are written into it.
    """
    for attempt in range(60):
        rng = np.random.default_rng([seed, *trap.encode(), index, attempt])
        try:
            if "+" in trap:
                return _pair_case(rng, trap, index, folder)
            return (
                _paragraph_case(rng, index, folder) if trap == "constant" else _case(rng, trap, index, folder)
            )
        except Redraw:
            continue
    raise RuntimeError(f"no world found for {trap} {index}")


def _paragraph_case(rng: np.random.Generator, index: int, folder: Path) -> Case:
    measure, variant, claim, clean, data = plant_constant(rng, index)
    if abs(claim["R1"] - clean["R1"]) < SMALLEST_EFFECT or not 10 < clean["R1"] < 97 or claim["R1"] > 97:
        raise Redraw
    found = write_arrays(
        folder, str(rng.choice(["npz", "npy", "pt", "safetensors"])), {"scores": data.scores}
    )
    found["pairs"] = write_pairs(folder / "pairs.csv", [f"video{v}" for v in data.caption_video], None)
    found["gallery_ids"] = write_lines(folder / "gallery_ids.txt", [f"video{v}" for v in data.clip_video])
    found["measure"] = measure
    noisy = data.scores + 0.25 * data.scores.std() * rng.normal(size=data.scores.shape).astype(np.float32)
    foreign = numbers(paragraph_places(replace(data, scores=noisy), measure, None))
    return Case("constant", variant, found, {"planted": claim, "honest": clean, "foreign": foreign}, clean)


def _world_for(rng: np.random.Generator, traps: tuple[str, ...], index: int) -> World:
    needs: dict = {}
    for trap in traps:
        needs |= NEEDS.get(trap, {})
    if needs.get("captions") == "several":
        needs["captions"] = int(rng.choice([5, 10, 20]))
    if needs.get("digits") == "few":
        needs["digits"] = int(rng.choice([2, 3]))
    if "captions" in traps and index % 3 == 2:
        needs |= {"captions": int(rng.choice([5, 10])), "videos": 120}
    if "postprocessing" in traps and index % 5 == 3:
        needs["bank"] = True
    if "duplicates" in traps and index % 2:
        needs["digits"] = 9
    world = make_world(rng, **needs)
    if world.digits == 9 or not {"averaging", "hubness", "similarity"}.isdisjoint(traps):
        world.digits = None
    return world


def _case(rng: np.random.Generator, trap: str, index: int, folder: Path) -> Case:
    variant, claim, world, options = PLANT[trap](rng, _world_for(rng, (trap,), index), index)
    clean = clean_numbers(world)
    moved = max(abs(claim[name] - clean[name]) for name in METRICS)
    if (
        abs(claim["R1"] - clean["R1"]) < SMALLEST_EFFECT
        or (trap == "ties" and moved > 40)
        or not 5 < clean["R1"] < 90
        or claim["R1"] > 95
    ):
        raise Redraw
    truths = {}
    if trap == "gallery":
        keep = options["kept"]
        scores, right = similarities(world), world.right
        rank = places(scores, right)
        truths |= {f"same queries {name}": value for name, value in numbers(rank[keep[world.owner]]).items()}
        truths |= {f"expected {name}": value for name, value in larger_gallery(world, keep).items()}
    found = write_world(rng, folder, world, trap in ("similarity", "averaging", "hubness"), options)
    claims = {"planted": claim, "honest": clean, "foreign": foreign_numbers(rng, world)}
    return Case(trap, variant, found, claims, clean, truths)


def _pair_case(rng: np.random.Generator, trap: str, index: int, folder: Path) -> Case:
    """The other similarity, and a second departure on top; each must move the number beside the other."""
    second = trap.partition("+")[2]
    world = _world_for(rng, ("similarity", second), index)
    declared, used = world.similarity, {"cosine": "dot", "dot": "cosine"}[world.similarity]
    state = rng.bit_generator.state
    alone = PLANT[second](rng, world, index)[1]
    rng.bit_generator.state = state
    variant, claim, shown, options = PLANT[second](rng, replace(world, similarity=used), index)
    shown = replace(shown, similarity=declared)
    other = recalls(similarities(world, used), world.right)
    if min(abs(claim["R1"] - part["R1"]) for part in (alone, other)) < SMALLEST_EFFECT or claim["R1"] > 95:
        raise Redraw
    clean = clean_numbers(shown)
    found = write_world(rng, folder, shown, True, options)
    return Case(trap, f"{used}, {variant}", found, {"planted": claim, "honest": clean}, clean)


def foreign_numbers(rng: np.random.Generator, world: World) -> Numbers:
    """Honest numbers of another checkpoint: the same embeddings with noise, or with some of it taken away."""
    noise = rng.uniform(0.1, 0.5)
    text = unit(world.text) + noise * rng.normal(size=world.text.shape) / np.sqrt(world.text.shape[1])
    toward = rng.uniform(-0.15, 0.15)
    text = text + toward * unit(world.video)[world.owner]
    other = replace(world, text=(text * np.linalg.norm(world.text, axis=1, keepdims=True)).astype(np.float32))
    return clean_numbers(other)
