"""A trained model of N modalities in a few lines: own videos, sounds and texts in one space, and volumes.

Letters: B items, N texts, L positions of a modality (frames, slices, vectors, words), D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.checkpoints.model_folder import find_checkpoint
from mmpt.config import load_config
from mmpt.models.build import build_model
from mmpt.ops.gram import gram_volume
from mmpt.processors.base import MissingData
from mmpt.processors.modalities.modalities import Modality, ModalityAligner, read_modalities, sample_positions
from mmpt.processors.tokens import load_tokenizer
from mmpt.utils.shardedtensor import open_npy

BATCH = 8  # items that pass an encoder at once
Source: TypeAlias = str | Path | np.ndarray  # a file, or features (time, width)


class MMGramModel:
    """Texts, videos, sounds, subtitles and whatever else a model of N modalities was trained on.

    Args:
        fusion: the trained model, of `model_cls` GRAM or MMGram.
        tokenizer: a transformers tokenizer.
        aligner: packs texts as in training.
        modalities: those of `dataset.modalities`.
    """

    def __init__(
        self, fusion: nn.Module, tokenizer: Any, aligner: ModalityAligner, modalities: Sequence[Modality]
    ):
        self.fusion, self.tokenizer, self.aligner = fusion.eval(), tokenizer, aligner
        self.modalities = {modality.name: modality for modality in modalities}

    @classmethod
    def from_pretrained(
        cls, source: str | Path, checkpoint: str | Path | None = None, overrides: Iterable[str] = ()
    ) -> MMGramModel:
        """A model in eval mode.

        Args:
            source: a project YAML with `dataset.modalities`.
            checkpoint: weights file, by path or by name in the run folder of the YAML, also one that GRAM or
                VAST released; None: `fairseq.common_eval.path` of the YAML, else `checkpoint_best.pt`.
            overrides: `section.key=value` texts.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: the YAML is of another kind of model.
        """
        config = load_config(source, overrides)
        if not config.dataset.modalities:
            raise ValueError(f"{source}: no dataset.modalities; models of two sides are loaded by MMPTModel.")
        weights = find_checkpoint(config, checkpoint or config.trainer.path or "checkpoint_best.pt")
        dataset = dataclasses.replace(config.dataset, split="test")
        tokenizer = load_tokenizer(dataset.bert_name, dataset.use_fast)
        fusion = build_model(config, weights)
        return cls(fusion, tokenizer, ModalityAligner(dataset), read_modalities(dataset))

    def to(self, device: str | torch.device) -> MMGramModel:
        """The same, on another device."""
        self.fusion.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.fusion.parameters()).device

    @torch.no_grad()
    def encode_text(self, sentences: str | Sequence[str]) -> Tensor:
        """Unit rows (N, D) of texts."""
        parts = self._packed(sentences, self.aligner.max_text_len)
        return torch.cat([self.fusion.encode_text(*part) for part in parts])

    def encode_video(self, files: Source | Sequence[Source]) -> Tensor:
        """Unit rows (B, D) of sights; see `encode`."""
        return self.encode(self._named("v"), files)

    def encode_audio(self, files: Source | Sequence[Source]) -> Tensor:
        """Unit rows (B, D) of sounds, of audio files or the tracks of videos; see `encode`."""
        return self.encode(self._named("a"), files)

    def encode_subtitle(self, sentences: str | Sequence[str]) -> Tensor:
        """Unit rows (B, D) of what is said."""
        return self.encode(self._named("s"), sentences)

    @torch.no_grad()
    def encode(self, name: str, items: Source | Sequence[Source]) -> Tensor:
        """Unit rows (B, D) of one modality of items.

        Args:
            name: as in `dataset.modalities`.
            items: of a modality with `raw`, files (videos, folders of pictures, pictures, sounds, `.npy`); of
                one with features, arrays (time, width) or `.npy` files of them; of texts, sentences.

        Raises:
            ValueError: no such modality, no items, or a file that cannot be read.
        """
        if name not in self.modalities:
            raise ValueError(f"no modality {name!r}; the model has {', '.join(self.modalities)}.")
        modality = self.modalities[name]
        items = [items] if isinstance(items, (str, Path, np.ndarray)) else list(items)
        if not items:
            raise ValueError(f"{name}: no items to encode.")
        rows = [
            self.fusion.embed_modality(name, *self._heads(len(first)), **batch)
            for first, batch in self._batches(modality, items)
        ]
        return torch.cat(rows)

    @staticmethod
    def similarity(texts: Tensor, others: Tensor) -> Tensor:
        """Cosines (N, B) of unit rows: high = close."""
        return texts @ others.T

    @staticmethod
    def volume(anchor: Tensor, *modalities: Tensor, mask: Tensor | None = None) -> Tensor:
        """Volumes (N, B) that each anchor spans with each item: small = close.

        Args:
            anchor: (N, D), usually texts.
            modalities: K tensors (B, D), row i of all is item i.
            mask: (B, K) bool, false where an item lacks a modality; None: all there.
        """
        return gram_volume(anchor, modalities, mask)

    def _named(self, letter: str) -> str:
        found = [name for name in self.modalities if name.startswith(letter)]
        if len(found) != 1:
            have = ", ".join(self.modalities)
            raise ValueError(
                f"{len(found)} modalities start with {letter!r} ({have}); use encode(NAME, ...)."
            )
        return found[0]

    def _heads(self, n: int) -> tuple[Tensor, Tensor]:
        """[CLS] [SEP] of n items, which models of features read beside them."""
        special = self.aligner.special
        ids = torch.tensor([[special.cls, special.sep]], device=self.device).expand(n, 2)
        return ids, torch.ones_like(ids, dtype=torch.bool)

    def _packed(self, sentences: str | Sequence[str], columns: int) -> Iterator[tuple[Tensor, Tensor]]:
        sentences = [sentences] if isinstance(sentences, str) else list(sentences)
        if not sentences:
            raise ValueError("no sentences to encode.")
        for start in range(0, len(sentences), BATCH):
            ids = self.tokenizer(sentences[start : start + BATCH], add_special_tokens=False)["input_ids"]
            caps, cmasks = self.aligner._packed(ids, columns)
            yield caps.to(self.device), cmasks.to(self.device)

    def _batches(
        self, modality: Modality, items: Sequence[Any]
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """What the model reads of a few items at a time, and its first tensor."""
        name = modality.name
        if modality.is_text:
            for caps, cmasks in self._packed(items, modality.max_len):
                yield caps, {f"{name}_caps": caps, f"{name}_cmasks": cmasks}
            return
        for start in range(0, len(items), BATCH):
            arrays = [torch.from_numpy(_read(modality, item)) for item in items[start : start + BATCH]]
            feats = torch.zeros(len(arrays), modality.max_len, *modality.shape)
            for row, array in zip(feats, arrays, strict=True):
                row[: len(array)] = array
            lengths = torch.tensor([len(array) for array in arrays])
            masks = torch.arange(modality.max_len) < lengths[:, None]
            feats, masks = feats.to(self.device), masks.to(self.device)
            yield feats, {f"{name}_feats": feats, f"{name}_masks": masks}


def _read(modality: Modality, item: Source) -> np.ndarray:
    """(<= L, ...) float32 of one item, as in a test."""
    if modality.raw is not None:
        if isinstance(item, np.ndarray):
            raise ValueError(f"{modality.name}: expected a file, got an array {item.shape}.")
        path = Path(item)
        if not path.exists():
            raise ValueError(f"{modality.name}: {path}: no such file.")
        stream = dataclasses.replace(modality, path=str(path.parent)).files()
        if path.name not in stream:
            raise ValueError(f"{modality.name}: {path}: expected a file of {modality.raw}.")
        try:
            return stream.read(path.name, None, modality.max_len, None)
        except MissingData as error:
            raise ValueError(str(error)) from error
    features = np.asarray(item if isinstance(item, np.ndarray) else open_npy(Path(item), "r"))
    if features.shape[1:] != modality.shape or not len(features):
        expected = ", ".join(map(str, ("time", *modality.shape)))
        raise ValueError(f"{modality.name}: expected features ({expected}), got {features.shape}.")
    return np.asarray(
        features[sample_positions(len(features), modality.max_len, "chunk_middle")], dtype=np.float32
    )
