"""BERT in torch alone, with the parameter names of published checkpoints. It reads padded or packed batches,
and where asked, in every layer, a condition: the tokens of other modalities.

It is not that of transformers because every process of a training would import that library first, which
takes longer than importing torch. It draws and computes the same numbers.

Shape letters: B texts, L positions, Q positions that read, D width, h heads, d width of a head, n positions
so far (packed: of all texts), R conditions.

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019, arXiv 1810.04805.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mmpt.models.packing import Packing
from mmpt.registry import ENCODERS
from mmpt.utils.files import atomic_write
from mmpt.utils.optional import pretrained_file
from mmpt.utils.text import quoted, read_json

DEFAULT_INPUT_DIM = 512  # of S3D
ACTIVATIONS = {
    "gelu": nn.GELU,
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,  # its name in older files
    "tanh": nn.Tanh,
}


@dataclass
class BertConfig:
    """Sizes of a BERT, as config.json spells them; entries of it that are not here play no part.

    Attributes:
        input_dim: width of the video features that a tower reads.
        max_video_len: video tokens that have positions of their own.
        use_seg_emb: with the segment embedding of VLM checkpoints.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    input_dim: int = DEFAULT_INPUT_DIM
    max_video_len: int = 0
    use_seg_emb: bool = False

    def __post_init__(self):
        sizes = {name: value for name, value in vars(self).items() if type(value) is int}
        for name in sizes.keys() - {"pad_token_id", "max_video_len"}:
            if sizes[name] < 1:
                raise ValueError(f"{name}={sizes[name]}, expected at least 1.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not divided by num_attention_heads="
                f"{self.num_attention_heads}."
            )
        ranges = {  # what torch would refuse without a file's name, or make NaN of
            "pad_token_id": self.vocab_size - 1,
            "max_video_len": float("inf"),
            "hidden_dropout_prob": 1,
            "attention_probs_dropout_prob": 1,
            "initializer_range": float("inf"),
            "layer_norm_eps": float("inf"),
        }
        for name, most in ranges.items():
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name}={value}, expected 0 to {most}.")
        self.activation()

    def activation(self) -> nn.Module:
        """The one between the layers of a feed-forward part."""
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act={self.hidden_act!r}; expected one of {', '.join(ACTIVATIONS)}.")
        return ACTIVATIONS[self.hidden_act]()

    def save(self, folder: str | Path) -> None:
        """Writes config.json, from which transformers builds its BERT too."""
        entries = {"model_type": "bert", "architectures": ["BertModel"], **dataclasses.asdict(self)}
        with atomic_write(Path(folder, "config.json"), "w") as file:
            file.write(json.dumps(entries, indent=2) + "\n")


