"""Networks that turn clips into features, by name: what each reads, and the passport of what it writes.

Letters: n clips, FPS frames per clip of S x S pixels, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.models.audio import AudioResNet
from mmpt.models.checkpoint import read_state_dict
from mmpt.models.r2plus1d import R2Plus1D
from mmpt.models.s3dg import S3D
from mmpt.utils import optional_import
from mmpt.utils.audio import spectrogram

KINETICS_MEAN, KINETICS_STD = 0.45, 0.225
AUDIO_RATE = 24000


@dataclass
class Backbone:
    """A network and how it is fed.

    Attributes:
        network: clips -> (n, D).
        passport: what the features are.
        fps: frames per second it reads (video).
        size: pixels of their side (video).
    """

    network: Callable[[Tensor], Tensor]
    passport: dict[str, Any] = field(default_factory=dict)
    fps: int = 0
    size: int = 0


class VideoFeatures(nn.Module):
    """uint8 frames (n, FPS, S, S, 3) -> features.

    Args:
        network: clips (n, 3, FPS, S, S) -> (n, D).
        mean, std: subtracted from and divided out of frames in [0, 1], one number or one per colour.
        normalise: scale features to unit length.
        reverse: run the frames of each clip backwards.
    """

    def __init__(self, network: nn.Module, mean: Any = 0.0, std: Any = 1.0, normalise: bool = True, reverse: bool = False):
        super().__init__()
        self.network, self.normalise, self.reverse = network, normalise, reverse
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    @torch.inference_mode()
    def forward(self, frames: Tensor) -> Tensor:
        frames = frames.to(self.mean.device)
        frames = frames.flip(1) if self.reverse else frames
        clips = ((frames / 255 - self.mean) / self.std).permute(0, 4, 1, 2, 3)
        features = self.network(clips)
        features = features["video_embedding"] if isinstance(features, dict) else features
        return functional.normalize(features, dim=-1) if self.normalise else features


class ImageTower(nn.Module):
    """CLIP's image tower over single frames, averaged over the frames of a clip: (n, 3, FPS, S, S) -> (n, D)."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, clips: Tensor) -> Tensor:
        n, _, fps = clips.shape[:3]
        images = clips.transpose(1, 2).flatten(0, 1)  # (n FPS, 3, S, S)
        vectors = functional.normalize(self.tower(pixel_values=images).image_embeds, dim=-1)
        return vectors.unflatten(0, (n, fps)).mean(dim=1)


def video_backbone(
    name: str,
    weights: str | Path | None = None,
    fps: int | None = None,
    size: int | None = None,
    normalise: bool = True,
    reverse: bool = False,
    device: str = "cpu",
) -> Backbone:
    """A video network ready to extract features.

    Args:
        name: "s3d", "r2plus1d" (18 layers), or "clip:<hub id or folder>" for the image tower of a CLIP model.
        weights: file of s3d or r2plus1d.
        fps, size: frames per second and pixels, instead of the network's own.
        normalise: unit length, as the published training features.
        reverse: backwards clips, the second view of GDT.
        device: where it runs.

    Raises:
        ValueError: unknown name, or weights missing.
    """
    kind, _, model = name.partition(":")
    if kind == "s3d":
        network, own_fps, own_size, mean, std = _with_weights(S3D(), name, weights), 30, 224, 0.0, 1.0
    elif kind == "r2plus1d":
        network, own_fps, own_size, mean, std = _with_weights(R2Plus1D(), name, weights), 16, 112, KINETICS_MEAN, KINETICS_STD
    elif kind == "clip" and model:
        network, own_size, mean, std = _clip(model)
        own_fps = 1
    else:
        raise ValueError(f"unknown backbone {name!r}; use s3d, r2plus1d, or clip:<hub id or folder>.")
    fps, size = fps or own_fps, size or own_size
    passport = {
        "backbone": name,
        "weights": Path(weights).name if weights else model,
        "frames_per_second": fps,
        "seconds_per_feature": 1.0,
        "pixels": size,
        "colours": "RGB in [0, 1]" if mean == 0.0 else "RGB in [0, 1], standardised",
        "normalised": normalise,
        "reversed": reverse,
    }
    return Backbone(VideoFeatures(network, mean, std, normalise, reverse).to(device).eval(), passport, fps, size)


def audio_backbone(weights: str | Path | None, n_filters: int = 40, normalise: bool = True, device: str = "cpu") -> Backbone:
    """The audio ResNet of GDT and STiCA: waveforms of one second (n, AUDIO_RATE) int16 -> (n, 512)."""
    network = _with_weights(AudioResNet(), "resnet9", weights).to(device).eval()

    @torch.inference_mode()
    def encode(seconds: Tensor) -> Tensor:
        mels = np.stack([spectrogram(second, AUDIO_RATE, n_filters=n_filters) for second in seconds.numpy()])
        features = network(torch.from_numpy(mels).to(device))
        return functional.normalize(features, dim=-1) if normalise else features

    passport = {
        "backbone": "resnet9",
        "weights": Path(weights).name if weights else "",
        "samples_per_second": AUDIO_RATE,
        "seconds_per_feature": 1.0,
        "mel_filters": n_filters,
        "normalised": normalise,
    }
    return Backbone(encode, passport)


def _with_weights(network: nn.Module, name: str, weights: str | Path | None) -> nn.Module:
    """Loads the tensors that belong to `network`, wherever they sit in the file (`video_network.base.`, `audio_network.base.`)."""
    if weights is None:
        raise ValueError(f"backbone {name!r} needs its weights file.")
    state, own = read_state_dict(weights), network.state_dict()
    marker = {"r2plus1d": "video_network.base.", "resnet9": "audio_network.base."}.get(name, "")
    found = {key.removeprefix(marker): value for key, value in state.items()}
    # a counter of BatchNorm and the text branch of S3D play no part in video features
    absent = [key for key in own if key not in found and not key.endswith("num_batches_tracked") and not key.startswith("text_module.")]
    if absent:
        named = ", ".join(absent[:3])
        raise ValueError(f"{weights}: {len(absent)} of {len(own)} tensors of {name} are not there, {named}, ...; is it another network?")
    network.load_state_dict({key: found[key] for key in own if key in found}, strict=False)
    return network


def _clip(model: str) -> tuple[nn.Module, int, list[float], list[float]]:
    """Image tower, pixels, mean and deviation of a CLIP model."""
    transformers = optional_import("transformers", extra="text")
    tower = transformers.CLIPVisionModelWithProjection.from_pretrained(model)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]  # of all published CLIP models
    return ImageTower(tower), tower.config.image_size, mean, std
