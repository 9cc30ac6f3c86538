"""Generalised data transformations: which transformed clips attract, which repel, as a table, as masks and as
a loss.

Shapes: S views of a clip (orig, rev, shift, shiftrev), R ranks, B samples on a rank, D width; keys are
    ordered (view, rank, sample).

A hypothesis says for time reversal and for time shift whether the transformed clip of the same video is a
positive (invariant) or a negative (distinctive), or that the factor is not used. The contrast is always
across two modalities. Source: GDT (arXiv 2003.04298).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mmpt.ops.contrastive import Excluded, row_statistics
from mmpt.ops.precision import autocast_off, full_precision

VIEWS = ("orig", "rev", "shift", "shiftrev")
SCOPES = ("global", "rank", "released")
INVARIANT, DISTINCTIVE = "i", "v"  # the published names say "variant" for distinctive

_FACTORS = {  # number -> (reversal, shift)
    1: (None, None),
    2: (DISTINCTIVE, None),
    3: (INVARIANT, None),
    4: (None, DISTINCTIVE),
    5: (None, INVARIANT),
    6: (DISTINCTIVE, DISTINCTIVE),
    7: (INVARIANT, DISTINCTIVE),
    8: (DISTINCTIVE, INVARIANT),
    9: (INVARIANT, INVARIANT),
}
# How often remote keys of each view entered the denominator in the released code, which extends its lists of
# remote features in place and reuses them in later terms. Terms not listed count the two views of their pair
# once.
_AS_EXECUTED = {
    (3, "rev"): (1, 2, 0, 0),
    (5, "shift"): (1, 0, 2, 0),
    (6, "shift"): (1, 1, 1, 1),
    (7, "rev"): (1, 2, 0, 0),
    (7, "shift"): (1, 1, 1, 0),
    (7, "shift_of_rev"): (1, 2, 1, 1),
    (8, "rev"): (1, 1, 1, 0),
    (8, "shift"): (1, 1, 2, 1),
    (9, "base_shift"): (1, 1, 1, 0),
    (9, "rev"): (1, 2, 1, 0),
    (9, "shift"): (1, 1, 2, 0),
    (9, "shift_of_rev"): (1, 2, 2, 1),
}


class Term(NamedTuple):
    """One pair of views in the loss."""

    name: str
    # base: the own view is the positive, the partner view of the own sample is left out;
    # inv: the partner view is the positive, the own view of the own sample is left out;
    # var: the own view is the positive, the partner view of the own sample is a hard negative
    kind: str
    views: tuple[int, ...]
    weight: float


class Call(NamedTuple):
    """One directed comparison: queries of one modality and view against keys of the other modality."""

    term: int
    query_modality: int  # 0 = first, 1 = second; keys come from the other one
    query_view: int
    positive_view: int
    weight: float  # share in the loss, if all calls of the hypothesis can be made
    remote: tuple[int, ...]  # how often a key of another rank counts, for each of the four views
    local: tuple[str, ...]  # which keys of the own rank count once: all, others (than the own sample), none


@dataclass(frozen=True)
class GDTHypothesis:
    """One of the nine hypotheses.

    Attributes:
        number: 1 to 9.
        reversal, shift: `v` distinctive, `i` invariant, None not used.
    """

    number: int
    reversal: str | None
    shift: str | None

    @classmethod
    def parse(cls, value: int | str) -> GDTHypothesis:
        """From a number or a name; `base` and `d_*` (distinctive) are understood too.

        Raises:
            ValueError: neither; the message lists the nine names.
        """
        every = [cls(number, *factors) for number, factors in _FACTORS.items()]
        text = str(value).strip().lower()
        name = (
            "cross_modal_baseline"
            if text == "base"
            else "_".join("v" if part == "d" else part for part in text.split("_"))
        )
        for hypothesis in every:
            if name in (hypothesis.name, str(hypothesis.number)):
                return hypothesis
        raise ValueError(
            f"hypothesis {value!r} is unknown; expected 1 to 9 or one of {', '.join(h.name for h in every)}."
        )

    @property
    def name(self) -> str:
        used = [
            f"{kind}_{factor}"
            for factor, kind in (("reversal", self.reversal), ("shift", self.shift))
            if kind
        ]
        return "_".join(used) or "cross_modal_baseline"

    @cached_property
    def views(self) -> tuple[int, ...]:
        """Indices into `VIEWS` of what the batch must hold, in this order."""
        return tuple(v for v in range(4) if (self.reversal or v % 2 == 0) and (self.shift or v < 2))

    @property
    def terms(self) -> list[Term]:
        """The pair terms with equal weights; an invariant factor also gets the synchronous pair that starts
        at `orig`."""
        pairs = {
            "rev": [("rev", (0, 1)), ("rev_of_shift", (2, 3))],
            "shift": [("shift", (0, 2)), ("shift_of_rev", (1, 3))],
        }
        factors = [(name, kind) for name, kind in (("rev", self.reversal), ("shift", self.shift)) if kind]
        found: list[tuple[str, str, tuple[int, ...]]] = []
        # An invariant pair alone never compares a view with itself across modalities; this term does.
        found += [(f"base_{name}", "base", pairs[name][0][1]) for name, kind in factors if kind == INVARIANT]
        for name, kind in factors:
            usable = pairs[name] if len(factors) == 2 else pairs[name][:1]
            found += [(term, "inv" if kind == INVARIANT else "var", views) for term, views in usable]
        found = found or [("base", "base", (0,))]
        return [Term(*term, weight=1 / len(found)) for term in found]

    def calls(self, scope: str = "global", direction_weights: tuple[float, float] = (0.5, 0.5)) -> list[Call]:
        """The directed comparisons of all terms."""
        if scope not in SCOPES:
            raise ValueError(f"scope={scope!r}: expected one of {', '.join(SCOPES)}.")
        return [
            call
            for number, term in enumerate(self.terms)
            for call in self._calls_of(number, term, scope, direction_weights)
        ]

    def _calls_of(
        self, number: int, term: Term, scope: str, direction_weights: tuple[float, float]
    ) -> Iterator[Call]:
        remote = tuple(int(view in term.views) for view in range(4))
        if scope == "released":
            remote = _AS_EXECUTED.get((self.number, term.name), remote)
        other_rule = "all" if term.kind == "var" else "others" if scope == "global" else "none"
        for query_view in term.views:
            partner = sum(term.views) - query_view if len(term.views) == 2 else query_view
            positive = partner if term.kind == "inv" else query_view
            local = tuple(
                "all" if v == positive else other_rule if v in term.views else "none" for v in range(4)
            )
            for modality in (0, 1):
                weight = term.weight * direction_weights[modality] / len(term.views)
                yield Call(number, modality, query_view, positive, weight, remote, local)

    def joint_calls(
        self, exclude_other_positives: bool = False, direction_weights: tuple[float, float] = (0.5, 0.5)
    ) -> list[Call]:
        """The composition as the paper writes it: every query against all used views, one call for each of
        its positive views.

        Positive views agree with the query's in every distinctive factor.
        """
        found = []
        for query_view in self.views:
            positives = [v for v in self.views if self._agree(v, query_view)]
            for positive in positives:
                rule = {
                    v: "others" if exclude_other_positives and v in positives else "all" for v in self.views
                } | {positive: "all"}
                local = tuple(rule.get(v, "none") for v in range(4))
                remote = tuple(int(v in self.views) for v in range(4))
                for modality in (0, 1):
                    weight = direction_weights[modality] / (len(self.views) * len(positives))
                    found.append(Call(0, modality, query_view, positive, weight, remote, local))
        return found

    def _agree(self, first: int, second: int) -> bool:
        same_direction, same_clip = first % 2 == second % 2, first // 2 == second // 2
        return (same_direction or self.reversal != DISTINCTIVE) and (same_clip or self.shift != DISTINCTIVE)

    def masks(self, world_size: int, batch_per_rank: int, scope: str = "global") -> list[dict[str, Any]]:
        """What each directed comparison counts, to look at and to test.

        Returns:
            One dict a call: `term`, `query_modality`, `query_view`, `pos` (R*B,) index of the positive key
            and `mult` (R*B, 4*R*B) uint8, how often each key enters the denominator; query index = rank*B +
            sample, key index = (view*R + rank)*B + sample.
        """
        found = []
        samples = torch.arange(world_size * batch_per_rank)
        for call in self.calls(scope):
            mult = torch.cat(
                [multiplicity(call, rank, world_size, batch_per_rank) for rank in range(world_size)]
            ).to(torch.uint8)
            found.append(
                {
                    "term": self.terms[call.term].name,
                    "query_modality": call.query_modality,
                    "query_view": call.query_view,
                    "pos": call.positive_view * len(samples) + samples,
                    "mult": mult.flatten(1),
                }
            )
        return found

    def describe(self) -> str:
        """The terms as a table."""
        meaning = {
            "base": "positive: the same view; its partner view of the same sample is left out",
            "inv": "positive: the partner view; the same view of the same sample is left out",
            "var": "positive: the same view; its partner view of the same sample is a negative",
        }
        lines = [f"hypothesis {self.number}: {self.name} (views {', '.join(VIEWS[v] for v in self.views)})"]
        for term in self.terms:
            pair = f"{term.kind}({', '.join(VIEWS[v] for v in term.views)})"
            lines.append(f"  {term.weight:.4g} x {term.name:<13} {pair:<22} {meaning[term.kind]}")
        return "\n".join(lines)


def multiplicity(
    call: Call, rank: int, world_size: int, batch: int, device: torch.device | None = None
) -> Tensor:
    """How often each key enters the denominator of one rank's queries: (B, 4, R, B)."""
    mult = (
        torch.tensor(call.remote)
        .to(device, non_blocking=True)[None, :, None, None]
        .repeat(batch, 1, world_size, batch)
    )
    own = torch.eye(batch, dtype=mult.dtype, device=device)
    rules = {"all": torch.ones_like(own), "others": 1 - own, "none": torch.zeros_like(own)}
    for view, rule in enumerate(call.local):
        mult[:, view, rank] = rules[rule]
    return mult


