"""One tower per modality into one space: the model of GRAM and its peers, on ready-made features.

Shape letters: B items, K modalities besides the captions, L positions of a modality, T caption columns, H
transformer width, D = model.contra_dim.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.checkpoints.weights import read_state_dict
from mmpt.config import required, schema
from mmpt.config.fields import Section, option
from mmpt.models import sequence_layout as layout
from mmpt.models.bert import init_like_bert
from mmpt.models.mmfusion import Encoded, MMFusion
from mmpt.models.transformermodel import MMBertForEncoder, build_encoder
from mmpt.modules.matching import PairMatcher
from mmpt.ops.distributed import largest_of_ranks
from mmpt.registry import MODELS
from mmpt.utils.columns import known_columns, last_column

logger = logging.getLogger(__name__)

VIDEO_WIDTH = 512
NORM_EPS = 1e-12


@dataclass(frozen=True, kw_only=True)
class MatchingKeys(Section):
    """A common space of modalities and a head that tells matched pairs."""

    contra_dim: int = option(512, "width of the common space", least=1)
    matching_head: bool = option(
        False, "cross-attention and a head that tells matched pairs, for loss.dam_weight and eval.rerank"
    )
    matching_condition: list | None = option(None, "modalities that the matching head reads; null: all")
    frozen: list | None = option(
        None, "modalities (text among them) whose towers are not trained, only their projections"
    )


@MODELS.register()
class MMGram(MMFusion):
    """Captions and the modalities of `dataset.modalities`, each pooled, projected without bias and brought to
    unit length.

    A stream of features has a tower like the video tower of two-tower models (`model.modality_layers`
    layers); captions and subtitles share one text encoder and have a projection each.
    `model.learnable_temperature` puts the temperature into the model.

    With `model.captions: false` captions are not read: two streams then train as in GDT, without labels.

    With `model.matching_head`, the text encoder also reads the tokens of the other modalities by
    cross-attention (a type embedding each, padding and missing modalities masked) and a head tells whether
    text and item match. The cross-attention layers play no part in the embeddings.

    Towers read no more columns than the longest row of the batch fills (see `columns_in_use`).

    `model.init_from` names a checkpoint of a two-tower model. Its video and text towers are taken over, and
    all projections start as one orthogonal matrix, so that where contra_dim is at least H cosines are those
    of that model at first.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(MatchingKeys, MMFusion.Config):
        """One tower for each modality."""

        modality_layers: Mapping[str, int] | None = option(
            None, "modality -> layers of its tower; null: num_hidden_video_layers"
        )
        captions: bool = option(
            True, "embed the captions; false: the modalities alone, for audio-video training"
        )
        init_from: str | None = option(
            None, "two-tower checkpoint whose video and text towers it starts from"
        )

    def __init__(self, config: schema.Config):
        super().__init__(config)
        self.names = list(required(self.config, "dataset.modalities", self))
        if config.model.micro_batch or "text" in self.names:
            what = (
                "model.micro_batch does not work with MMGram"
                if config.model.micro_batch
                else "dataset.modalities.text is the captions"
            )
            raise ValueError(f"{config.source or 'config'}: {what}; remove it.")
        for name in self.stream_names:
            entry = config.dataset.modalities[name]
            if not self.reads_as_stored(name) and (entry.get("map") or entry.get("versions", 1) > 1):
                what = f"{type(self).__name__} reads one vector a moment; map and versions are for MMSTiCA"
                raise ValueError(f"dataset.modalities.{name}: {what}.")
        hidden = self.bert_config.hidden_size
        with_text = config.model.captions or self.stream_names != self.names or config.model.matching_head
        self.text_encoder = self.build_encoder("BertModel") if with_text else None
        for name in self.stream_names:
            self.add_module(f"{name}_encoder", self._tower(name))
        self.projections = nn.ModuleDict(
            {name: nn.Linear(hidden, config.model.contra_dim, bias=False) for name in self._all_names()}
        )
        init_like_bert(self.projections, self.bert_config.initializer_range)
        self.matcher: PairMatcher | None = None
        if config.model.matching_head:
            assert self.text_encoder is not None  # as with_text says
            self.text_encoder.add_cross_attention()
            self.matcher = PairMatcher(TextFusion(self.text_encoder), hidden)
            self.condition = Condition(self._condition_names(), hidden, self.bert_config.initializer_range)
        if config.model.init_from is not None:
            self._start_from(config.model.init_from)
        for name in config.model.frozen or []:
            tower = getattr(self, f"{name}_encoder", None)
            if tower is None:
                raise ValueError(
                    f"model.frozen names {name}, which has no tower; there are: "
                    f"{', '.join(self._tower_names())}."
                )
            tower.requires_grad_(False)

    @property
    def returns(self) -> frozenset[str]:
        """Names of the tensors that `forward` gives."""
        names = {f"pooled_{name}" for name in self._all_names()} | {"present"}
        if self.matcher is not None:
            names.add("matcher")
        return frozenset(names if self.logit_scale is None else names | {"logit_scale"})

    def order_sensitive(self, name: str) -> bool:
        return super().order_sensitive(name if name in self.stream_names else "text")

    @property
    def stream_names(self) -> list[str]:
        """Modalities that are streams of features; the others are subtitles."""
        return [name for name in self.names if self.config.dataset.modalities[name].get("path") is not None]

    def encode_text(self, caps: Tensor, cmasks: Tensor, columns: int | None = None) -> Tensor:
        """Captions (N, T), of which so many columns are in use -> unit rows (N, D)."""
        return self.embed("text", self._text(caps, cmasks, columns).pooled)

    def encode_items(
        self, caps: Tensor, cmasks: Tensor, present: Tensor | None = None, **batch: Tensor
    ) -> dict[str, Any]:
        """The modalities of B items.

        Args:
            caps, cmasks: (B, >= 2) of which only [CLS] and [SEP] are read.
            present: (B, K) bool; null: all there.
            batch: `<name>_feats` (B, L, width) and `<name>_masks` (B, L), or `<name>_caps` and
                `<name>_cmasks` (B, L).

        Returns:
            `pooled_<name>` (B, D), `present`: name -> (B,) bool, and with a matching head `condition` (B, L',
            H), `condition_mask` (B, L').
        """
        if present is None:
            present = torch.ones(len(caps), len(self.names), dtype=torch.bool, device=caps.device)
        encoded = {name: self._encode(name, caps, cmasks, batch) for name in self.names}
        there = dict(zip(self.names, present.unbind(1), strict=True))
        output: dict[str, Any] = {
            f"pooled_{name}": self.embed(name, one.pooled) for name, one in encoded.items()
        }
        output["present"] = there
        if self.matcher is not None:
            output["condition"], output["condition_mask"] = self.condition(encoded, there)
        return output

    def forward(  # type: ignore[override]  # a batch comes by name
        self, caps: Tensor, cmasks: Tensor, **batch: Any
    ) -> dict[str, Any]:
        """B items with a caption each: `pooled_text` (B, D), what `encode_items` returns, `logit_scale`, and
        `matcher` for the loss."""
        output = self.encode_items(caps, cmasks, **batch)
        if self.config.model.captions:
            output["pooled_text"] = self.encode_text(caps, cmasks, known_columns("cmasks", batch))
        if self.logit_scale is not None:
            output["logit_scale"] = self.logit_scale
        if self.matcher is not None:
            n = columns_of_ranks(known_columns("cmasks", batch))
            output["matcher"] = self.matcher.bind(
                caps[:, :n], cmasks[:, :n], output.pop("condition"), output.pop("condition_mask")
            )
        return output

    def match(self, caps: Tensor, cmasks: Tensor, condition: Tensor, condition_mask: Tensor) -> Tensor:
        """Probability (n,) that text i (T columns) belongs to item i, whose condition `encode_items`
        returned."""
        assert self.matcher is not None  # or there is no condition
        return self.matcher(caps, cmasks, condition, condition_mask).softmax(1)[:, 1]

    def stream(self, name: str, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features (B, L, ...) and mask (B, L) of a modality, or token ids and mask (B, L) of subtitles."""
        keys = (
            (f"{name}_feats", f"{name}_masks")
            if name in self.stream_names
            else (f"{name}_caps", f"{name}_cmasks")
        )
        lacking = [key for key in keys if key not in batch]
        if lacking:
            raise ValueError(
                f"{type(self).__name__}: the batch has no {', '.join(lacking)}. Set dataset.aligner: "
                "ModalityAligner."
            )
        return batch[keys[0]], batch[keys[1]]

    def reads_as_stored(self, name: str) -> bool:
        """Whether this model reads maps and several versions of a modality."""
        return False

    def _encode(self, name: str, caps: Tensor, cmasks: Tensor, batch: Mapping[str, Tensor]) -> Encoded:
        first, mask = self.stream(name, batch)
        if name not in self.stream_names:
            return self._text(first, mask, known_columns(f"{name}_cmasks", batch))
        n = columns_in_use(mask, known_columns(f"{name}_masks", batch))
        ids, readable, pool = layout.video_segment(caps, cmasks, mask[:, :n])
        return widened(
            Encoded.of(getattr(self, f"{name}_encoder")(ids, first[:, :n], readable), pool), mask.shape[1] - n
        )

    def _text(self, caps: Tensor, cmasks: Tensor, columns: int | None = None) -> Encoded:
        assert self.text_encoder is not None  # or no text is read
        n = columns_in_use(cmasks, columns)
        ids, mask, pool = layout.text_segment(caps[:, :n], cmasks[:, :n])
        return widened(Encoded.of(self.text_encoder(ids, mask), pool), cmasks.shape[1] - n)

    def embed(self, name: str, pooled: Tensor) -> Tensor:
        """Pooled tokens (..., H) of a modality -> unit rows (..., D)."""
        return functional.normalize(self.projections[name](pooled).float(), dim=-1)

    def embed_modality(self, name: str, caps: Tensor, cmasks: Tensor, **batch: Tensor) -> Tensor:
        """Unit rows (B, D) of one modality alone; `caps`, `cmasks` and `batch` as in `encode_items`."""
        return self.embed(name, self._encode(name, caps, cmasks, batch).pooled)

    def _tower(self, name: str) -> nn.Module:
        entry, bert_config = self.config.dataset.modalities[name], copy.deepcopy(self.bert_config)
        bert_config.max_video_len = max(
            entry.get("max_len", 0), self.max_video_len
        )  # fewer frames in a test: [SEP] stays in its place
        if bert_config.max_video_len + layout.SPECIAL > bert_config.max_position_embeddings:
            raise ValueError(
                f"dataset.modalities.{name}.max_len={bert_config.max_video_len}, with {layout.SPECIAL} "
                "special tokens, exceeds the "
                f"{bert_config.max_position_embeddings} positions of {self.config.dataset.bert_name}. "
                f"Use at most {bert_config.max_position_embeddings - layout.SPECIAL}."
            )
        bert_config.input_dim = entry.get("width", VIDEO_WIDTH)
        layers = (self.config.model.modality_layers or {}).get(
            name, self.config.model.num_hidden_video_layers
        )
        bert_config.num_hidden_layers = layers or bert_config.num_hidden_layers
        return build_encoder(MMBertForEncoder, bert_config, self.config)

    def _tower_names(self) -> list[str]:
        return [*self.stream_names, *(["text"] if self.text_encoder is not None else [])]

    def _all_names(self) -> list[str]:
        return ["text", *self.names] if self.config.model.captions else self.names

    def _condition_names(self) -> list[str]:
        names = list(self.config.model.matching_condition or self.names)
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ValueError(
                f"model.matching_condition names {', '.join(unknown)}; dataset.modalities has "
                f"{', '.join(self.names)}."
            )
        return names

    def _start_from(self, path: str) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"model.init_from={path}: no such checkpoint of a two-tower model. Train that one first "
                "(projects/toy/videoclip.yaml on "
                "the synthetic data, projects/retri/videoclip/how2.yaml on HowTo100M), or start from "
                "nothing: --set model.init_from=null."
            )
        state, own = read_state_dict(path), self.state_dict()
        taken = {
            name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape
        }
        for tower in ("video_encoder", "text_encoder"):
            if getattr(self, tower, None) is not None and not any(
                name.startswith(f"{tower}.") for name in taken
            ):
                raise ValueError(
                    f"model.init_from={path}: no {tower} of these sizes in it; expected a checkpoint of "
                    "MMFusionSeparate."
                )
        self.load_state_dict(taken, strict=False)
        common = nn.init.orthogonal_(torch.empty_like(next(iter(self.projections.values())).weight))
        for projection in self.projections.values():
            projection.weight.data.copy_(common)
        logger.info("%s: %d of %d tensors taken over", path, len(taken), len(own))


def columns_in_use(mask: Tensor, known: int | None = None) -> int:
    """Columns of a mask (B, L) up to the last one that any row uses, at least one: what towers read of a
    padded batch.

    Looking at a GPU would make the host wait in the midst of an update. There all columns count, or those
    that are known.

    Args:
        mask: (B, L) bool.
        known: what the data set counted, see `MMDataset.collate`; None: it did not.
    """
    if known is not None:
        return min(known, mask.shape[1])
    if not may_look(mask):
        return mask.shape[1]
    return last_column(mask)


def may_look(x: Tensor) -> bool:
    """Whether the host may read a value in this place: of its own memory, or outside of training."""
    return x.is_cpu or not torch.is_grad_enabled()


def columns_of_ranks(known: int | None) -> int | None:
    """The highest `known_columns` of all ranks, whose rows are then as wide."""
    return None if known is None else largest_of_ranks(known)


def widened(encoded: Encoded, n: int) -> Encoded:
    """With n more columns, empty and masked: batches and processes need the same shape, however long their
    longest row."""
    return encoded._replace(
        outputs=functional.pad(encoded.outputs, (0, 0, 0, n)), mask=functional.pad(encoded.mask, (0, n))
    )


class Condition(nn.Module):
    """Tokens of several modalities as one sequence for cross-attention.

    Linear and LayerNorm per modality plus a type embedding; a learned first token keeps the sequence from
    being empty.
    """

    def __init__(self, names: list[str], hidden: int, std: float):
        super().__init__()
        self.maps = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden, eps=NORM_EPS))
                for name in names
            }
        )
        init_like_bert(self.maps, std)
        self.types = nn.ParameterDict({name: nn.Parameter(std * torch.randn(hidden)) for name in names})
        self.first = nn.Parameter(std * torch.randn(hidden))

    def forward(self, encoded: Mapping[str, Encoded], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """-> tokens (B, 1 + sum of L, H), mask (B, 1 + sum of L)."""
        one = next(iter(encoded.values()))
        tokens = [self.first.to(one.outputs.dtype).expand(len(one.outputs), 1, -1)]
        masks = [torch.ones_like(one.mask[:, :1])]
        for name, layers in self.maps.items():
            tokens.append(layers(encoded[name].outputs) + self.types[name])
            masks.append(encoded[name].mask & present[name][:, None])
        return torch.cat(tokens, dim=1), torch.cat(masks, dim=1)


class TextFusion(nn.Module):
    """The text encoder reading a condition: (caps, cmasks (n, T), condition (n, L, H), its mask (n, L)) ->
    first position (n, H)."""

    def __init__(self, text_encoder: nn.Module):
        super().__init__()
        self._shared = [text_encoder]  # in a list: the weights stay under the model's own name alone

    def forward(self, caps: Tensor, cmasks: Tensor, condition: Tensor, condition_mask: Tensor) -> Tensor:
        n = columns_in_use(cmasks)
        ids, mask, _ = layout.text_segment(caps[:, :n], cmasks[:, :n])
        if may_look(condition_mask):
            used = condition_mask.any(0)
            condition, condition_mask = condition[:, used], condition_mask[:, used]
        hidden = self._shared[0](ids, mask, condition=condition, condition_mask=condition_mask)
        return hidden[:, 0]
