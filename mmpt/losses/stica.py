"""STiCA: contrast between crops of a clip's feature map, and between the clip and its audio or text.

Shapes: n crops of a kind, B samples on this rank, R ranks, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmpt.losses.loss import Loss, LossConfig, option
from mmpt.ops.contrastive import info_nce
from mmpt.ops.distributed import all_gather, rank
from mmpt.ops.normalize import unit_rows_once
from mmpt.ops.precision import full_precision
from mmpt.registry import LOSSES

COUNTS = {
    "num_large_crops": "sl",
    "num_small_crops": "ss",
    "num_large_tcrops": "tl",
    "num_small_tcrops": "ts",
}


@dataclass(frozen=True, kw_only=True)
class STiCAConfig(LossConfig):
    """Keys of `STiCALoss`."""

    modality: str | None = option(
        None, "what the clip is compared with; null: audio, or text where there is no audio"
    )
    temperature: float = option(0.5, "of the crop part", yaml="temp", above=0)
    av_temperature: float = option(0.1, "of the cross-modal part", yaml="av_temp", above=0)
    alpha: float = option(
        0.5, "weight of the cross-modal part", yaml="cross_modal_alpha", symbol="alpha", least=0, most=1
    )
    num_large_crops: int | None = option(None, "large spatial crops expected; null: as many as come", least=0)
    num_small_crops: int | None = option(None, "small spatial crops expected; null: as many as come", least=0)
    num_large_tcrops: int | None = option(
        None, "large temporal crops expected; null: as many as come", least=0
    )
    num_small_tcrops: int | None = option(
        None, "small temporal crops expected; null: as many as come", least=0
    )
    gather: bool = option(True, "negatives of all ranks")
    key_grad: bool = option(False, "let gradients reach positives and negatives too")
    normalize: bool = option(True, "bring embeddings to unit length (those that have it pass untouched)")


@LOSSES.register()
class STiCALoss(Loss[STiCAConfig]):
    """Pulls crops of one version of a clip to large crops of its other version, and the whole clip to its
    audio (or text).

    loss = (1 - alpha) * crop part + alpha * cross-modal part. The crop part averages: the second large crops
    of both versions against each other, and every small crop of version 2 against every large crop of version
    1, in space and in time; without any crops the loss is the cross-modal part alone. Keys carry no gradient
    unless `key_grad`.

    Reads `crops`, a mapping `sl1, sl2, ss2, tl1, tl2, ts2` -> (n, B, D) (kind and version; absent = none),
    `pooled_video_1`, `pooled_video_2` (B, D), and `pooled_<modality>` or `pooled_<modality>_1` and `_2`.
    """

    Config = STiCAConfig
    family = "Views and crops"
    formula = (
        "(1 - alpha) mean of CE over (small crop, large crop) and (large, large) pairs\n"
        "+ alpha [CE(v a' / tau) + CE(a v' / tau)] / 2"
    )
    paper = "Patrick et al., STiCA, [arXiv 2103.10211](https://arxiv.org/abs/2103.10211)"
    cost = "(crop pairs) N^2 D operations."
    note = (
        "Data and model: `model_cls: MMSTiCA`, which crops stored features in time, and stored feature "
        "maps (`map: [7, 7]`) also in space."
    )
    from_model = ("crops", "pooled_video_1", "pooled_video_2")

    def check_model(self, model: nn.Module) -> None:
        super().check_model(model)
        returned = getattr(model, "returns", None)
        if returned is not None and not any(
            f"pooled_{name}{end}" in returned for name in self._other_names for end in ("", "_1")
        ):
            raise ValueError(self._nothing_to_compare())

    def forward(
        self, *, crops: Mapping[str, Tensor], pooled_video_1: Tensor, pooled_video_2: Tensor, **batch: Any
    ) -> Tensor:
        config, others = self.config, self._others(batch)
        videos = [self._unit(pooled_video_1), self._unit(pooled_video_2)]
        sums, counts = self._crop_sums({name: self._unit(x) for name, x in crops.items()}, videos[0])
        n_comparisons = sum(counts.values())
        terms = {name: value / counts[name] for name, value in sums.items() if counts[name]}
        across = (
            sum(self._symmetric(v, a, config.av_temperature) for v, a in zip(videos, others, strict=True)) / 2
        )
        alpha = config.alpha if n_comparisons else 1.0
        self.record(**terms, av=across)
        return (1 - alpha) * sum(sums.values()) / max(n_comparisons, 1) + alpha * across

    def _crop_sums(
        self, crops: Mapping[str, Tensor], like: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Sum and number of comparisons of the four kinds."""
        none, temperature = like.new_zeros(0, *like.shape), self.config.temperature
        for key, kind in COUNTS.items():
            expected, name = getattr(self.config, key), f"{kind}{2 if kind.endswith('s') else 1}"
            found = len(crops.get(name, none))
            if expected is not None and found != expected:
                raise ValueError(
                    f"loss.{key} (STiCALoss) says {expected} crops, the model returns {found} of {name}."
                )
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for large, small in (("sl", "ss"), ("tl", "ts")):
            first, second = crops.get(f"{large}1", none), crops.get(f"{large}2", none)
            pairs = [(query, key) for key in first for query in crops.get(f"{small}2", none)]
            # As published: the pair of first large crops takes no part, only that of the second ones.
            both = len(first) == 2 and len(second) == 2
            sums[f"crop_{large}_{large}"] = (
                self._symmetric(first[1], second[1], temperature) if both else like.new_zeros(())
            )
            sums[f"crop_{small}_{large}"] = sum(
                (self._nce(query, key, temperature) for query, key in pairs), like.new_zeros(())
            )
            counts |= {f"crop_{large}_{large}": int(both), f"crop_{small}_{large}": len(pairs)}
        return sums, counts

    def _nce(self, queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
        """Cross entropy of each query against its own key among the keys of all ranks."""
        if self.config.gather:
            keys = all_gather(keys, self.config.key_grad).roll(-rank() * len(keys), 0)  # own keys first
        elif not self.config.key_grad:
            keys = keys.detach()
        return info_nce(queries @ keys.T / temperature)

    def _symmetric(self, first: Tensor, second: Tensor, temperature: float) -> Tensor:
        return (self._nce(first, second, temperature) + self._nce(second, first, temperature)) / 2

    def _others(self, batch: Mapping[str, Any]) -> list[Tensor]:
        """The other modality, for version 1 and 2 of the clip; usually the same tensor twice."""
        for name in self._other_names:
            found = [batch.get(f"pooled_{name}_{version}", batch.get(f"pooled_{name}")) for version in (1, 2)]
            if all(x is not None for x in found):
                return [self._unit(x) for x in found]
        raise ValueError(self._nothing_to_compare())

    @property
    def _other_names(self) -> list[str]:
        return [self.config.modality] if self.config.modality else ["audio", "text"]

    def _nothing_to_compare(self) -> str:
        return (
            f"STiCALoss needs {' or '.join(f'pooled_{name}' for name in self._other_names)}, which the "
            "model does not return."
        )

    def _unit(self, x: Tensor) -> Tensor:
        return unit_rows_once(x) if self.config.normalize else full_precision(x)
