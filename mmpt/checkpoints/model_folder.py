"""Where `MMPTModel.from_pretrained` finds a model, and the folder that `save_pretrained` writes.

config.yaml         sizes and the `model:` section
model.safetensors   weights of the fusion model
config.json         sizes of BERT;  tokenizer files beside it
README.md           model card
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_model
from torch import nn

from mmpt.checkpoints.weights import seal
from mmpt.config import Config, DatasetConfig, ModelConfig, load_config
from mmpt.utils import atomic_write, optional_import
from mmpt.zoo import known, remedy

CONFIG, WEIGHTS, CARD = "config.yaml", "model.safetensors", "README.md"
SIZES = ("max_video_len", "max_len", "num_iso_layer", "use_fast", "feature_norm")


def locate(source: str | Path, checkpoint: str | Path | None) -> tuple[Config, Path | None]:
    """Config and weights file of a YAML file, a model folder or a hub id.

    Raises:
        FileNotFoundError: neither file, folder nor hub id, or the checkpoint is in none of the places looked
            at.
    """
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        config = load_config(path)
        return config, None if checkpoint is None else find_checkpoint(config, checkpoint)
    folder = path if path.is_dir() else _download(str(source))
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder} holds no {CONFIG}; expected a folder written by save_pretrained, one of a dual "
            "encoder of transformers (config.json, weights, tokenizer), or a YAML file."
        )
    config = load_config(folder / CONFIG)
    config = dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, bert_name=str(folder)))
    return config, folder / WEIGHTS if checkpoint is None else find_checkpoint(config, checkpoint, [folder])


def find_checkpoint(config: Config, checkpoint: str | Path, folders: Sequence[Path] = ()) -> Path:
    """A checkpoint by path, or by name in `folders`, `eval.save_path`, its parent, or
    `fairseq.checkpoint.save_dir`."""
    save_path = config.eval.save_path
    known = [*folders, *([Path(save_path), Path(save_path).parent] if save_path else [])]
    save_dir = config.trainer.save_dir
    known += [Path(save_dir)] if save_dir else []
    tried = [Path(checkpoint), *(folder / checkpoint for folder in known)]
    for path in tried:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no checkpoint {str(checkpoint)!r}; looked at {', '.join(map(str, tried))}. Give the path of the "
        f"file. {remedy(tried[-1])}"
    )


def write_folder(folder: str | Path, fusion: nn.Module, tokenizer: Any) -> None:
    """Writes everything that `locate` needs; the weights last, so that a folder with weights is whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fusion.bert_config.save(folder)
    tokenizer.save_pretrained(folder)
    config = portable(fusion.config)
    for name, text in ((CONFIG, json.dumps(config, indent=2)), (CARD, card(fusion))):  # JSON is YAML
        with atomic_write(folder / name, "w") as file:
            file.write(text + "\n")
    with TemporaryDirectory(dir=folder, prefix=".weights") as unfinished:
        weights = Path(unfinished, WEIGHTS)
        save_model(fusion, str(weights), metadata={"model_cls": type(fusion).__name__})
        seal(weights)
        weights.replace(folder / WEIGHTS)


def portable(config: Config) -> dict[str, Any]:
    """The part of a config that describes the model, without paths of the machine it was trained on."""
    dataset = {name: getattr(config.dataset, name) for name in SIZES}
    default = ModelConfig()
    model = dataclasses.asdict(config.model) | {"init": "random"}
    return {"dataset": _changed(dataset, DatasetConfig()), "model": _changed(model, default)}


def card(fusion: nn.Module) -> str:
    """A model card from what is known of the model itself."""
    dataset, parameters = fusion.config.dataset, sum(p.numel() for p in fusion.parameters())
    return (
        f"# {type(fusion).__name__}\n\n"
        f"Video-text model of {parameters:,} parameters; clips of up to {dataset.max_video_len} seconds, "
        "one feature vector per second, "
        f"with captions of up to {dataset.max_len - dataset.max_video_len - 3} tokens.\n\n"
        "```python\n"
        "from mmpt.models import MMPTModel\n\n"
        'model, tokenizer, aligner = MMPTModel.from_pretrained("THIS_FOLDER", video_encoder=None)\n'
        'scores = model.similarity(model.encode_text(["pour the milk"]), model.encode_video(features))  # '
        "features: (seconds, D)\n"
        "```\n"
    )


def _changed(values: dict[str, Any], default: DatasetConfig | ModelConfig) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def _download(name: str) -> Path:
    hub = optional_import("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{name!r} is neither a YAML file, a folder, nor a hub id that can be downloaded now ({error}). "
            f"Known by name: {', '.join(known())}; `mmpt models list` says more."
        ) from error