class Contrast(NamedTuple):
    """Directed comparisons evaluated; every field (C,)."""

    loss: Tensor  # mean over usable queries; 0 without any
    usable: Tensor | None  # bool: is there a usable query; None: in all
    top1: Tensor  # share of usable queries whose positive scores highest
    positive: Tensor  # mean positive logit
    hardest: Tensor  # mean highest negative logit; 0 for queries without negatives


def contrast(logits: Tensor, mult: Tensor, positive: Tensor, usable: Tensor) -> Contrast:
    """mean_i [ logsumexp_k (log mult_ik + logit_ik) - logit_i,pos(i) ] over usable queries i, for C directed
    comparisons at once.

    Args:
        logits: (C, B, keys), high = close.
        mult: (C, B, keys) how often each key counts; the positive counts at least once in usable rows.
        positive: (C, B) column of the positive key.
        usable: (C, B) bool.
    """
    logits, column = full_precision(logits), positive[..., None]
    low = torch.finfo(logits.dtype).min / 4  # excluded, but finite: unusable rows stay finite, too
    share = usable.to(logits.dtype) / usable.sum(-1, keepdim=True).clamp_min(1)
    own = logits.gather(-1, column)[..., 0]
    counted = torch.where(mult > 0, logits + mult.clamp_min(1).to(logits.dtype).log(), low)
    loss = (share * (counted.logsumexp(-1) - own)).sum(-1)
    with torch.no_grad():
        # Against the hardest negative, ties count as wrong: a collapsed model must not look accurate.
        hardest = logits.masked_fill(mult == 0, low).scatter(-1, column, low).amax(-1)
        alone = hardest == low
        means = [
            (share * x).sum(-1)
            for x in ((own > hardest).to(share.dtype), own, hardest.masked_fill(alone, 0.0))
        ]
    return Contrast(loss, usable.any(-1), *means)