def read_bert_config(bert_name: str) -> BertConfig:
    """The sizes that the config.json of a folder or of a hub id says.

    Raises:
        FileNotFoundError: neither has one.
        ValueError: names the file and the entry that is no size of a BERT.
    """
    path = pretrained_file(bert_name, ("config.json",), "dataset.bert_name", "config.json and vocab.txt")
    entries = read_json(path, dict)
    for name, only in {"model_type": "bert", "position_embedding_type": "absolute"}.items():
        if entries.get(name) not in (None, only):
            raise ValueError(
                f"{path}: {name} is {quoted(entries[name])}, expected {only}. Name a folder or hub id of "
                "such a BERT in dataset.bert_name."
            )
    known = {field.name: type(field.default) for field in dataclasses.fields(BertConfig)}
    values = {name: value for name, value in entries.items() if name in known and value is not None}
    for name, value in values.items():
        kind = (int, float) if known[name] is float else known[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{path}: {name} is {quoted(value)}, expected {known[name].__name__}.")
    try:
        return BertConfig(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class Memory:
    """Keys and values of the positions read so far, and of the conditions, by layer."""

    def __init__(self):
        self.positions: dict[int, tuple[Tensor, Tensor]] = {}  # (B, h, n, d)
        self.conditions: dict[int, tuple[Tensor, Tensor]] = {}  # (R, h, L, d)

    def __len__(self) -> int:
        """n."""
        return self.positions[0][0].shape[2] if self.positions else 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all positions, the new ones last."""
        if layer in self.positions:
            old_keys, old_values = self.positions[layer]
            keys, values = torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)
        self.positions[layer] = keys, values
        return keys, values

    def keep(self, n: int, rows: Tensor | None = None) -> None:
        """Forget all but the first n positions; `rows` (B) says whose memory each row goes on with."""
        for layer, pair in self.positions.items():
            self.positions[layer] = tuple(x[:, :, :n] if rows is None else x[rows, :, :n] for x in pair)


@dataclass(frozen=True)
class Reading:
    """What the positions of one pass read, in every layer.

    Attributes:
        mask: (B, 1, 1 or Q, L) bool.
        packing: of the rows, which then are (n, D).
        condition: (R, L, D) with R a divisor of B: B / R consecutive texts read each.
        condition_mask: (R, 1, 1, L) bool; None: all tokens are read.
        memory: what was read before these positions.
    """

    mask: Tensor
    packing: Packing | None = None
    condition: Tensor | None = None
    condition_mask: Tensor | None = None
    memory: Memory | None = None


class Sublayer(nn.Module):
    """A linear map, dropout, the sum with what it started from, LayerNorm."""

    def __init__(self, width: int, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, start: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + start)


class Attention(nn.Module):
    """What both attentions share: maps to queries, keys and values, and the sublayer behind them."""

    def __init__(self, config: BertConfig, layer: int):
        super().__init__()
        width = config.hidden_size
        self.layer, self.n_heads = layer, config.num_attention_heads
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.self = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.output = Sublayer(width, config)

    def heads(self, name: str, x: Tensor) -> Tensor:
        """(..., L, D) -> (..., L, h, d)."""
        return self.self[name](x).unflatten(-1, (self.n_heads, -1))

    def mixed(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """(B, h, Q, d), (B, h, L, d) twice -> (B, Q, h, d)."""
        dropout = self.dropout.p if self.training else 0.0
        return functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, dropout_p=dropout
        ).transpose(1, 2)


class SelfAttention(Attention):
    """The positions of a text read one another."""

    def forward(self, x: Tensor, reading: Reading) -> Tensor:
        """(B, Q, D) -> (B, Q, D); packed (n, D) -> (n, D)."""
        packing, memory, mask = reading.packing, reading.memory, reading.mask
        parts = (self.heads(name, x) for name in ("query", "key", "value"))
        if packing is not None:
            parts = (packing.for_attention(part) for part in parts)
        query, keys, values = (part.transpose(1, 2) for part in parts)
        if memory is not None:
            keys, values = memory.extend(self.layer, keys, values)
        mixed = self.mixed(query, keys, values, None if query.is_nested else mask)
        if packing is not None:
            mixed = mixed.values() if mixed.is_nested else packing.pack(mixed)
        return self.output(mixed.flatten(-2), x)


class CrossAttention(Attention):
    """The positions of a text read a condition. Several consecutive texts may read one, whose keys and values
    are then made once."""

    def forward(self, x: Tensor, reading: Reading) -> Tensor:
        """(B, Q, D) -> (B, Q, D)."""
        condition, memory = reading.condition, reading.memory
        assert condition is not None  # else the layer is not called
        known = None if memory is None else memory.conditions.get(self.layer)
        keys, values = known or (self.heads(name, condition).transpose(1, 2) for name in ("key", "value"))
        if memory is not None:
            memory.conditions[self.layer] = keys, values
        rows = x.reshape(len(condition), -1, x.shape[-1])  # (R, B / R * Q, D)
        query = self.heads("query", rows).transpose(1, 2)
        return self.output(self.mixed(query, keys, values, reading.condition_mask).reshape(x.shape), x)


class Layer(nn.Module):
    """Self-attention, cross-attention where there is a condition, feed-forward.

    Attributes:
        crossattention: None until `BertModel.add_cross_attention`.
    """

    def __init__(self, config: BertConfig, number: int):
        super().__init__()
        self.attention = SelfAttention(config, number)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = Sublayer(config.intermediate_size, config)
        self.activation = config.activation()
        self.crossattention: CrossAttention | None = None

    def forward(self, x: Tensor, reading: Reading) -> Tensor:
        x = self.attention(x, reading)
        if reading.condition is not None:
            assert self.crossattention is not None, "BertModel.add_cross_attention was not called"
            x = self.crossattention(x, reading)
        return self.output(self.activation(self.intermediate.dense(x)), x)


class Embeddings(nn.Module):
    """Of a word or a video token, its place and its type."""

    def __init__(self, config: BertConfig):
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: Tensor, positions: Tensor, types: Tensor) -> Tensor:
        """Embedded tokens (..., L, D), places and types (..., L) -> (..., L, D)."""
        x = tokens + self.token_type_embeddings(types) + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(x))


@ENCODERS.register()
class BertModel(nn.Module):
    """BERT; bidirectional unless a mask says otherwise.

    Attributes:
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(self, config: BertConfig, pooler: bool = True):
        super().__init__()
        self.config, self.checkpointing = config, False
        self.embeddings = Embeddings(config)
        layers = [Layer(config, number) for number in range(config.num_hidden_layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        if pooler:  # read by nothing here: published checkpoints hold it
            self.pooler = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.hidden_size)})
        init_like_bert(self, config.initializer_range)

    def forward(
        self,
        ids: Tensor | None,
        mask: Tensor,
        *,
        embeds: Tensor | None = None,
        positions: Tensor | None = None,
        types: Tensor | None = None,
        n_layers: int | None = None,
        packing: Packing | None = None,
        condition: Tensor | None = None,
        condition_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Hidden states.

        Args:
            ids: (B, Q) token ids, where there are no `embeds`.
            mask: (B, L) readable positions, or (B, Q, L) which position reads which, those in `memory` first.
            embeds: (B, Q, D) embedded tokens.
            positions: (B or 1, Q) their places; None: one after the other, behind those in `memory`.
            types: (B or 1, Q) their types; None: all 0.
            n_layers: hidden states after so many layers; None: after the last.
            packing: computes the positions of `mask` (B, L) alone; the others come out as zeros.
            condition: (R, L, D) with R a divisor of B: B / R consecutive texts read each. None: the texts
                alone.
            condition_mask: (R, L) bool; None: all tokens are read.
            memory: what was read before these positions; None: nothing. It is extended.

        Returns:
            (B, Q, D).
        """
        tokens = self.embeddings.word_embeddings(ids) if embeds is None else embeds
        n, length = 0 if memory is None else len(memory), tokens.shape[1]
        if positions is None:
            positions = torch.arange(n, n + length, device=tokens.device)[None]
        if types is None:
            types = positions.new_zeros(1, length)
        types = types.expand(tokens.shape[:2])
        if packing is not None:
            tokens, positions, types = (
                packing.pack(x.expand(*packing.shape, *x.shape[2:])) for x in (tokens, positions, types)
            )
        x = self.embeddings(tokens, positions, types)
        of_condition = None if condition_mask is None else for_heads(condition_mask)
        reading = Reading(for_heads(mask), packing, condition, of_condition, memory)
        for layer in islice(self.encoder.layer, n_layers):  # a slice would build a module in every pass
            again = self.checkpointing and self.training
            x = checkpoint(layer, x, reading, use_reentrant=False) if again else layer(x, reading)
        return x if packing is None else packing.pad(x)

    def add_cross_attention(self) -> None:
        """Give every layer cross-attention, used when a condition is passed."""
        for number, layer in enumerate(self.encoder.layer):
            layer.crossattention = CrossAttention(self.config, number)
            init_like_bert(layer.crossattention, self.config.initializer_range)


def for_heads(mask: Tensor) -> Tensor:
    """A mask (B, L) or (B, Q, L) as attention takes it, (B, 1, Q or 1, L)."""
    return (mask[:, None, None] if mask.dim() == 2 else mask[:, None]).bool()


def init_like_bert(module: nn.Module, std: float) -> None:
    """Linear layers and embeddings ~ N(0, std^2) with zero bias and padding, as in BERT; LayerNorms start at
    1 and 0 already."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Embedding)):
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            with torch.no_grad():
                layer.weight[layer.padding_idx].zero_()
