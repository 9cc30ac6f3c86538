"""Small encoders of `MMFusionSeparate`: weighted bags of word pieces and linear maps of seconds. They start
from nothing, train in a minute on a CPU, and show what a transformer has to add.

    model:
      model_cls: MMFusionSeparate
      similarity: cosine
      video_encoder_cls: LinearVideo
      text_encoder_cls: ContextWords

Shape letters: B clips, F seconds, T caption columns, D width (`model.embed_dim`), C vocabulary, n words of
the batch, K senses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.config.fields import Section, option
from mmpt.models.mmfusion import Encoded
from mmpt.modules.layers import check_width
from mmpt.registry import ENCODERS

INIT_STD = 0.02
HEADS = 4


@dataclass(frozen=True, kw_only=True)
class SmallConfig(Section):
    """Width of both towers."""

    embed_dim: int = option(512, "width of small encoders", least=1)


class SmallEncoder(nn.Module):
    """One modality -> `Encoded`. The positions of special tokens stand in `outputs` as zeros and are in no
    mask.

    Args:
        config: the `model:` section.
        bert: `vocab_size`, `max_position_embeddings` and the width `input_dim` of features are read.
    """

    Config = SmallConfig
    order_sensitive = False

    def __init__(self, config: Any, bert: Any):
        super().__init__()
        self.width: int = config.embed_dim


# Words ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WordsConfig(SmallConfig):
    """Which word pieces count, and how much."""

    min_count: int = option(1, "word pieces in fewer training captions count as absent", least=0)
    idf: bool = option(False, "weigh word pieces by log(captions / captions that have them)")


@ENCODERS.register()
class BagOfWords(SmallEncoder):
    """One vector for each word piece, whatever stands beside it; a caption is their mean."""

    Config = WordsConfig

    def __init__(self, config: Any, bert: Any):
        super().__init__(config, bert)
        self.min_count, self.idf = config.min_count, config.idf
        self.words = self.table(bert.vocab_size, self.width)
        # what training captions say about each piece; part of the checkpoint
        self.register_buffer("importance", torch.ones(bert.vocab_size))
        self._seen, self._captions = torch.zeros(bert.vocab_size), 0

    @staticmethod
    def table(rows: int, width: int) -> nn.Embedding:
        embedding = nn.Embedding(rows, width)
        nn.init.normal_(embedding.weight, std=INIT_STD)
        return embedding

    def observe(self, caps: Tensor, cmasks: Tensor, **batch: Any) -> None:
        """Count the captions that have each word piece."""
        if self.min_count <= 1 and not self.idf:
            return
        rows, columns = word_positions(cmasks)
        pairs = torch.stack([rows, caps[rows, columns]]).unique(dim=1)
        self._seen += torch.bincount(pairs[1], minlength=len(self._seen))
        self._captions += len(caps)

    def settle(self) -> None:
        """Fix the weights of word pieces from what was observed."""
        if not self._captions:
            return
        weight = (self._captions / self._seen.clamp(min=1)).log() if self.idf else torch.ones_like(self._seen)
        self.importance.copy_(weight * (self._seen >= self.min_count))

    def encode(self, caps: Tensor, cmasks: Tensor, tokens: bool = True) -> Encoded:
        """Captions `[CLS] [SEP] words [SEP] [PAD] ..`.

        Args:
            caps: (B, T) token ids.
            cmasks: (B, T) true on tokens.
            tokens: also give every word's vector; False: `outputs` and `mask` have no positions.

        Returns:
            pooled (B, D), outputs (B, T - 1, D), mask (B, T - 1); a caption without words is 0.
        """
        at = word_positions(cmasks)
        counts = torch.bincount(at[0], minlength=len(caps))
        if not tokens:
            return without_tokens(self.summed(caps, cmasks, at, counts) / counts.clamp(min=1)[:, None])
        vectors = self.vectors(caps, cmasks, at) * self.importance[caps[at]][:, None]
        pooled = vectors.new_zeros(len(caps), self.width).index_add(0, at[0], vectors)
        pooled = pooled / counts.clamp(min=1)[:, None]
        rows, columns = at[0], at[1] - 1  # the video's [SEP] is left out
        mask = torch.zeros_like(cmasks[:, 1:]).index_put((rows, columns), at[0] >= 0)
        outputs = vectors.new_zeros(*mask.shape, self.width).index_put((rows, columns), vectors)
        return Encoded(pooled, outputs, mask)

    def vectors(self, caps: Tensor, cmasks: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        """(n, D), of the words at these rows and columns of `caps`."""
        return self.words(caps[at])

    def summed(self, caps: Tensor, cmasks: Tensor, at: tuple[Tensor, Tensor], counts: Tensor) -> Tensor:
        """(B, D) sums of the words of each caption, of which there are `counts` (B,)."""
        vectors = self.vectors(caps, cmasks, at) * self.importance[caps[at]][:, None]
        return vectors.new_zeros(len(caps), self.width).index_add(0, at[0], vectors)


@ENCODERS.register()
class ContextWords(BagOfWords):
    """Several vectors for each word piece, its senses; a convolution over its neighbours mixes them.

    "Rice" in "milk with some rice" and in "rice with milk" plays two parts that a bag cannot tell apart. The
    gate knows words by a narrow vector of their own, so that what it learns of "with some" holds for any word
    there.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(WordsConfig):
        """Senses, and what is read to tell them."""

        senses: int = option(3, "vectors of each word piece", symbol="K", least=1)
        context_dim: int = option(64, "width of the convolution that tells the senses", least=1)
        context_words: int = option(7, "word pieces that it reads at once, an odd number", least=1)

    order_sensitive = True

    def __init__(self, config: Any, bert: Any):
        super().__init__(config, bert)
        if not config.context_words % 2:
            raise ValueError(
                f"model.context_words={config.context_words} has no middle; use {config.context_words + 1}."
            )
        width, self.senses = config.context_dim, config.senses
        self.words = self.table(bert.vocab_size, self.senses * self.width)
        self.context = nn.Embedding(bert.vocab_size, width)
        nn.init.normal_(self.context.weight, std=0.1)
        self.neighbours = nn.Conv1d(width, width, config.context_words, padding=config.context_words // 2)
        self.sense = nn.Linear(width, self.senses)

    def gates(self, caps: Tensor, cmasks: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        """(n, K) shares of the senses."""
        is_word = torch.zeros_like(cmasks).index_put(at, at[0] >= 0)
        last = int(at[1].max()) + 1 if len(at[1]) else 1
        context = self.context(caps[:, :last]) * is_word[:, :last, None]
        read = F.gelu(self.neighbours(context.mT)).mT  # (B, last, width)
        return self.sense(read[at]).softmax(-1)

    def vectors(self, caps: Tensor, cmasks: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        senses = self.words(caps[at]).unflatten(-1, (self.senses, self.width))
        return (self.gates(caps, cmasks, at)[..., None] * senses).sum(1)

    def summed(self, caps: Tensor, cmasks: Tensor, at: tuple[Tensor, Tensor], counts: Tensor) -> Tensor:
        # as a bag of (word piece, sense): the vectors of single words are never formed
        weights = self.gates(caps, cmasks, at) * self.importance[caps[at]][:, None]
        entries = caps[at][:, None] * self.senses + torch.arange(self.senses, device=caps.device)
        starts = (counts.cumsum(0) - counts) * self.senses
        table = self.words.weight.view(-1, self.width)
        return F.embedding_bag(
            entries.flatten(), table, starts, mode="sum", per_sample_weights=weights.flatten()
        )


@ENCODERS.register()
class AttentionWords(BagOfWords):
    """A bag whose words have read each other and their places in one layer of self-attention."""

    order_sensitive = True

    def __init__(self, config: Any, bert: Any):
        super().__init__(config, bert)
        self.places = self.table(bert.max_position_embeddings, self.width)
        self.layer = attention_layer(self.width)

    def vectors(self, caps: Tensor, cmasks: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        is_word = torch.zeros_like(cmasks).index_put(at, at[0] >= 0)
        hidden = self.words(caps) + self.places.weight[: caps.shape[1]]
        return attend(self.layer, hidden, is_word)[at]


def word_positions(cmasks: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (n,) of the words of captions `[CLS] [SEP] words [SEP] [PAD] ..`, cmasks (B, T)."""
    columns = torch.arange(cmasks.shape[1], device=cmasks.device)
    last = (cmasks * columns).amax(1, keepdim=True)  # the final [SEP]
    rows, found = (cmasks & (columns >= 2) & (columns < last)).nonzero(as_tuple=True)
    return rows, found


# Video ------------------------------------------------------------------------------------------------------


@ENCODERS.register()
class LinearVideo(SmallEncoder):
    """One linear map of every second; a clip is the mean of its seconds."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SmallConfig):
        """How seconds become a clip."""

        video_pool: str = option(
            "mean",
            "mean of the seconds, or attention: a learned vector says how much each counts",
            one_of=("mean", "attention"),
        )

    def __init__(self, config: Any, bert: Any):
        super().__init__(config, bert)
        self.linear = nn.Linear(bert.input_dim, self.width, bias=False)
        nn.init.eye_(self.linear.weight)  # untrained, it compares the features themselves
        self.query = nn.Parameter(torch.zeros(bert.input_dim)) if config.video_pool == "attention" else None

    def encode(self, vfeats: Tensor, vmasks: Tensor, tokens: bool = True) -> Encoded:
        """Seconds (B, F, features) with mask (B, F) -> pooled (B, D), outputs (B, F + 2, D), mask (B, F +
        2)."""
        check_width(vfeats, self.linear.in_features)
        weights = vmasks.to(vfeats.dtype)
        if self.query is not None:
            scores = (vfeats @ self.query).masked_fill(~vmasks, torch.finfo(vfeats.dtype).min)
            weights = weights * scores.softmax(1)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        # the map of the mean is the mean of the maps, and F times cheaper
        pooled = self.linear(torch.bmm(weights[:, None], vfeats)[:, 0])
        if not tokens:
            return without_tokens(pooled)
        outputs = F.pad(self.linear(vfeats) * vmasks[..., None], (0, 0, 1, 1))
        return Encoded(pooled, outputs, F.pad(vmasks, (1, 1)))


@ENCODERS.register()
class AttentionVideo(SmallEncoder):
    """`LinearVideo` whose seconds have read each other and their places in one layer of self-attention."""

    order_sensitive = True

    def __init__(self, config: Any, bert: Any):
        super().__init__(config, bert)
        self.linear = nn.Linear(bert.input_dim, self.width, bias=False)
        self.places = nn.Embedding(bert.max_position_embeddings, self.width)
        nn.init.normal_(self.places.weight, std=INIT_STD)
        self.layer = attention_layer(self.width)

    def encode(self, vfeats: Tensor, vmasks: Tensor, tokens: bool = True) -> Encoded:
        """Seconds (B, F, features) with mask (B, F) -> pooled (B, D), outputs (B, F + 2, D), mask (B, F +
        2)."""
        check_width(vfeats, self.linear.in_features)
        hidden = self.linear(vfeats) + self.places.weight[: vfeats.shape[1]]
        hidden = attend(self.layer, hidden, vmasks) * vmasks[..., None]
        return Encoded.of(F.pad(hidden, (0, 0, 1, 1)), F.pad(vmasks, (1, 1)))


def attention_layer(width: int) -> nn.TransformerEncoderLayer:
    """One layer, normalised before its parts, so that it starts near the identity."""
    heads = HEADS if not width % HEADS else 1
    return nn.TransformerEncoderLayer(
        width, heads, width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


def attend(layer: nn.TransformerEncoderLayer, hidden: Tensor, mask: Tensor) -> Tensor:
    """Hidden states (B, L, D) after the layer; positions outside mask (B, L) are not read. Rows without any
    stay finite."""
    unread = ~mask
    unread = unread & ~unread.all(1, keepdim=True)
    return layer(hidden, src_key_padding_mask=unread)


def without_tokens(pooled: Tensor) -> Encoded:
    """A pooled vector alone, for losses that read nothing else."""
    none = pooled.new_zeros(len(pooled), 0)
    return Encoded(pooled, none[..., None].expand(-1, -1, pooled.shape[1]), none.bool())