class Seen(NamedTuple):
    """What queries see of the keys of one view; logits of nothing are very low, but finite.

    Both fields are (2 S, G S, B): modality and view of the query; what kind of keys, and their view; sample
    of the query. The G kinds are the key of the same sample, the other samples of this rank, and where there
    are any those of other ranks.
    """

    logits: Tensor  # log-sum-exp over the keys
    highest: Tensor  # the highest logit, without gradient


def look(queries: Tensor, keys: Tensor, key_valid: Tensor | None = None, rank: int = 0) -> Seen:
    """Reduces the logits of all queries with all keys to what comparisons are made of.

    No comparison of a hypothesis tells keys apart except by view and by whose they are: the query's sample's,
    its rank's, another rank's. The logits with other ranks are never stored.

    Args:
        queries: (2, S, B, D), by modality; logits are their dot products with the keys.
        keys: (2, S, R, B, D), of the other modality each. Those of this rank are the queries but for a factor
            that all share, so that one product serves both modalities.
        key_valid: (S, R, B) bool; None: all are.
        rank: number of the queries' rank.
    """
    _, n_views, n_ranks, batch, _ = keys.shape
    logits, highest = _OwnRank.apply(
        queries, keys[:, :, rank], None if key_valid is None else key_valid[:, rank]
    )
    if n_ranks == 1:
        return Seen(logits, highest)
    hidden = (
        torch.zeros(keys.shape[1:4], dtype=torch.bool, device=keys.device)
        if key_valid is None
        else ~key_valid
    )
    hidden[:, rank] = True
    found = [
        row_statistics(asked.flatten(0, 1), shown.flatten(0, 1), excluded=_columns(part.flatten()))
        for asked, views in zip(queries, keys, strict=True)
        for shown, part in zip(views, hidden, strict=True)
    ]
    low = torch.finfo(queries.dtype).min / 4
    remote = (
        torch.stack(part).clamp_min(low).view(2, n_views, n_views, batch).transpose(1, 2).flatten(0, 1)
        for part in zip(*found, strict=True)
    )
    return Seen(*(torch.cat(parts, 1) for parts in zip((logits, highest), remote, strict=True)))


