"""BERT that reads a text alone or together with other modalities, and writes: GRAM's and VAST's multimodal
encoder.

Self-attention looks both ways unless a mask says otherwise. Cross-attention to a condition (the tokens of
other modalities) stands behind it in every layer and is skipped where there is none.

Shape letters: B texts, S positions, R conditions, L tokens of a condition, H width, C vocabulary, n tokens so
far, h heads, d width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel
from transformers.models.bert.modeling_bert import BertAttention

from mmpt.models.transformermodel import PredictionHead, for_heads, init_like_bert


class MultimodalBert(nn.Module):
    """BERT with its prediction head, under the names of the common masked-LM class; see
    `add_cross_attention`.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)
        words = self.bert.embeddings.word_embeddings.weight
        self.cls = nn.ModuleDict({"predictions": PredictionHead(config, words, bias=True)})

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        condition: Tensor | None = None,
        condition_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Hidden states (B, S, H).

        Args:
            ids: (B, S) token ids.
            mask: (B, S) readable positions, or (B, S, n + S) bool: which position reads which, those in
                `memory` first.
            condition: (R, L, H) with R a divisor of B: B / R consecutive texts read each. None: the texts
                alone.
            condition_mask: (R, L) bool; None: all tokens are read.
            memory: what was read before these positions; None: nothing. It is extended.
        """
        return self.bert(
            input_ids=ids,
            attention_mask=for_heads(mask),
            encoder_hidden_states=condition,
            encoder_attention_mask=None if condition_mask is None else for_heads(condition_mask),
            past_key_values=memory,
        ).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., H) -> scores of words (..., C)."""
        head = self.cls["predictions"]
        return head.decoder(head.transform(hidden))


class SharedCrossAttention(BertAttention):
    """Cross-attention of BERT in which several consecutive rows may read one condition, whose keys and values
    are then made once.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Memory | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Rows (B, S, H) that read conditions (R, L, H) -> (B, S, H), in the signature of transformers."""
        assert encoder_hidden_states is not None  # else the layer is not called
        inner = self.self
        rows = hidden_states.reshape(
            len(encoder_hidden_states), -1, hidden_states.shape[-1]
        )  # (R, B / R * S, H)

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (inner.num_attention_heads, -1)).transpose(1, 2)

        known = None if past_key_values is None else past_key_values.conditions.get(inner.layer_idx)
        keys, values = known or (
            heads(inner.key(encoder_hidden_states)),
            heads(inner.value(encoder_hidden_states)),
        )  # (R, h, L, d)
        if past_key_values is not None:
            past_key_values.conditions[inner.layer_idx] = keys, values
        mask = (
            None if encoder_attention_mask is None else encoder_attention_mask[:, :, :1]
        )  # the same for all rows
        dropout = inner.dropout.p if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(
            heads(inner.query(rows)), keys, values, attn_mask=mask, dropout_p=dropout
        )
        return self.output(mixed.transpose(1, 2).reshape(hidden_states.shape), hidden_states), None


def add_cross_attention(bert: BertModel) -> None:
    """Give every layer of a bidirectional BERT cross-attention, used when a condition is passed.

    (BertConfig.is_decoder would add it too, and make self-attention causal.)
    """
    for number, layer in enumerate(bert.encoder.layer):
        layer.crossattention = SharedCrossAttention(bert.config, layer_idx=number, is_cross_attention=True)
        init_like_bert(layer.crossattention, bert.config.initializer_range)
        layer.is_decoder = layer.add_cross_attention = True


class Memory:
    """Keys and values of the positions read so far, and of the conditions, by layer; what transformers calls
    past key values.
    """

    def __init__(self):
        self.positions: dict[int, tuple[Tensor, Tensor]] = {}  # (B, h, n, d)
        self.conditions: dict[int, tuple[Tensor, Tensor]] = {}  # (R, h, L, d)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """n."""
        return self.positions[layer_idx][0].shape[2] if layer_idx in self.positions else 0

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of all positions, the new ones last."""
        if layer_idx in self.positions:
            keys, values = (
                torch.cat([old, new], dim=2)
                for old, new in zip(self.positions[layer_idx], (keys, values), strict=True)
            )
        self.positions[layer_idx] = keys, values
        return keys, values

    def keep(self, n: int, rows: Tensor | None = None) -> None:
        """Forget all but the first n positions; `rows` (B) says whose memory each row goes on with."""
        for layer, pair in self.positions.items():
            self.positions[layer] = tuple(x[:, :, :n] if rows is None else x[rows, :, :n] for x in pair)


class Writer:
    """Scores the next token of texts being written, as `mmpt.models.generation` asks for it.

    The next token is what the model predicts in the place of a [MASK] behind the text, which reads what the
    last position reads, and itself. What earlier tokens are made of does not depend on it: each step reads
    two positions only, and the condition once.

    Args:
        encoder: has cross-attention.
        visible: (R, n, n) bool, which position of the prompts reads which; later positions read what the last
            one reads, and one another.
        condition: (R, L, H) what the texts are about; all rows of a text read the same.
        mask_id: of [MASK].
        condition_mask: (R, L) bool; None: all tokens are read.
    """

    def __init__(
        self,
        encoder: MultimodalBert,
        visible: Tensor,
        condition: Tensor,
        mask_id: int,
        condition_mask: Tensor | None = None,
    ):
        self.encoder, self.visible, self.mask_id = encoder, visible.bool(), mask_id
        self.condition, self.condition_mask = condition, condition_mask
        self._memory = Memory()
        self._ids: Tensor | None = None  # of the step before

    def __call__(self, ids: Tensor) -> Tensor:
        """Token ids (B, n), B / R rows for each text, each call one token longer -> logits (B, C) of the next
        token.
        """
        texts, n = ids.shape
        copies, n_prompt = texts // len(self.visible), self.visible.shape[1]
        visible = self.visible.repeat_interleave(copies, dim=0)
        if self._ids is not None and n > n_prompt:
            self._memory.keep(n - 1, self._origins(ids, self._ids))
            written = visible.new_ones(texts, 1, n - n_prompt)
            visible = torch.cat([visible[:, -1:], written], dim=2)  # (B, 1, n)
        last = functional.pad(visible[:, -1:], (0, 1), value=True)  # of [MASK]
        mask = torch.cat([functional.pad(visible, (0, 1), value=False), last], dim=1)
        new = torch.cat([ids, ids.new_full((texts, 1), self.mask_id)], dim=1)[:, -mask.shape[1] :]
        hidden = self.encoder(new, mask, self.condition, self.condition_mask, self._memory)
        self._memory.keep(n)
        self._ids = ids
        return self.encoder.logits(hidden[:, -1])

    def _origins(self, ids: Tensor, last: Tensor) -> Tensor:
        """(B,) for each row one of the last step, of the same text, that it begins with: such rows have the
        same memory.
        """
        copies = len(ids) // len(self.visible)
        now, before = (x.unflatten(0, (-1, copies)) for x in (ids[:, :-1], last))  # (R, B / R, n - 1)
        same = (now[:, :, None] == before[:, None]).all(-1)  # (R, now, before)
        first = same.byte().argmax(-1) + copies * torch.arange(len(same), device=ids.device)[:, None]
        return first.flatten()
