"""BERT that reads a text alone or together with other modalities, and writes: GRAM's and VAST's multimodal
encoder.

Self-attention looks both ways unless a mask says otherwise. Cross-attention to a condition (the tokens of
other modalities) stands behind it in every layer and is skipped where there is none.

Shape letters: B texts, S positions, R conditions, L tokens of a condition, H width, C vocabulary, n tokens so
far, h heads, d width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.models.bert import BertConfig, BertModel, Memory
from mmpt.models.transformermodel import PredictionHead


class MultimodalBert(nn.Module):
    """BERT with its prediction head, under the names of the common masked-LM class."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.bert = BertModel(config, pooler=False)
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
        """Hidden states (B, S, H) of token ids (B, S); the others as for `BertModel`."""
        return self.bert(ids, mask, condition=condition, condition_mask=condition_mask, memory=memory)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., H) -> scores of words (..., C)."""
        head = self.cls["predictions"]
        return head.decoder(head.transform(hidden))


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