class _OwnRank(torch.autograd.Function):
    """`look` at the keys of this rank. Written out because autograd would copy the logits several times."""

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, key_valid: Tensor | None) -> tuple[Tensor, Tensor]:
        n_views, batch = queries.shape[1:3]
        low = torch.finfo(queries.dtype).min / 4
        first = queries[0].flatten(0, 1) @ keys[0].flatten(0, 1).T
        scores = torch.stack([first, first.T]).view(2, n_views, batch, n_views, batch)
        same = scores.diagonal(dim1=2, dim2=4)
        own = same.clone()  # (2, S, S, B)
        same.fill_(low)
        if key_valid is not None:
            scores.masked_fill_(~key_valid, low)
        highest = scores.amax(-1, keepdim=True)
        scores = scores.sub_(highest).exp_()
        sums = scores.sum(-1, keepdim=True)
        ctx.save_for_backward(queries, keys, scores, sums)
        of_others = highest + sums.log(), highest
        logits, highest = (
            torch.cat([own, others[..., 0].transpose(2, 3)], 2).flatten(0, 1) for others in of_others
        )
        ctx.mark_non_differentiable(highest)
        return logits, highest

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None]:
        queries, keys, scores, sums = ctx.saved_tensors
        of_own, of_others = grad.unflatten(0, (2, -1)).chunk(2, 2)
        grad = scores * (of_others.transpose(2, 3)[..., None] / sums)
        grad.diagonal(dim1=2, dim2=4).copy_(of_own)
        grad = grad.view(2, queries.shape[1] * queries.shape[2], -1)
        with autocast_off(grad):
            of_queries = (grad @ keys.flatten(1, 2)).view_as(queries)
            of_keys = (grad.mT @ queries.flatten(1, 2)).view_as(keys) if ctx.needs_input_grad[1] else None
        return of_queries, of_keys, None


