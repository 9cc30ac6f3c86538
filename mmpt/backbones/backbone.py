"""Networks that turn files into features, by name: how each reads a file, and the passport of what it writes.

Letters: n clips, FPS frames per clip of S x S pixels, M mel filters, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.backbones.audio import AudioResNet
from mmpt.backbones.external import open_clip_image_tower, transformers_audio_tower, transformers_image_tower
from mmpt.backbones.folding import for_inference
from mmpt.backbones.r2plus1d import R2Plus1D
from mmpt.backbones.s3d import S3D
from mmpt.checkpoints.weights import read_state_dict
from mmpt.media.audio import read_audio_windows, spectrogram
from mmpt.media.video import read_seconds
from mmpt.utils.shardedtensor import file_sha256

KINETICS_MEAN, KINETICS_STD = 0.45, 0.225
AUDIO_RATE = 24000
TOWER_WINDOW_S = 10  # what AST and CLAP were trained on
CPU_CLIPS, CPU_IMAGES, GPU_FRAMES = (
    4,
    16,
    960,
)  # per pass; on a CPU, convolutions slow down as their maps outgrow its caches
SOUNDS_PER_PASS = 64
WRAPPERS = {
    "r2plus1d": "video_network.base.",
    "resnet9": "audio_network.base.",
}  # where published checkpoints keep a network


@dataclass
class Backbone:
    """A network and how it is fed.

    Attributes:
        network: clips as `read` yields them, as a tensor -> (n, D).
        read: path -> arrays of clips, one per second, in order.
        passport: what the features are.
        batch_size: clips per pass at which the network is fast.
    """

    network: Callable[[Tensor], Tensor]
    read: Callable[[Path], Iterator[np.ndarray]]
    passport: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 16


class Features(nn.Module):
    """Runs a network on any device, scales what it returns.

    Args:
        network: float clips -> (n, D), or a dict with `video_embedding`.
        normalise: scale features to unit length.
        half: compute in float16 (GPU) or bfloat16 (CPU).
    """

    def __init__(self, network: nn.Module, normalise: bool = True, half: bool = False):
        super().__init__()
        self.network, self.normalise, self.half_precision = network, normalise, half
        self.register_buffer(
            "home", torch.zeros(()), persistent=False
        )  # knows the device, also of a network without weights

    def prepare(self, clips: Tensor) -> Tensor:
        """What the network reads."""
        return clips

    @torch.inference_mode()
    def forward(self, clips: Tensor) -> Tensor:
        device = self.home.device
        clips = self.prepare(clips.to(device, non_blocking=True))
        dtype = torch.bfloat16 if device.type == "cpu" else torch.float16
        with torch.autocast(device.type, dtype, enabled=self.half_precision):
            features = self.network(clips)
        features = (features["video_embedding"] if isinstance(features, dict) else features).float()
        return functional.normalize(features, dim=-1) if self.normalise else features


class VideoFeatures(Features):
    """uint8 frames (n, FPS, S, S, 3) -> features.

    Args:
        network: clips (n, 3, FPS, S, S) -> (n, D).
        mean, std: subtracted from and divided out of frames in [0, 1], one number or one per colour.
        reverse: run the frames of each clip backwards.
        **options: as in `Features`.
    """

    def __init__(
        self, network: nn.Module, mean: Any = 0.0, std: Any = 1.0, reverse: bool = False, **options: bool
    ):
        super().__init__(network, **options)
        self.reverse = reverse
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def prepare(self, clips: Tensor) -> Tensor:
        clips = clips.flip(1) if self.reverse else clips
        return ((clips / 255 - self.mean) / self.std).permute(0, 4, 1, 2, 3)


def video_backbone(
    name: str,
    weights: str | Path | None = None,
    fps: int | None = None,
    size: int | None = None,
    normalise: bool = True,
    reverse: bool = False,
    half: bool = False,
    device: str = "cpu",
    decoder: str = "pyav",
    threads_per_file: int = 1,
) -> Backbone:
    """A video network ready to extract features, one per second.

    Args:
        name: "s3d", "r2plus1d" (18 layers), "image:<hub id or folder>" for the image tower of a transformers
            model (CLIP, SigLIP, DINOv2, ViT), or "open_clip:<architecture>/<weights>".
        weights: file of s3d or r2plus1d.
        fps, size: frames per second and pixels, instead of the network's own.
        normalise: unit length, as the published training features.
        reverse: every clip backwards, for the reversed view of GDT.
        half: compute in half precision.
        device: where it runs.
        decoder, threads_per_file: as in `read_seconds`.

    Raises:
        ValueError: unknown name, or weights missing.
    """
    kind, _, model = name.partition(":")
    if kind == "s3d":
        network, own_fps, own_size, mean, std = _with_weights(S3D(), name, weights), 30, 224, 0.0, 1.0
    elif kind == "r2plus1d":
        network, own_fps, own_size, mean, std = (
            _with_weights(R2Plus1D(), name, weights),
            16,
            112,
            KINETICS_MEAN,
            KINETICS_STD,
        )
    elif kind in ("image", "open_clip") and model:
        tower = transformers_image_tower if kind == "image" else open_clip_image_tower
        network, own_size, mean, std = tower(model)
        own_fps = 1
    else:
        raise ValueError(
            f"unknown backbone {name!r}; use s3d, r2plus1d, image:<hub id or folder>, or "
            "open_clip:<architecture>/<weights>."
        )
    fps, size = fps or own_fps, size or own_size
    passport = {
        "backbone": name,
        **_origin(model, weights),
        "frames_per_second": fps,
        "seconds_per_feature": 1.0,
        "pixels": size,
        "colours": "RGB in [0, 1]" if mean == 0.0 else "RGB in [0, 1], standardised",
        "normalised": normalise,
        "reversed": reverse,
        "precision": _precision(half, device),
        "decoder": decoder,
    }
    features = VideoFeatures(network, mean, std, reverse, normalise=normalise, half=half).to(device).eval()
    read = partial(read_seconds, fps=fps, size=size, decoder=decoder, n_threads=threads_per_file)
    return Backbone(features, read, passport, _batch_size(kind, fps, device))


def audio_backbone(
    name: str = "resnet9",
    weights: str | Path | None = None,
    n_filters: int = 40,
    window_s: int | None = None,
    normalise: bool = True,
    half: bool = False,
    device: str = "cpu",
) -> Backbone:
    """An audio network ready to extract features, one per second.

    Args:
        name: "resnet9" (GDT, STiCA), or "audio:<hub id or folder>" for AST or CLAP of transformers.
        weights: file of resnet9.
        n_filters: mel filters of resnet9, 40 or 257.
        window_s: seconds that each feature hears, the feature's own second in the middle. None: 1 for
            resnet9, 10 for others.
        normalise, half, device: as in `video_backbone`.

    Raises:
        ValueError: unknown name, or weights missing.
    """
    kind, _, model = name.partition(":")
    if kind == "resnet9":
        network, rate, window_s = _with_weights(AudioResNet(), name, weights), AUDIO_RATE, window_s or 1

        def prepare(waves: np.ndarray) -> np.ndarray:
            return np.stack(
                [spectrogram(wave, rate, n_seconds=window_s, n_filters=n_filters) for wave in waves]
            )
    elif kind == "audio" and model:
        network, rate, prepare = transformers_audio_tower(model)
        window_s = window_s or TOWER_WINDOW_S
    else:
        raise ValueError(f"unknown audio backbone {name!r}; use resnet9 or audio:<hub id or folder>.")

    def read(path: Path) -> Iterator[np.ndarray]:
        return (prepare(windows) for windows in read_audio_windows(path, rate, window_s))

    passport = {
        "backbone": name,
        **_origin(model, weights),
        "samples_per_second": rate,
        "seconds_per_feature": 1.0,
        "window_seconds": window_s,
        "normalised": normalise,
        "precision": _precision(half, device),
    }
    passport |= {"mel_filters": n_filters} if kind == "resnet9" else {}
    return Backbone(
        Features(network, normalise=normalise, half=half).to(device).eval(), read, passport, SOUNDS_PER_PASS
    )


def _batch_size(kind: str, fps: int, device: str) -> int:
    """Seconds per pass of a video network."""
    if torch.device(device).type != "cpu":
        return max(1, GPU_FRAMES // fps)
    return CPU_CLIPS if kind in ("s3d", "r2plus1d") else max(1, CPU_IMAGES // fps)


def _origin(model: str, weights: str | Path | None) -> dict[str, str]:
    """Which weights: hub id or folder, or the file and its checksum, since every training writes a
    `checkpoint.pth`."""
    if weights is None:
        return {"weights": model}
    return {"weights": Path(weights).name, "weights_sha256": file_sha256(weights)}


def _precision(half: bool, device: str) -> str:
    if not half:
        return "float32"
    return "bfloat16" if torch.device(device).type == "cpu" else "float16"


def _with_weights(network: nn.Module, name: str, weights: str | Path | None) -> nn.Module:
    """The network with its tensors, wherever they sit in the file (`video_network.base.`,
    `audio_network.base.`), ready to run."""
    if weights is None:
        raise ValueError(f"backbone {name!r} needs its weights file.")
    state, own = read_state_dict(weights), network.state_dict()
    found = {key.removeprefix(WRAPPERS.get(name, "")): value for key, value in state.items()}
    # a counter of BatchNorm and the text branch of S3D play no part in video features
    absent = [
        key
        for key in own
        if key not in found and not key.endswith("num_batches_tracked") and not key.startswith("text_module.")
    ]
    if absent:
        named = ", ".join(absent[:3])
        raise ValueError(
            f"{weights}: {len(absent)} of {len(own)} tensors of {name} are not there, {named}, ...; is it "
            "another network?"
        )
    network.load_state_dict({key: found[key] for key in own if key in found}, strict=False)
    return for_inference(network)
