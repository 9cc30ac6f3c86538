"""Towers that give all tokens of what they read, by name, for models that train end to end.

Each has `width` (D of a token), and `summary`: which tokens stand for the whole, `first` or `mean`. Image
towers also have `image_size`.

Shape letters: N images or spectrograms, L tokens of one, D width, S pixels, T frames, M mel filters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmpt.backbones.beats import Beats, BeatsConfig, beats_of_file
from mmpt.backbones.eva_clip import EVA_CLIP, TYPES, EvaVision, eva_config, tower_state
from mmpt.checkpoints.weights import fit_state_dict, read_state_dict
from mmpt.utils.optional import optional_import, pretrained


def token_tower(name: str, weights: str | None = None, **sizes: Any) -> nn.Module:
    """A tower by its name.

    Args:
        name: of EVA-CLIP (`evaclip01_giant`, `EVA02-CLIP-B-16`, ...), `beats`, `image:<hub id or folder>` for
            the image side of a transformers model (CLIP, SigLIP, ViT, ...), or `audio:<hub id or folder>` for
            its Audio Spectrogram Transformer.
        weights: released file of the tower alone; None: random, to be filled by a checkpoint of the whole
            model.
        **sizes: fields of `EvaConfig` or `BeatsConfig` that differ.

    Raises:
        ValueError: unknown name or size.
        FileNotFoundError: no such file.
    """
    kind, _, model = name.partition(":")
    if kind in ("image", "audio") and model:
        if weights or sizes:
            given = ["weights"] * bool(weights) + [*sizes]
            raise ValueError(f"{name}: weights and sizes come with that model; leave out {', '.join(given)}.")
        return TransformersImages(model) if kind == "image" else TransformersSpectrograms(model)
    if name == "beats":
        config = _changed(BeatsConfig(), sizes, name)
        return Beats(config) if weights is None else beats_of_file(weights, **sizes)
    if name not in TYPES and name not in EVA_CLIP:
        known = ", ".join(
            (*TYPES, *EVA_CLIP, "beats", "image:<hub id or folder>", "audio:<hub id or folder>")
        )
        raise ValueError(f"unknown tower {name!r}; known: {known}.")
    tower = EvaVision(_changed(eva_config(name), sizes, name))
    if weights is not None:
        fit_state_dict(tower, tower_state(read_state_dict(weights), tower.config), weights)
    return tower


def _changed(config: Any, sizes: Mapping[str, Any], name: str) -> Any:
    known = [field.name for field in dataclasses.fields(config)]
    unknown = [key for key in sizes if key not in known]
    if unknown:
        raise ValueError(
            f"{name}: unknown {', '.join(unknown)}; sizes that can be changed: {', '.join(known)}."
        )
    return dataclasses.replace(config, **sizes)


class TransformersTokens(nn.Module):
    """A tower of transformers.

    Attributes:
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    summary = "first"

    def __init__(self, name: str):
        super().__init__()
        transformers = optional_import("transformers")
        config = pretrained(transformers.AutoConfig, name)
        side = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}.get(config.model_type, "AutoModel")
        self.tower = getattr(transformers, side).from_pretrained(name)

    @property
    def width(self) -> int:
        """D."""
        return self.tower.config.hidden_size

    @property
    def checkpointing(self) -> bool:
        new, before = "is_activation_checkpointing", "is_gradient_checkpointing"
        return getattr(self.tower, new if hasattr(self.tower, new) else before)

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        keep_activations(self.tower, not on)


def keep_activations(tower: Any, keep: bool) -> None:
    """Does a network of transformers keep the activations of its layers, or compute them again backwards?"""
    name = f"activation_checkpointing_{'disable' if keep else 'enable'}"
    # its name up to transformers 5.20
    switch = getattr(tower, name, None) or getattr(tower, name.replace("activation", "gradient"))
    switch() if keep else switch({"use_reentrant": False})


class TransformersImages(TransformersTokens):
    """Images (N, 3, S, S) -> (N, L, D)."""

    def __init__(self, name: str):
        super().__init__(name)
        self.image_size = self.tower.config.image_size
        if "siglip" in self.tower.config.model_type:
            self.summary = "mean"  # no class token

    def forward(self, pixels: Tensor) -> Tensor:
        return self.tower(pixel_values=pixels).last_hidden_state


class TransformersSpectrograms(TransformersTokens):
    """Log mel energies (N, T, M) -> (N, L, D)."""

    def forward(self, fbank: Tensor) -> Tensor:
        return self.tower(input_values=fbank).last_hidden_state
