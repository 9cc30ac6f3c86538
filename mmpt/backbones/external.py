"""Image and audio towers of other libraries as feature networks.

Letters: n clips, FPS images per clip of S x S pixels, A samples of a waveform, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.utils import optional_import

CLIP_MEAN, CLIP_STD = (
    [0.48145466, 0.4578275, 0.40821073],
    [0.26862954, 0.26130258, 0.27577711],
)  # of all published CLIP models
INT16_RANGE = 32768


class ImageTower(nn.Module):
    """A clip's vector: the mean of the unit vectors of its images.

    Args:
        tower: owns the weights.
        encode: images (N, 3, S, S) -> (N, D).
    """

    def __init__(self, tower: nn.Module, encode: Callable[[Tensor], Tensor]):
        super().__init__()
        self.tower, self.encode = tower, encode

    def forward(self, clips: Tensor) -> Tensor:
        """(n, 3, FPS, S, S) -> (n, D)."""
        n, _, fps = clips.shape[:3]
        vectors = functional.normalize(self.encode(clips.transpose(1, 2).flatten(0, 1)), dim=-1)
        return vectors.unflatten(0, (n, fps)).mean(dim=1)


class ImageReader(NamedTuple):
    """An image tower, and the pixels, mean and deviation (per colour) of what it reads."""

    network: ImageTower
    size: int
    mean: list[float]
    std: list[float]


def transformers_image_tower(name: str) -> ImageReader:
    """The image side of a transformers model: CLIP, SigLIP, DINOv2, ViT, ...

    Args:
        name: hub id or folder.

    Raises:
        ValueError: the folder does not say how images are scaled.
    """
    transformers = optional_import("transformers", extra="text")
    config = transformers.AutoConfig.from_pretrained(name)
    is_clip = config.model_type in ("clip", "clip_vision_model")
    loader = transformers.CLIPVisionModelWithProjection if is_clip else transformers.AutoModel
    model = loader.from_pretrained(name)
    size = getattr(config, "vision_config", config).image_size
    try:
        scaling = transformers.image_processing_base.ImageProcessingMixin.get_image_processor_dict(name)[0]
    except OSError as error:
        if not is_clip:
            raise ValueError(
                f"{name}: no preprocessor_config.json, which says mean and deviation of the images. Put "
                "it there."
            ) from error
        scaling = {}
    mean, std = scaling.get("image_mean", CLIP_MEAN), scaling.get("image_std", CLIP_STD)
    return ImageReader(ImageTower(model, lambda images: _image_vectors(model, images)), size, mean, std)


def open_clip_image_tower(name: str) -> ImageReader:
    """The image side of an OpenCLIP model.

    Args:
        name: "<architecture>/<tag or file of the weights>", such as "ViT-B-32/laion2b_s34b_b79k".
    """
    architecture, _, weights = name.partition("/")
    open_clip = optional_import("open_clip", extra="open_clip")
    if not weights:
        raise ValueError(
            f"open_clip:{name}: say which weights, open_clip:<architecture>/<tag or file>; without, they "
            "would be random."
        )
    model = open_clip.create_model(architecture, pretrained=weights)
    scaling = open_clip.get_model_preprocess_cfg(model)
    size = scaling["size"] if isinstance(scaling["size"], int) else scaling["size"][0]
    return ImageReader(
        ImageTower(model, model.encode_image), size, list(scaling["mean"]), list(scaling["std"])
    )


def _image_vectors(model: nn.Module, images: Tensor) -> Tensor:
    """What the model offers that comes closest to one vector per image."""
    output: Any = (
        model.get_image_features(pixel_values=images)
        if hasattr(model, "get_image_features")
        else model(pixel_values=images)
    )
    if isinstance(output, Tensor):
        return output
    for key in ("image_embeds", "pooler_output"):
        if output.get(key) is not None:
            return output[key]
    return output["last_hidden_state"][:, 0]


class AudioReader(NamedTuple):
    """An audio tower, its samples per second, and waveforms (n, A) int16 -> what it reads."""

    network: Callable[[Tensor], Tensor]
    sample_rate: int
    prepare: Callable[[np.ndarray], np.ndarray]


class AudioTower(nn.Module):
    """One vector per spectrogram, of an AST, CLAP or similar model."""

    def __init__(self, tower: nn.Module, takes_features: bool):
        super().__init__()
        self.tower, self.takes_features = tower, takes_features

    def forward(self, spectrograms: Tensor) -> Tensor:
        if self.takes_features:  # CLAP; no window is longer than what it reads
            is_longer = torch.zeros(len(spectrograms), 1, dtype=torch.bool, device=spectrograms.device)
            return self.tower(input_features=spectrograms, is_longer=is_longer).audio_embeds
        return self.tower(input_values=spectrograms).pooler_output


def transformers_audio_tower(name: str) -> AudioReader:
    """The audio side of a transformers model: AST or CLAP.

    Args:
        name: hub id or folder, with its preprocessor_config.json.
    """
    transformers = optional_import("transformers", extra="text")
    is_clap = transformers.AutoConfig.from_pretrained(name).model_type in ("clap", "clap_audio_model")
    loader = transformers.ClapAudioModelWithProjection if is_clap else transformers.AutoModel
    tower = AudioTower(loader.from_pretrained(name), is_clap)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(name)

    def prepare(waves: np.ndarray) -> np.ndarray:
        scaled = [wave.astype(np.float32) / INT16_RANGE for wave in waves]
        return np.asarray(
            extractor(scaled, sampling_rate=extractor.sampling_rate, return_tensors="np")[
                extractor.model_input_names[0]
            ]
        )

    return AudioReader(tower, extractor.sampling_rate, prepare)