def _columns(hidden: Tensor) -> Excluded:
    return lambda rows, columns: hidden[columns]


class Comparisons(NamedTuple):
    """Directed comparisons without drawn negatives, as numbers: C of them over S views."""

    query: Tensor | None  # (C,) row of `Seen`; None: each row once, in order
    positive: Tensor  # (C,) view of the positive
    view: Tensor  # (C,) view of the query
    counted: Tensor  # (C, 3 S, 1) what is added to the logits of `Seen`: 0, the log of a number, or very low
    negatives: Tensor  # the same without the positive

    @classmethod
    def of(cls, calls: Sequence[Call], views: Sequence[int], like: Tensor) -> Comparisons:
        """Those of a hypothesis, on the device and in the dtype of the embeddings."""
        low = torch.finfo(like.dtype).min / 4
        rows = [
            [0.0 if call.local[v] == "all" else low for v in views]
            + [0.0 if call.local[v] != "none" else low for v in views]
            + [math.log(n) if (n := call.remote[v]) else low for v in views]
            for call in calls
        ]
        query = [views.index(call.query_view) for call in calls]
        positive = [views.index(call.positive_view) for call in calls]
        others = [
            [low if column == own else number for column, number in enumerate(row)]
            for own, row in zip(positive, rows, strict=True)
        ]
        row_of = [call.query_modality * len(views) + q for call, q in zip(calls, query, strict=True)]
        in_order = row_of == list(range(2 * len(views)))
        sent: list[Any] = [
            torch.tensor(x).to(like.device, non_blocking=True) for x in (row_of, positive, query)
        ]
        sent[0] = None if in_order else sent[0]
        sent += [
            torch.tensor(x, dtype=like.dtype).to(like.device, non_blocking=True)[..., None]
            for x in (rows, others)
        ]
        return cls(*sent)


def compare(comparisons: Comparisons, seen: Seen, valid: Tensor | None = None) -> Contrast:
    """`contrast` of directed comparisons, from what their queries see.

    Args:
        comparisons: C.
        seen: logits, reduced.
        valid: (S, B) bool, queries and keys of this rank; None: all are.
    """
    query, positive, view, counted, negatives = comparisons
    kinds, batch = seen.logits.shape[1:]
    logits, highest = seen if query is None else (x.index_select(0, query) for x in seen)  # (C, G S, B)
    usable, share = None, 1 / batch
    if valid is not None:
        usable = valid[view] & valid[positive]
        share = usable.to(logits.dtype) / usable.sum(-1, keepdim=True).clamp_min(1)
        hidden = functional.pad(~valid, (0, 0, 0, kinds - len(valid)))  # of the same sample
        low = torch.finfo(logits.dtype).min / 4
        logits, highest = logits.masked_fill(hidden, low), highest.masked_fill(hidden, low)
        usable = usable.any(-1)
    column = positive[:, None, None].expand(-1, 1, batch)
    loss = _Softmaxes.apply(logits, counted[:, :kinds], column, share)
    with torch.no_grad():
        low = torch.finfo(logits.dtype).min / 4
        own = logits.gather(1, column)[:, 0]
        # Against the hardest negative, ties count as wrong: a collapsed model must not look accurate.
        hardest = (highest + negatives[:, :kinds]).amax(1)
        numbers = [own > hardest, own, hardest.masked_fill(hardest <= low, 0.0)]
        means = (torch.stack([x.to(own.dtype) for x in numbers]) * share).sum(-1)
    return Contrast(loss, usable, *means)


