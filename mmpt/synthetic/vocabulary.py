"""A WordPiece vocabulary by a stated rule, and a folder that transformers loads as a small BERT.

Rule: special tokens; every letter and digit, sorted; the same as continuations (`##a`); words seen at least
    twice, most frequent first,
equal counts in alphabetical order. Trainers of tokenizer libraries break ties at random, and other ids make
another model: two runs of one seed would differ by several points.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mmpt.synthetic.parts import DIM

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
POSITIONS = 64


def build_vocabulary(texts: Iterable[str]) -> list[str]:
    """Entries in the order of their ids, from lower-case texts without punctuation."""
    counts = Counter(word for text in texts for word in text.split())
    characters = sorted(
        {*string.ascii_lowercase, *string.digits, *(character for word in counts for character in word)}
    )
    words = [word for word, count in counts.items() if count >= 2 and len(word) > 1]
    return [
        *SPECIALS,
        *characters,
        *(f"##{character}" for character in characters),
        *sorted(words, key=lambda word: (-counts[word], word)),
    ]


class WordPiece:
    """Text -> ids as BERT's tokenizer does it, for the plain lower-case texts of the synthetic world.

    Args:
        vocabulary: entries in the order of their ids.
    """

    def __init__(self, vocabulary: Iterable[str]):
        self.ids = {entry: i for i, entry in enumerate(vocabulary)}
        self._words: dict[str, list[int]] = {}

    @classmethod
    def load(cls, folder: str | Path) -> WordPiece:
        """From a model folder's vocab.txt."""
        return cls((Path(folder) / "vocab.txt").read_text(encoding="utf-8").splitlines())

    def __len__(self) -> int:
        return len(self.ids)

    def __call__(self, text: str) -> list[int]:
        """Ids without special tokens."""
        ids: list[int] = []
        for word in text.split():
            if word not in self._words:
                self._words[word] = self._split(word)
            ids += self._words[word]
        return ids

    def _split(self, word: str) -> list[int]:
        """Longest known piece first; [UNK] for the whole word if some part of it is unknown."""
        ids, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.ids:
                    break
            else:
                return [self.ids["[UNK]"]]
            ids.append(self.ids[piece])
            start = end
        return ids


def write_model_folder(folder: Path, vocabulary: list[str], dropout: float) -> None:
    """config.json, vocab.txt and tokenizer_config.json: what `dataset.bert_name` points to. There are no
    weights.

    Args:
        folder: created.
        vocabulary: entries in the order of their ids.
        dropout: of hidden states and attention.
    """
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": SPECIALS.index("[PAD]"),
        "input_dim": DIM,  # of the video features
    }
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": POSITIONS}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=1) + "\n", encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
