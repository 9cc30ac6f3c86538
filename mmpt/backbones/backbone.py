"""Feature networks by name: what each reads, where its tensors lie, and the passport of what it writes.

Adding one is one file: a network, and a class that says what it reads.

    @BACKBONES.register("my_net")
    class MyBackbone(VideoBackbone):
        "My network, 256-d."
        fps, size = 8, 112

        def build(self, model):
            return MyNet()  # frames (n, 3, FPS, S, S) in [0, 1], standardized by `mean` and `std` -> (n, D)

Letters: n clips, FPS frames per clip of S x S pixels, A samples of a waveform, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.backbones.folding import for_inference
from mmpt.checkpoints.weights import read_state_dict
from mmpt.media.audio import read_audio_windows
from mmpt.media.video import MAX_DAMAGE, Damage, read_seconds
from mmpt.registry import BACKBONES
from mmpt.utils.files import file_sha256
from mmpt.zoo import remedy

GPU_FRAMES = 960  # per pass
CPU_IMAGES = 16
SOUNDS_PER_PASS = 64


@dataclass
class Backbone:
    """A network and how it is fed.

    Attributes:
        network: clips as `read` yields them, as a tensor -> (n, D).
        read: path, damage to fill in -> arrays of clips, one per second, in order; takes `max_damage`.
        passport: what the features are.
        batch_size: clips per pass at which the network is fast.
    """

    network: Callable[[Tensor], Tensor]
    read: Callable[..., Iterator[np.ndarray]]
    passport: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 16


class NamedBackbone:
    """A network with all its tensors, by the name that users write: `s3d`, or `image:<hub id or folder>`.

    Args:
        name: the registered name, and behind a colon the model where the class stands for many.
        weights: file of the tensors, for networks that are not fetched by `model`.

    Attributes:
        network: ready to run.
        origin: which weights these are, for the passport.

    Raises:
        ValueError: weights missing, or a file or folder that lacks tensors of the network.
    """

    modality: ClassVar[str]
    prefix: ClassVar[str] = ""  # where published checkpoints keep the network
    unread: ClassVar[tuple[str, ...]] = ()  # tensors that play no part in features
    usual_weights: ClassVar[str | None] = None  # where the weights file lies unless told otherwise
    fetched: ClassVar[bool] = False  # `build` brings the tensors along
    form: ClassVar[str] = ""  # what stands behind the colon

    def __init__(self, name: str, weights: str | Path | None = None):
        self.name = name
        model = name.partition(":")[2]
        if bool(model) != bool(self.form):
            raise ValueError(f"backbone {name!r}: expected {self.usage(name.partition(':')[0])}.")
        if self.fetched:
            if weights is not None:
                raise ValueError(f"backbone {name!r} brings its weights along; leave out {weights}.")
            self.network = self._built(model)
            self.origin = {"weights": model, "tensors_sha256": tensors_sha256(self.network)}
            return
        weights = weights or self.usual_weights
        if weights is None:
            raise ValueError(
                f"backbone {name!r} needs its weights file (--weights). `mmpt models list` shows which are "
                "known; a class of one's own that needs none says `fetched = True`."
            )
        if not Path(weights).is_file():
            raise FileNotFoundError(f"no weights of {name} at {weights}. {remedy(weights)}")
        self.network = for_inference(self._filled(self._built(model), weights))
        # every training writes a `checkpoint.pth`: the checksum tells them apart
        self.origin = {"weights": Path(weights).name, "weights_sha256": file_sha256(weights)}

    def build(self, model: str) -> nn.Module:
        """The network; with its tensors where `fetched`."""
        raise NotImplementedError

    def _built(self, model: str) -> nn.Module:
        network = self.build(model)
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"backbone {self.name!r}: {type(self).__name__}.build returned {type(network).__name__}; "
                "expected a torch.nn.Module."
            )
        return network

    @classmethod
    def usage(cls, name: str) -> str:
        """How the name is written."""
        return f"{name}:{cls.form}" if cls.form else name

    def _sized(self, network: nn.Module, found: Mapping[str, Tensor]) -> nn.Module:
        """The network in the size of the tensors found."""
        return network

    def _filled(self, network: nn.Module, weights: str | Path) -> nn.Module:
        found = {key.removeprefix(self.prefix): value for key, value in read_state_dict(weights).items()}
        network = self._sized(network, found)
        own = network.state_dict()
        # the counter of BatchNorm is read in training only
        unread = [key for key in own if key.endswith("num_batches_tracked") or key.startswith(self.unread)]
        read = own.keys() - set(unread)
        refuse_random(weights, self.name, [key for key in read if key not in found], len(own))
        network.load_state_dict({key: found[key] for key in own if key in found}, strict=False)
        return network


B = TypeVar("B", bound=NamedBackbone)


class VideoBackbone(NamedBackbone):
    """Of pictures: seconds of `fps` square frames of `size` pixels, (n, 3, FPS, S, S) -> (n, D).

    Frames are RGB in [0, 1], from which `mean` is subtracted and which are divided by `std` (one number, or
    one per colour).
    """

    modality = "video"
    fps: int = 1
    size: int = 224
    mean: Any = 0.0
    std: Any = 1.0
    # per pass; on a CPU, convolutions slow down as their maps outgrow its caches
    cpu_clips: int | None = None


class AudioBackbone(NamedBackbone):
    """Of sound: windows of `window_s` seconds, what `prepare` makes of waveforms (n, A) int16 -> (n, D)."""

    modality = "audio"
    sample_rate: int
    window_s: int = 1  # the feature's own second is in the middle

    def prepare(self, waves: np.ndarray) -> np.ndarray:
        """Waveforms (n, A) int16 -> what the network reads."""
        raise NotImplementedError


class Standardized(nn.Module):
    """Frames in [0, 1] -> (frames - mean) / std -> the network."""

    def __init__(self, network: nn.Module, mean: Any, std: Any):
        super().__init__()
        self.network = network
        for name, value in (("mean", mean), ("std", std)):
            colours = torch.tensor(value, dtype=torch.float32).view(-1, 1, 1, 1)  # over (3, FPS, S, S)
            self.register_buffer(name, colours, persistent=False)

    def forward(self, frames: Tensor) -> Any:
        """(n, 3, FPS, S, S) -> what the network gives."""
        return self.network((frames - self.mean) / self.std)


def frame_network(backbone: VideoBackbone) -> nn.Module:
    """The network over frames in [0, 1]."""
    if backbone.mean == 0.0 and backbone.std == 1.0:
        return backbone.network
    return Standardized(backbone.network, backbone.mean, backbone.std)


class Features(nn.Module):
    """Runs a network on any device, scales what it returns.

    Args:
        network: float clips -> (n, D), or a dict with `video_embedding`.
        normalize: scale features to unit length.
        half: compute in float16 (GPU) or bfloat16 (CPU).
    """

    def __init__(self, network: nn.Module, normalize: bool = True, half: bool = False):
        super().__init__()
        self.network, self.normalize, self.half_precision = network, normalize, half
        # knows the device, also of a network without weights
        self.register_buffer("home", torch.zeros(()), persistent=False)

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
        if features.dim() != 2 or len(features) != len(clips):
            shape = tuple(features.shape)
            raise ValueError(
                f"the network gives {shape} for {len(clips)} seconds; expected (seconds, numbers)."
            )
        return functional.normalize(features, dim=-1) if self.normalize else features


class VideoFeatures(Features):
    """uint8 frames (n, FPS, S, S, 3) -> features.

    Args:
        network: clips (n, 3, FPS, S, S) in [0, 1] -> (n, D).
        reverse: run the frames of each clip backwards.
        **options: as in `Features`.
    """

    def __init__(self, network: nn.Module, reverse: bool = False, **options: bool):
        super().__init__(network, **options)
        self.reverse = reverse

    def prepare(self, clips: Tensor) -> Tensor:
        clips = clips.flip(1) if self.reverse else clips
        return (clips / 255).permute(0, 4, 1, 2, 3)


def named_backbone(name: str, kind: type[B], weights: str | Path | None = None) -> B:
    """The network that a name stands for.

    Args:
        name: as users write it.
        kind: `VideoBackbone` or `AudioBackbone`.
        weights: file of its tensors.

    Raises:
        ValueError: no backbone of this kind has that name; the message lists those that do.
    """
    known = {key: cls for key in BACKBONES.names() if issubclass(cls := BACKBONES.get(key), kind)}
    named = known.get(name.partition(":")[0])
    if named is None:
        names = ", ".join(cls.usage(key) for key, cls in known.items())
        raise ValueError(f"unknown {kind.modality} backbone {name!r}; known: {names}.")
    return named(name, weights)


def video_backbone(
    name: str,
    weights: str | Path | None = None,
    fps: int | None = None,
    size: int | None = None,
    normalize: bool = True,
    reverse: bool = False,
    half: bool = False,
    device: str = "cpu",
    decoder: str = "pyav",
    threads_per_file: int = 1,
) -> Backbone:
    """A video network ready to extract features, one per second.

    Args:
        name: a registered name: "s3d", "r2plus1d" (18 layers), "image:<hub id or folder>" for the image tower
            of a transformers model (CLIP, SigLIP, DINOv2, ViT), "open_clip:<architecture>/<weights>", ...
        weights: file of a network that is named without a colon.
        fps, size: frames per second and pixels, instead of the network's own.
        normalize: unit length, as the published training features.
        reverse: every clip backwards, for the reversed view of GDT.
        half: compute in half precision.
        device: where it runs.
        decoder, threads_per_file: as in `read_seconds`.

    Raises:
        ValueError: unknown name, or weights missing.
    """
    named = named_backbone(name, VideoBackbone, weights)
    fps, size = fps or named.fps, size or named.size
    passport = {
        "backbone": name,
        **named.origin,
        "frames_per_second": fps,
        "seconds_per_feature": 1.0,
        "pixels": size,
        "colours": "RGB in [0, 1]" + ", standardised" * (named.mean != 0.0),
        "normalised": normalize,
        "reversed": reverse,
        "precision": _precision(half, device),
        "decoder": decoder,
    }
    features = VideoFeatures(frame_network(named), reverse, normalize=normalize, half=half).to(device).eval()

    def read(path: Path, damage: Damage, max_damage: float = MAX_DAMAGE) -> Iterator[np.ndarray]:
        threads = threads_per_file
        return read_seconds(
            path, fps, size, max_damage=max_damage, damage=damage, decoder=decoder, n_threads=threads
        )

    on_cpu = torch.device(device).type == "cpu"
    per_pass = (named.cpu_clips or max(1, CPU_IMAGES // fps)) if on_cpu else max(1, GPU_FRAMES // fps)
    return Backbone(features, read, passport, per_pass)


def audio_backbone(
    name: str = "resnet9",
    weights: str | Path | None = None,
    n_filters: int | None = None,
    window_s: int | None = None,
    normalize: bool = True,
    half: bool = False,
    device: str = "cpu",
) -> Backbone:
    """An audio network ready to extract features, one per second.

    Args:
        name: "resnet9" (GDT, STiCA), or "audio:<hub id or folder>" for AST or CLAP of transformers.
        weights: file of resnet9.
        n_filters: mel filters of resnet9, 40 or 257; None: 40.
        window_s: seconds that each feature hears, the feature's own second in the middle. None: 1 for
            resnet9, 10 for others.
        normalize, half, device: as in `video_backbone`.

    Raises:
        ValueError: unknown name, weights missing, or filters for a network that has its own.
    """
    named = named_backbone(name, AudioBackbone, weights)
    if n_filters is not None:
        if not hasattr(named, "n_filters"):
            raise ValueError(f"backbone {name!r} has its own filters; leave out filters={n_filters}.")
        named.n_filters = n_filters
    named.window_s = window_s or named.window_s

    def read(path: Path, damage: Damage, max_damage: float = MAX_DAMAGE) -> Iterator[np.ndarray]:
        rate, length = named.sample_rate, named.window_s
        windows = read_audio_windows(path, rate, length, max_damage=max_damage, damage=damage)
        return (named.prepare(part) for part in windows)

    passport = {
        "backbone": name,
        **named.origin,
        "samples_per_second": named.sample_rate,
        "seconds_per_feature": 1.0,
        "window_seconds": named.window_s,
        "normalised": normalize,
        "precision": _precision(half, device),
    }
    passport |= {"mel_filters": named.n_filters} if hasattr(named, "n_filters") else {}
    network = Features(named.network, normalize=normalize, half=half).to(device).eval()
    return Backbone(network, read, passport, SOUNDS_PER_PASS)


def refuse_random(
    source: str | Path, name: str, absent: list[str], total: int, cure: str = "Is it another network?"
) -> None:
    """A network of which a part would stay as it was drawn gives other features in every run.

    Raises:
        ValueError: tensors are absent; the message names some.
    """
    if absent:
        raise ValueError(
            f"{source}: {len(absent)} of {total} tensors of {name} are not there, "
            f"{', '.join(sorted(absent)[:3])}, ...; they would be random. {cure}"
        )


def tensors_sha256(network: nn.Module) -> str:
    """Checksum of all tensors with their names, whatever files they came from."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _precision(half: bool, device: str) -> str:
    if not half:
        return "float32"
    return "bfloat16" if torch.device(device).type == "cpu" else "float16"