class _Softmaxes(torch.autograd.Function):
    """sum_b share_b (logsumexp_k (x + added)_kb - x_own,b): x (C, K, B), added (C, K, 1), own (C, 1, B),
    share (C, B) or a number -> (C,). Written out as these tensors are small and many."""

    @staticmethod
    def forward(ctx, x: Tensor, added: Tensor, own: Tensor, share: Tensor | float) -> Tensor:
        logs = torch.log_softmax(x + added, 1)
        ctx.save_for_backward(logs, own)
        ctx.share = share
        # the positive counts once, so that nothing is added to it
        return (logs.gather(1, own)[:, 0] * share).sum(-1).neg_()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        logs, own = ctx.saved_tensors
        weight = (grad[:, None] * ctx.share)[:, None]  # (C, 1, B or 1)
        found = logs.exp().mul_(weight)
        return found.scatter_add_(1, own, -weight.expand(own.shape)), None, None, None


def sample_negatives(mult: Tensor, positive: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Keeps of `mult` (C, B, keys) the positives (C, B) and `number` negatives drawn without replacement, the
    same keys for all queries of a comparison as far as they are negatives there."""
    # The same keys for every query of a comparison, as a queue of negatives would be; where a key is no
    # negative of a query, it sorts last and is then dropped.
    own = torch.zeros_like(mult, dtype=torch.bool).scatter(-1, positive[..., None], True)
    order = torch.rand(len(mult), 1, mult.shape[-1], generator=generator, device=mult.device).expand(
        mult.shape
    )
    order = order.masked_fill((mult == 0) | own, -1.0)
    drawn = order.topk(min(number, mult.shape[-1]), dim=-1).indices
    kept = torch.zeros_like(own).scatter(-1, drawn, True) & (order >= 0)
    return mult * (kept | own)


def require_visible_reversal(
    hypothesis: GDTHypothesis,
    order: str,
    order_sensitive: bool,
    units: int | None = None,
    encoder: str = "the text encoder",
) -> None:
    """Refuses a distinctive time reversal of what its encoder cannot tell from the original when it is
    reversed.

    The loss would then push a clip from an identical copy: every such comparison is stuck near log 2 with
    contradictory targets.

    Args:
        hypothesis: reversal is checked if it is distinctive.
        order: how the reversed text is made: `none`, `sentence` (order of the captions in the window) or
            `token`.
        order_sensitive: whether the encoder sees the order of its input.
        units: captions in a window, where known; reversing the order of one caption changes nothing.
        encoder: what to call it.

    Raises:
        ValueError: the reversed text looks the same.
    """
    if order not in ("none", "sentence", "token"):
        raise ValueError(f"text_reversal={order!r}: expected none, sentence or token.")
    reasons = {
        "text_reversal: none leaves the text as it is": order == "none",
        "text_reversal: sentence leaves a single caption as it is": order == "sentence" and units == 1,
        f"{encoder} does not see the order of its input": not order_sensitive,
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if hypothesis.reversal == DISTINCTIVE and found:
        raise ValueError(
            f"hypothesis {hypothesis.number} ({hypothesis.name}) treats time reversal as distinctive, but "
            f"{' and '.join(found)}. "
            "Use text_reversal: token with an order-sensitive encoder, a hypothesis without distinctive "
            "reversal, or "
            "allow_degenerate: true."
        )


def mask_grid(mask: dict, world: int, batch: int) -> str:
    """One directed comparison as text; keys are grouped by view, then by rank."""
    modality = ("first", "second")[mask["query_modality"]]
    lines = [f"term {mask['term']}: {modality} modality, view {VIEWS[mask['query_view']]}"]
    width = world * batch + world - 1
    lines.append(" " * 6 + "  ".join(f"{name:<{width}}" for name in VIEWS))
    for query, (positive, row) in enumerate(zip(mask["pos"].tolist(), mask["mult"].tolist(), strict=True)):
        symbols = ["P" if key == positive else str(count) if count else "." for key, count in enumerate(row)]
        ranks = ["".join(symbols[start : start + batch]) for start in range(0, len(symbols), batch)]
        views = [" ".join(ranks[start : start + world]) for start in range(0, len(ranks), world)]
        lines.append(f"{query // batch:>2}.{query % batch:<2} " + "  ".join(views))
    return "\n".join(lines)
