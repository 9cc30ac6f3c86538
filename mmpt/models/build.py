"""A model from a config, with its weights, ready to train or to use."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import nn

from mmpt.checkpoints.weights import load_weights
from mmpt.config.schema import Config
from mmpt.registry import MODELS


def build_model(config: Config, checkpoint: str | Path | None = None) -> nn.Module:
    """The model that `config.model.model_cls` names.

    Args:
        config: the resolved project file.
        checkpoint: weights to load (fairseq `.pt`, plain state dict or safetensors), BERT's own are then not
            needed; None: the model starts as `model.init` says.

    Raises:
        KeyError: unknown model class.
        ValueError: no model class, or the checkpoint belongs to another model.
    """
    if checkpoint is not None:
        config = dataclasses.replace(config, model=config.model.without_weights())
    model = MODELS.get(config.model.model_cls, f"{config.source}: model.model_cls")(config)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    if config.model.layernorm_only:
        freeze_all_but_layernorm(model)
    return model


def freeze_all_but_layernorm(model: nn.Module) -> None:
    """Leaves trainable only the weights and biases of modules called exactly `LayerNorm`, and a learned
    temperature."""
    for name, parameter in model.named_parameters():
        module = name.split(".")[-2:-1]
        parameter.requires_grad_(
            parameter.requires_grad and (module == ["LayerNorm"] or name == "logit_scale")
        )
