"""GDT: contrast across modalities under hypotheses about time reversal and time shift.

Shapes: S views of the hypothesis, B samples on this rank, R ranks, D width; batches are view-major: all
samples of `orig`, then of the next view (`mmpt.ops.gdt.VIEWS`, those that the hypothesis uses, in that
order).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.config.follow import HYPOTHESES, views_of
from mmpt.losses.loss import Loss, LossConfig, option
from mmpt.ops.distributed import all_gather, rank, world_size
from mmpt.ops.gdt import (
    SCOPES,
    VIEWS,
    Comparisons,
    Contrast,
    GDTHypothesis,
    compare,
    contrast,
    look,
    multiplicity,
    require_visible_reversal,
    sample_negatives,
)
from mmpt.ops.logit_scale import TEMPERATURE, inverse_temperature
from mmpt.ops.normalize import unit_rows_once
from mmpt.ops.precision import full_precision
from mmpt.registry import LOSSES

LAYOUTS = ("view_major", "item_major")


@dataclass(frozen=True, kw_only=True)
class GDTConfig(LossConfig):
    """Keys of `GDTLoss`."""

    hypothesis: int | str | None = option(None, "1 to 9 or a name such as v_reversal_i_shift; required")
    modalities: list | None = option(
        None, "the two modalities; null: video and text, or audio where there is no text"
    )
    temperature: float = option(
        TEMPERATURE,
        "divides the scores, unless the model returns a learned logit_scale",
        symbol="rho",
        above=0,
    )
    max_logit_scale: float = option(100.0, "upper bound of a learned inverse temperature", above=0)
    layout: str = option(
        "view_major",
        "rows of the batch: view_major (a view's samples in a row) or item_major (a sample's views)",
        one_of=LAYOUTS,
    )
    negative_scope: str = option("global", "global; rank = only one view of the own rank", one_of=SCOPES[:2])
    compat: bool = option(
        False,
        "negatives of other ranks are counted as in the released code",
        formerly=("negative_scope: rank_asis",),
    )
    composition: str = option(
        "pairwise",
        "pairwise: terms over pairs of views; joint: every query against all views",
        one_of=("pairwise", "joint"),
    )
    exclude_other_positives: bool = option(
        False, "joint: leave a query's further positives out of the denominator"
    )
    sync_direction_weights: list | None = option(
        None, "weights of first-to-second and second-to-first; null: equal"
    )
    key_grad: bool = option(False, "let gradients reach positives and negatives too")
    gather: bool = option(True, "negatives of all ranks")
    normalize: bool = option(True, "bring embeddings to unit length (those that have it pass untouched)")
    num_negatives: int | None = option(
        None, "negatives drawn for each comparison, without replacement; null: all", least=1
    )
    seed: int = option(0, "of the drawn negatives")
    text_reversal: str = option(
        "token", "how the data reverse text: none, sentence or token; checked against hypothesis and data"
    )
    order_sensitive: bool = option(
        True, "whether the text encoder sees word order, where the model does not say so itself"
    )
    allow_degenerate: bool = option(
        False, "train even if a reversed view looks the same as the distinctive original"
    )

    def __post_init__(self):
        super().__post_init__()
        weights = self.sync_direction_weights
        if self.hypothesis is None:
            raise ValueError(
                "loss.hypothesis (GDTLoss) is missing: 1 to 9 or a name; `mmpt gdt 8` shows one."
            )
        if self.modalities is not None and len(set(self.modalities)) != 2:
            raise ValueError(f"loss.modalities (GDTLoss): expected two names, got {self.modalities}.")
        if weights is not None and (
            len(weights) != 2 or not all(isinstance(w, (int, float)) and w >= 0 for w in weights)
        ):
            raise ValueError(
                f"loss.sync_direction_weights (GDTLoss): expected two numbers of at least 0, got {weights}."
            )
        told = [
            key
            for key, is_set in {
                f"loss.negative_scope={self.negative_scope}": self.negative_scope != "global",
                "loss.compat=True": self.compat,
            }.items()
            if is_set
        ]
        if self.composition == "joint" and told:
            raise ValueError(f"{told[0]} (GDTLoss) needs composition: pairwise; joint is global.")
        if len(told) > 1:
            raise ValueError(f"{' and '.join(told)} (GDTLoss) exclude each other. Leave one out.")

    def check_data(self, dataset: Any) -> None:
        needed = None if self.hypothesis is None else views_of(self.hypothesis)
        if needed is None:
            raise ValueError(
                f"loss.hypothesis={self.hypothesis!r}: expected 1 to 9, base, or one of "
                f"{', '.join(HYPOTHESES)}."
            )
        views = list(dataset.views or needed)  # an aligner of one's own may make them without being told
        if views != needed:
            raise ValueError(
                f"loss.hypothesis {self.hypothesis} compares the views "
                f"{', '.join(needed)}; dataset.views "
                f"are {', '.join(views)}. Set dataset.views: [{', '.join(needed)}] and "
                f"dataset.subsampling: {len(needed)}."
            )
        if dataset.views and (dataset.subsampling or 1) != len(needed):
            raise ValueError(
                f"dataset.subsampling={dataset.subsampling}, but loss.hypothesis compares {len(needed)} "
                "views of an item; set it so."
            )
        has_views = bool(dataset.views) and len(needed) > 1
        if has_views and self.layout != "item_major":
            raise ValueError(
                "dataset.views puts the views of an item side by side; set loss.layout: item_major (GDTLoss)."
            )
        if (
            has_views
            and "text" in (self.modalities or ["text"])
            and self.text_reversal != dataset.text_reversal
        ):
            raise ValueError(
                f"loss.text_reversal={self.text_reversal} (GDTLoss) differs from "
                f"dataset.text_reversal={dataset.text_reversal}; say the "
                "same in both."
            )


@LOSSES.register()
class GDTLoss(Loss[GDTConfig]):
    """Pulls the two modalities of a clip together and pushes other clips away; reversed and shifted clips of
    the same video are positives or negatives as the hypothesis says.

    Each of the nine hypotheses is a set of terms over pairs of views; `mmpt gdt 8` prints those of number 8.
    A term is the mean of the cross entropies in both directions. As published, keys (the vectors that a query
    is compared with) carry no gradient unless `key_grad` is true.

    Departs from the released code: which vectors are negatives does not depend on how a batch is split over
    ranks, and one process works. `negative_scope: rank` is what the code intended, `compat: true` what it
    computed.

    Reads `pooled_<modality>` (S*B, D), the samples of one view after those of another, or (S, B, D). Batches
    of `GDTAligner` hold the views of an item side by side: `layout: item_major`. `view_valid` (S*B,) bool is
    optional and false where a view could not be made, as of a video too short to shift; such a view is
    neither a query nor a key.
    """

    Config = GDTConfig
    family = "Views and crops"
    formula = (
        "mean over the hypothesis's pairs of views (a, b) of [CE(x_a y_b' / rho) + CE(y_a x_b' / rho)] / "
        "2,\n"
        "x, y unit vectors of the two modalities;\n"
        "the hypothesis says which pairs are positives and which are negatives"
    )
    paper = "Patrick et al., GDT, [arXiv 2003.04298](https://arxiv.org/abs/2003.04298)"
    cost = "(S B)^2 D operations for B clips in S views; S times as many clips to encode."
    note = (
        "Data: `aligner: GDTAligner` with `dataset.views`, and `layout: item_major`. `mmpt "
        "gdt 8` shows a hypothesis."
    )

    def __init__(self, config: Mapping[str, Any] | GDTConfig | None = None, **keys: Any):
        super().__init__(config, **keys)
        read = self.config
        assert read.hypothesis is not None  # GDTConfig refuses that
        self.hypothesis = GDTHypothesis.parse(read.hypothesis)
        if "text" in (read.modalities or ["text"]) and not read.allow_degenerate:
            require_visible_reversal(self.hypothesis, read.text_reversal, read.order_sensitive)
        weights = tuple(read.sync_direction_weights or (0.5, 0.5))
        if read.composition == "joint":
            self.calls = self.hypothesis.joint_calls(read.exclude_other_positives, weights)
            self.term_names = ["joint"]
        else:
            self.calls = self.hypothesis.calls("released" if read.compat else read.negative_scope, weights)
            self.term_names = [term.name for term in self.hypothesis.terms]
        self._mult: dict[tuple, Tensor] = {}
        self._constants: dict[tuple, Any] = {}

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(f"pooled_{name}" for name in self.config.modalities or ["video"])

    def check_model(self, model: nn.Module) -> None:
        super().check_model(model)
        names = self.config.modalities or [
            "video",
            "text" if "pooled_text" in getattr(model, "returns", ("pooled_text",)) else "audio",
        ]
        absent = [
            f"pooled_{name}"
            for name in names
            if f"pooled_{name}" not in getattr(model, "returns", (f"pooled_{name}",))
        ]
        if absent:
            raise ValueError(
                f"GDTLoss compares {' and '.join(names)}; {type(model).__name__} does not return "
                f"{', '.join(absent)}."
            )
        for name in names if hasattr(model, "order_sensitive") and not self.config.allow_degenerate else ():
            require_visible_reversal(
                self.hypothesis, "token", model.order_sensitive(name), encoder=f"the {name} encoder"
            )

    def forward(
        self,
        *,
        pooled_video: Tensor | None = None,
        view_valid: Tensor | None = None,
        logit_scale: Tensor | None = None,
        num_updates: int | None = None,
        **batch: Any,
    ) -> Tensor:
        pair = self._pair({"pooled_video": pooled_video, **batch})
        first, second = (self._by_view(name, x) for name, x in pair.items())
        if first.shape != second.shape:
            raise ValueError(
                f"GDTLoss: the two modalities have shapes {tuple(first.shape)} and {tuple(second.shape)}; "
                "expected the same (S, B, D)."
            )
        both = full_precision(torch.stack([first, second]))  # (2, S, B, D)
        both = unit_rows_once(both) if self.config.normalize else both
        most, scale = math.log(self.config.max_logit_scale), 1 / self.config.temperature
        if logit_scale is not None:
            scale = inverse_temperature(logit_scale, both, most=most)
        keys, queries = self._keys(both.flip(0)), scale * both  # keys (2, S, R, B, D)
        own_rank = rank() if keys.shape[2] > 1 else 0
        # without `view_valid` all are, and nothing is masked
        valid = None if view_valid is None else self._views_first(view_valid)
        if self.config.num_negatives is None:
            key_valid = None if valid is None else self._keys(valid[None])[0]
            result = compare(self._comparisons(both), look(queries, keys, key_valid, own_rank), valid)
        else:
            valid = torch.ones_like(both[0, ..., 0], dtype=torch.bool) if valid is None else valid
            key_valid = self._keys(valid[None])[0]
            logits = queries.flatten(1, 2) @ keys.flatten(1, 3).mT
            logits = logits.view(*queries.shape[:3], -1)  # (2, S, B, S*R*B)
            result = self._of_drawn_negatives(logits, valid, key_valid, own_rank, num_updates)
        return self._combine(result, queries)

    def _of_drawn_negatives(
        self, logits: Tensor, valid: Tensor, key_valid: Tensor, own_rank: int, num_updates: int | None
    ) -> Contrast:
        """All C directed comparisons on this rank's queries; valid (S, B), key_valid (S, R, B)."""
        number, (n_ranks, batch_size) = self.config.num_negatives, key_valid.shape[1:]
        assert number is not None  # else `compare` does without the mask
        views = list(self.hypothesis.views)
        query = _sent([views.index(call.query_view) for call in self.calls], logits.device)
        target = _sent([views.index(call.positive_view) for call in self.calls], logits.device)
        modality = _sent([call.query_modality for call in self.calls], logits.device)
        positive = (target[:, None] * n_ranks + own_rank) * batch_size + torch.arange(
            batch_size, device=logits.device
        )  # (C, B)
        # All comparisons of the hypothesis are one batch: they differ in the mask alone, and several of them
        # share the logits of a view against all keys.
        mult = self._multiplicities(own_rank, n_ranks, batch_size, logits.device) * key_valid.flatten()
        # The same keys on every rank: the draw depends on seed and update alone.
        generator = torch.Generator(logits.device).manual_seed(
            self.config.seed * 1_000_003 + (num_updates or 0)
        )
        mult = sample_negatives(mult, positive, number, generator)
        return contrast(logits[modality, query], mult, positive, valid[query] & valid[target])

    def _multiplicities(self, *layout: Any) -> Tensor:
        """(C, B, S*R*B), kept between steps: it depends on the layout of the batch alone."""
        if layout not in self._mult:
            views = list(self.hypothesis.views)
            self._mult = {
                layout: torch.stack(
                    [multiplicity(call, *layout)[:, views].flatten(1) for call in self.calls]
                ).to(torch.uint8)
            }
        return self._mult[layout]

    def _combine(self, result: Contrast, like: Tensor) -> Tensor:
        """Weighted mean over the comparisons that have a usable query; a term is the same mean over its own
        comparisons."""
        shares = self._shares(like)
        if result.usable is not None:
            shares = _as_shares(shares * result.usable)
        numbers = torch.stack(
            [x.detach() for x in (result.loss, result.top1, result.positive, result.hardest)]
        )
        means = shares @ numbers.T  # (G, 4)
        loss, top1, *rest = means.unbind(1)
        logs = dict(zip(self.term_names, loss.unbind(), strict=False))
        logs |= {"top1_first": top1[-3], "top1_second": top1[-2]}
        logs |= {name: column[-1] for name, column in zip(("positive", "hardest"), rest, strict=True)}
        self.record(**logs)
        return shares[-1] @ result.loss

    def _shares(self, like: Tensor) -> Tensor:
        """(G, C) shares of the comparisons in the numbers of a log line: of each term, of each modality, of
        all."""

        def made() -> Tensor:
            groups = [[call.term == number for call in self.calls] for number in range(len(self.term_names))]
            groups += [[call.query_modality == side for call in self.calls] for side in (0, 1)]
            groups += [[True] * len(self.calls)]
            weights = torch.tensor([call.weight for call in self.calls], dtype=like.dtype)
            return _as_shares(weights * torch.tensor(groups)).to(like.device, non_blocking=True)

        return self._kept("shares", like, made)

    def _comparisons(self, like: Tensor) -> Comparisons:
        return self._kept(
            "comparisons", like, lambda: Comparisons.of(self.calls, self.hypothesis.views, like)
        )

    def _kept(self, name: str, like: Tensor, make: Callable[[], Any]) -> Any:
        """What depends on the hypothesis alone, made once for a device and a type."""
        key = name, like.device, like.dtype
        if key not in self._constants:
            self._constants[key] = make()
        return self._constants[key]

    def _pair(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        names = self.config.modalities or [
            "video",
            "text" if batch.get("pooled_text") is not None else "audio",
        ]
        keys = [f"pooled_{name}" for name in names]
        absent = [key for key in keys if batch.get(key) is None]
        if absent:
            raise ValueError(
                f"GDTLoss: loss.modalities = {list(names)} needs {', '.join(absent)}, which the model "
                "does not return."
            )
        return {key: batch[key] for key in keys}

    def _by_view(self, name: str, x: Tensor) -> Tensor:
        """(S, B, D)."""
        n_views = len(self.hypothesis.views)
        if (x.dim() == 3 and len(x) != n_views) or x.dim() not in (2, 3) or len(x) % n_views:
            raise ValueError(
                f"GDTLoss: {name} has shape {tuple(x.shape)}; hypothesis {self.hypothesis.name} needs "
                f"{n_views} views "
                f"({', '.join(VIEWS[v] for v in self.hypothesis.views)}): ({n_views} * B, D)."
            )
        return x if x.dim() == 3 else self._views_first(x)

    def _views_first(self, x: Tensor) -> Tensor:
        """Rows of a batch (S*B, ...) in its layout -> (S, B, ...)."""
        n_views = len(self.hypothesis.views)
        if self.config.layout == "item_major":
            return x.reshape(-1, n_views, *x.shape[1:]).transpose(0, 1)
        return x.reshape(n_views, -1, *x.shape[1:])

    def _keys(self, x: Tensor) -> Tensor:
        """(M, S, B, ...) of this rank -> (M, S, R, B, ...) of all ranks."""
        with_grad = self.config.key_grad and x.is_floating_point()
        if not self.config.gather or world_size() == 1:
            return (x if with_grad else x.detach())[:, :, None]
        rows = all_gather(x.movedim(2, 0).contiguous(), with_grad)  # (R * B, M, S, ...)
        return rows.unflatten(0, (world_size(), -1)).movedim((2, 3), (0, 1))


def _as_shares(weights: Tensor) -> Tensor:
    """Rows that add up to 1; to 0 where there is nothing."""
    return weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


def _sent(values: list, device: torch.device) -> Tensor:
    """Numbers of the host as a tensor on the device, without waiting for it."""
    return torch.tensor(values, dtype=torch.float64 if isinstance(values[0], float) else None).to(
        device, non_blocking=True
    )
