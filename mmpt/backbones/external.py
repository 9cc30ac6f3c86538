"""Image and audio towers of other libraries as feature networks.

Letters: n clips, FPS images per clip of S x S pixels, A samples of a waveform, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.backbones.backbone import AudioBackbone, VideoBackbone, refuse_random
from mmpt.registry import BACKBONES
from mmpt.utils.optional import optional_import, pretrained

# of all published CLIP models
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
INT16_RANGE = 32768
DUAL = ("video", "image", "audio")  # kinds of backbones that transformers compares with text


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


@BACKBONES.register("image")
class TransformersImageBackbone(VideoBackbone):
    """The image side of a transformers model: CLIP, SigLIP, DINOv2, ViT, ..."""

    form, fetched = "<hub id or folder>", True

    def build(self, model: str) -> nn.Module:
        """Reads size, mean and deviation beside the weights.

        Raises:
            ValueError: the folder lacks tensors, or does not say how images are scaled.
        """
        transformers = optional_import("transformers")
        config = pretrained(transformers.AutoConfig, model)
        if config.model_type == "siglip2":  # its checkpoints of fixed size call themselves siglip
            raise ValueError(
                f"{model}: a NaFlex model, which reads pictures of any shape; take one of fixed size, such "
                "as google/siglip2-base-patch16-224."
            )
        is_clip = config.model_type in ("clip", "clip_vision_model")
        tower = load_whole(
            transformers.CLIPVisionModelWithProjection if is_clip else transformers.AutoModel, model
        )
        self.size = getattr(config, "vision_config", config).image_size
        scaling = scaling_of(model)
        if scaling is None and not is_clip:
            raise ValueError(
                f"{model}: no preprocessor_config.json, which says mean and deviation of the "
                "images. Put it there."
            )
        scaling = scaling or {}
        self.mean = scaling.get("image_mean", CLIP_MEAN)
        self.std = scaling.get("image_std", CLIP_STD)
        return ImageTower(tower, lambda images: _image_vectors(tower, images))


class ClipTower(nn.Module):
    """A clip's vector by a network over time.

    Args:
        tower: owns the weights.
        n_frames: that it reads.
    """

    def __init__(self, tower: nn.Module, n_frames: int):
        super().__init__()
        self.tower, self.n_frames = tower, n_frames

    def forward(self, clips: Tensor) -> Tensor:
        """(n, 3, FPS, S, S) -> (n, D); of more frames those that are spread evenly."""
        if clips.shape[2] < self.n_frames:
            raise ValueError(
                f"the network reads {self.n_frames} frames of a clip, got {clips.shape[2]}: leave out "
                "--fps, or raise it."
            )
        chosen = torch.linspace(0, clips.shape[2] - 1, self.n_frames, device=clips.device).long()
        pixels = clips[:, :, chosen].transpose(1, 2)  # (n, frames, 3, S, S)
        if hasattr(self.tower, "get_video_features"):
            return vectors_of(self.tower.get_video_features(pixel_values=pixels))
        return self.tower(pixel_values=pixels).last_hidden_state.mean(1)


@BACKBONES.register("video")
class TransformersVideoBackbone(VideoBackbone):
    """The video side of a transformers model that reads clips: X-CLIP, VideoMAE."""

    form, fetched = "<hub id or folder>", True

    def build(self, model: str) -> nn.Module:
        """Reads number of frames, size, mean and deviation beside the weights.

        Raises:
            ValueError: the folder lacks tensors, or does not say how frames are scaled or how many are read.
        """
        transformers = optional_import("transformers")
        config = pretrained(transformers.AutoConfig, model)
        sizes = getattr(config, "vision_config", config)
        if not hasattr(sizes, "num_frames"):
            raise ValueError(
                f"{model}: a {config.model_type} model reads pictures, not clips: use image:{model}."
            )
        tower = load_whole(transformers.AutoModel, model)
        scaling = scaling_of(model)
        if scaling is None:
            raise ValueError(
                f"{model}: no preprocessor_config.json, which says mean and deviation of the "
                "frames. Put it there."
            )
        self.fps, self.size = sizes.num_frames, sizes.image_size
        self.mean, self.std = scaling["image_mean"], scaling["image_std"]
        return ClipTower(tower, sizes.num_frames)


@BACKBONES.register("open_clip")
class OpenCLIPBackbone(VideoBackbone):
    """The image side of an OpenCLIP model, such as ViT-B-32/laion2b_s34b_b79k."""

    form, fetched = "<architecture>/<weights>", True

    def build(self, model: str) -> nn.Module:
        architecture, _, weights = model.partition("/")
        open_clip = optional_import("open_clip", extra="open_clip")
        if not weights:
            raise ValueError(
                f"open_clip:{model}: say which weights, open_clip:<architecture>/<tag or file>; without, "
                "they would be random."
            )
        tower = open_clip.create_model(architecture, pretrained=weights)
        scaling = open_clip.get_model_preprocess_cfg(tower)
        self.size = scaling["size"] if isinstance(scaling["size"], int) else scaling["size"][0]
        self.mean, self.std = list(scaling["mean"]), list(scaling["std"])
        return ImageTower(tower, tower.encode_image)


@BACKBONES.register("audio")
class TransformersAudioBackbone(AudioBackbone):
    """The audio side of a transformers model: AST or CLAP."""

    form, fetched = "<hub id or folder>", True
    window_s = 10  # what AST and CLAP were trained on

    def build(self, model: str) -> nn.Module:
        transformers = optional_import("transformers")
        is_clap = pretrained(transformers.AutoConfig, model).model_type in ("clap", "clap_audio_model")
        loader = transformers.ClapAudioModelWithProjection if is_clap else transformers.AutoModel
        self.extractor = pretrained(
            transformers.AutoFeatureExtractor, model, needed="preprocessor_config.json"
        )
        self.sample_rate = self.extractor.sampling_rate
        if is_clap:  # what is longer it would cut at a random place
            self.window_s = int(self.extractor.max_length_s)
        return AudioTower(load_whole(loader, model), is_clap)

    def prepare(self, waves: np.ndarray) -> np.ndarray:
        scaled = [wave.astype(np.float32) / INT16_RANGE for wave in waves]
        read = self.extractor(scaled, sampling_rate=self.sample_rate, return_tensors="np")
        return np.asarray(read[self.extractor.model_input_names[0]])


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


def load_whole(loader: Any, model: str) -> nn.Module:
    """`loader.from_pretrained(model)`, which draws what the weights file lacks; here that is refused.

    Raises:
        ValueError: names tensors that are not in the file, or one of another shape.
    """
    logs = optional_import("transformers").utils.logging
    level = logs.get_verbosity()
    logs.set_verbosity_error()  # of tensors of the other side, which are rightly left; what lacks is refused
    try:
        network, report = pretrained(
            loader,
            model,
            needed="config.json and weights",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, not ignored
        )
    finally:
        logs.set_verbosity(level)
    for key, found, expected in sorted(report["mismatched_keys"]):
        raise ValueError(
            f"{model}: {key} has the shape {tuple(found)}, and config.json asks for {tuple(expected)}. Put "
            "the config.json of these weights there."
        )
    refuse_random(model, type(network).__name__, list(report["missing_keys"]), len(network.state_dict()))
    return network


def scaling_of(model: str) -> dict[str, Any] | None:
    """What preprocessor_config.json says; None where there is none."""
    reader = optional_import("transformers").image_processing_base.ImageProcessingMixin
    try:
        return reader.get_image_processor_dict(model)[0]
    except OSError:
        return None


def compared_with_text(model: str) -> str | None:
    """The kind of backbone whose vectors a dual encoder of transformers compares with text: "image", "video"
    or "audio".

    Returns:
        None where it is another model, or none that can be read now.
    """
    transformers = optional_import("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(model)
    except (OSError, ValueError):
        return None
    network = transformers.MODEL_MAPPING.get(type(config), None)
    if not hasattr(network, "get_text_features"):
        return None
    return next((kind for kind in DUAL if hasattr(network, f"get_{kind}_features")), None)


def vectors_of(output: Any) -> Tensor:
    """One vector for each item, (n, D), of what a model of transformers returns.

    Raises:
        ValueError: it holds none.
    """
    if isinstance(output, Tensor) and output.dim() == 2:
        return output
    for key in () if isinstance(output, Tensor) else ("image_embeds", "pooler_output"):
        if output.get(key) is not None:
            return output[key]
    kind = type(output).__name__
    raise ValueError(f"{kind}: no single vector for each item; this model compares otherwise.")


def _image_vectors(model: nn.Module, images: Tensor) -> Tensor:
    """What the model offers that comes closest to one vector per image."""
    if hasattr(model, "get_image_features"):
        return vectors_of(model.get_image_features(pixel_values=images))
    output = model(pixel_values=images)
    if all(output.get(key) is None for key in ("image_embeds", "pooler_output")):
        return output["last_hidden_state"][:, 0]
    return vectors_of(output)
