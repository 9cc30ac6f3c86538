"""What project files can name: a line each. Nothing heavier than the files themselves is read."""

from __future__ import annotations

from mmpt.config.catalogue import projects
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
        return projects()
    return {
        entry.name: _first_sentence(entry.summary) for _, entry in sorted(REGISTRIES[kind].entries().items())
    }


def _first_sentence(text: str) -> str:
    first = text.partition(". ")[0]
    return first if not first or first.endswith(".") else f"{first}."
