"""What `MMPTModel.from_pretrained` is given, as a config, a weights file and a backbone."""

from __future__ import annotations

import difflib
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from torch import nn

from mmpt.backbones.backbone import AudioBackbone, VideoBackbone, named_backbone
from mmpt.backbones.external import compared_with_text
from mmpt.checkpoints.model_folder import locate
from mmpt.config import Config, DatasetConfig, ModelConfig, required
from mmpt.registry import BACKBONES, MODELS
from mmpt.zoo import find, known, remedy

YAML = (".yaml", ".yml")
CALIBRATION = ".calibration.json"
SECONDS = 32  # that a dual encoder without a project file reads at once


class Located(NamedTuple):
    """A model, before it is built.

    Attributes:
        config: the project file, or what takes its place.
        weights: file of the fusion model; None: it brings its own, or starts as `model.init` says.
        backbone: name of the network whose features it reads; None: it is known by name, and reads
            features alone.
    """

    config: Config
    weights: Path | None
    backbone: str | None

    @property
    def calibration(self) -> Path:
        """Where the calibration of its alignments lies: beside its weights, or for a hub id in
        pretrained_models."""
        if self.weights is not None:
            return self.weights.with_suffix(CALIBRATION)
        folder = Path(required(self.config, "dataset.bert_name"))
        name = re.sub(r"[^\w.-]+", "_", str(folder))
        return (
            folder / f"model{CALIBRATION}"
            if folder.is_dir()
            else Path("pretrained_models") / (name + CALIBRATION)
        )


def located(source: str | Path, checkpoint: str | Path | None) -> Located:
    """The model that a name, a project file, a folder or a hub id stands for.

    Raises:
        FileNotFoundError: it is none of these, or its files are not here; says the cure.
        ValueError: the name is that of a backbone.
    """
    backbone: str | None = "s3d"
    if isinstance(source, str) and source in known() and not Path(source).exists():
        entry = find(source)
        source, registered = entry.source
        checkpoint, backbone = checkpoint or registered, entry.backbone
    elif isinstance(source, str) and "/" not in source and not Path(source).exists():
        near = difflib.get_close_matches(source, known(), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "`mmpt models list` shows the names."
        raise FileNotFoundError(f"{source}: no such file or folder, and no name of a model. {hint}")
    is_project = Path(source).suffix in YAML
    if not is_project and checkpoint is None and compared_with_text(str(source)):
        dataset = DatasetConfig(bert_name=str(source), max_video_len=SECONDS)
        return Located(Config(dataset=dataset, model=ModelConfig(model_cls="DualEncoder")), None, backbone)
    if is_project and checkpoint is None:
        config, _ = locate(source, None)
        if getattr(MODELS.get(config.model.model_cls), "brings_weights", False):
            return Located(config, None, backbone)
        checkpoint = "checkpoint_best.pt"
    return Located(*locate(source, checkpoint), backbone)


def load_backbone(name: str, weights: str | Path | None = None) -> VideoBackbone | AudioBackbone:
    """A backbone of pictures or sound by name, made fast and no longer trainable.

    Args:
        name: as in `MMPTModel.from_pretrained`.
        weights: its file; None: where it usually lies.

    Raises:
        FileNotFoundError: there is no weights file; the message says where it comes from.
        ValueError: unknown name, or a file without all tensors.
    """
    kind = name.partition(":")[0]
    registered = BACKBONES.get(kind) if kind in BACKBONES.names() else VideoBackbone
    weights = weights or registered.usual_weights
    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(
            f"no weights of {name} at {weights}. {remedy(weights)} Or name the file as video_weights, or "
            "pass video_encoder=None and give features instead of frames."
        )
    if issubclass(registered, AudioBackbone):
        return named_backbone(name, AudioBackbone, weights)
    return named_backbone(name, VideoBackbone, weights)


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 of names and values of all tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
