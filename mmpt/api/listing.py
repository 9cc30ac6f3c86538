"""What project files can name: a line each."""

from __future__ import annotations

import inspect

from mmpt.config.project_files import describe_projects
from mmpt.registry import BACKBONES, LOSSES, META_PROCESSORS, METRICS, MODELS

REGISTRIES = {
    "losses": LOSSES,
    "models": MODELS,
    "backbones": BACKBONES,
    "datasets": META_PROCESSORS,
    "metrics": METRICS,
}


def catalogue(kind: str) -> dict[str, str]:
    """Name -> the first sentence about it.

    Args:
        kind: projects, losses, models, backbones, datasets or metrics.
    """
    if kind == "projects":
        return describe_projects()
    registry = REGISTRIES[kind]
    return {name: _first_sentence(registry.get(name)) for name in registry.names()}


def _first_sentence(cls: type) -> str:
    text = " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") + "."
