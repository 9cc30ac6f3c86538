"""Greedy and beam search, and random draws, over any model that scores the next token.

Letters: B sequences, K beams, C vocabulary, n tokens so far. A prompt counts towards every length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

NextLogits = Callable[
    [Tensor], Tensor
]  # ids (rows, n) -> logits (rows, C) of the next token; rows = B, or B K ordered by sequence
NEVER = -1e9


def greedy_search(
    next_logits: NextLogits, prompt: Tensor, max_length: int, eos_id: int, pad_id: int
) -> Tensor:
    """The likeliest token at every step.

    Args:
        next_logits: scores the next token.
        prompt: (B, n) first ids.
        max_length: longest result.
        eos_id: ends a sequence.
        pad_id: fills sequences that ended earlier.

    Returns:
        (B, <= max_length) ids, prompt included.
    """
    ids, open_ = prompt, torch.ones(len(prompt), dtype=torch.bool, device=prompt.device)
    while ids.shape[1] < max_length and open_.any():
        token = torch.where(open_, next_logits(ids).argmax(dim=-1), pad_id)
        ids = torch.cat([ids, token[:, None]], dim=1)
        open_ = open_ & (token != eos_id)
    return ids


def sample_search(
    next_logits: NextLogits,
    prompt: Tensor,
    max_length: int,
    eos_id: int,
    pad_id: int,
    uniforms: Tensor,
    top_k: int = 10,
) -> Tensor:
    """A token at every step that is drawn among the likeliest ones, each as often as its probability among
    them says.

    Args:
        next_logits, prompt, max_length, eos_id, pad_id: as in `greedy_search`.
        uniforms: (B, max_length - n) draws from [0, 1), one for each token.
        top_k: how many tokens are drawn from.

    Returns:
        (B, <= max_length) ids, prompt included.
    """
    ids, open_ = prompt, torch.ones(len(prompt), dtype=torch.bool, device=prompt.device)
    for drawn in uniforms.to(prompt.device).unbind(1):
        logits, tokens = next_logits(ids).float().topk(top_k, dim=-1)
        below = logits.softmax(-1).cumsum(-1)[:, :-1] <= drawn[:, None]
        token = torch.where(open_, tokens.gather(1, below.sum(1, keepdim=True))[:, 0], pad_id)
        ids = torch.cat([ids, token[:, None]], dim=1)
        open_ = open_ & (token != eos_id)
        if not open_.any():
            break
    return ids


@dataclass
class _Finished:
    """The best finished beams of one sequence; score = log probability / length^penalty."""

    size: int
    length_penalty: float
    early_stopping: bool
    beams: list[tuple[float, Tensor]] = field(default_factory=list)

    def add(self, ids: Tensor, log_prob: float) -> None:
        self.beams.append((log_prob / len(ids) ** self.length_penalty, ids))
        self.beams = sorted(self.beams, key=lambda beam: -beam[0])[: self.size]

    def is_done(self, best_log_prob: float, length: int) -> bool:
        """Whether no open beam can still enter."""
        if len(self.beams) < self.size:
            return False
        return self.early_stopping or self.beams[-1][0] >= best_log_prob / length**self.length_penalty


def beam_search(
    next_logits: NextLogits,
    prompt: Tensor,
    max_length: int,
    eos_id: int,
    pad_id: int,
    num_beams: int,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
) -> Tensor:
    """The best of K sequences kept side by side.

    2 K candidates are looked at in each step, so that K remain when some end; candidates that end count only
    among the best K.

    Args:
        next_logits, prompt, max_length, eos_id, pad_id: as in `greedy_search`.
        num_beams: K.
        length_penalty: exponent of the length, prompt included, that divides log probabilities.
        early_stopping: stop at K finished sequences, even if an open one could still score higher.

    Returns:
        (B, <= max_length) ids, prompt included; EOS is kept where there is room.
    """
    b, k = len(prompt), num_beams
    ids = prompt.repeat_interleave(k, dim=0)  # (B K, n)
    scores = torch.zeros(b, k, device=prompt.device)
    scores[:, 1:] = NEVER  # all beams start equal: let the first one branch
    finished = [_Finished(k, length_penalty, early_stopping) for _ in range(b)]
    done = [False] * b
    while ids.shape[1] < max_length and not all(done):
        log_probs = next_logits(ids).float().log_softmax(dim=-1)
        n_words = log_probs.shape[-1]
        total = (log_probs.view(b, k, n_words) + scores[..., None]).flatten(1)  # (B, K C)
        best, place = total.topk(2 * k, dim=1)
        rows, tokens = [], []
        for i in range(b):
            if done[i]:
                kept = [(0.0, 0, pad_id)] * k
            else:
                kept = _step(
                    ids[i * k : (i + 1) * k],
                    best[i].tolist(),
                    place[i].tolist(),
                    n_words,
                    eos_id,
                    finished[i],
                )
                done[i] = finished[i].is_done(float(best[i, 0]), ids.shape[1])
            scores[i] = torch.tensor([score for score, _, _ in kept], device=scores.device)
            rows += [i * k + beam for _, beam, _ in kept]
            tokens += [token for _, _, token in kept]
        if all(done):
            break
        ids = torch.cat([ids[rows], ids.new_tensor(tokens)[:, None]], dim=1)
    for i in range(b):
        if not done[i]:
            for beam in range(k):
                finished[i].add(ids[i * k + beam], float(scores[i, beam]))
    return _stack([group.beams[0][1] for group in finished], max_length, eos_id, pad_id)


def _step(
    beams: Tensor, best: list[float], place: list[int], n_words: int, eos_id: int, finished: _Finished
) -> list[tuple[float, int, int]]:
    """The K open continuations of one sequence, (score, beam, token); those that end go to `finished`."""
    k, kept = len(beams), []
    for rank, (score, where) in enumerate(zip(best, place, strict=True)):
        beam, token = divmod(where, n_words)
        if token != eos_id:
            kept.append((score, beam, token))
        elif rank < k:
            finished.add(beams[beam], score)
        if len(kept) == k:
            break
    return kept


def _stack(sequences: list[Tensor], max_length: int, eos_id: int, pad_id: int) -> Tensor:
    """Pads to one length, with EOS behind every sequence that has room for it."""
    length = max(len(ids) for ids in sequences)
    if any(len(ids) < length for ids in sequences):
        length = min(length + 1, max_length)
    result = sequences[0].new_full((len(sequences), length), pad_id)
    for row, ids in zip(result, sequences, strict=True):
        row[: len(ids)] = ids
        if len(ids) < length:
            row[len(ids)] = eos_id
    return result
