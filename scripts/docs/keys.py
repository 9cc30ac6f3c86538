"""The keys of project files, from the classes that own them: a page of the site."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from mmpt import registry
from mmpt.config.fields import keys_of
from mmpt.config.schema import Config, DatasetConfig, EvalConfig, ModelConfig

INTRODUCTION = """# Keys of project files

A key belongs to the class that reads it. The first tables are of keys that several classes share; below them
stands every class that has keys of its own. What is unknown, of the wrong type or out of bounds is found
by `mmpt check FILE`.
"""
SHARED = (("Top level", Config), ("dataset", DatasetConfig), ("model", ModelConfig), ("eval", EvalConfig))
OWNERS = (
    registry.META_PROCESSORS,
    registry.VIDEO_PROCESSORS,
    registry.TEXT_PROCESSORS,
    registry.ALIGNERS,
    registry.MODELS,
    registry.ENCODERS,
    registry.LOSSES,
    registry.TASKS,
    registry.PREDICTORS,
    registry.METRICS,
)


def page() -> str:
    """The page in Markdown."""
    parts = [INTRODUCTION]
    for title, cls in SHARED:
        parts += [f"## {title}\n", *_table(cls)]
    for kind in OWNERS:
        owners = [e for _, e in sorted(kind.entries().items()) if e.config and keys_of(e.config)]
        if owners:
            parts.append(f"## {kind.kind[0].upper()}{kind.kind[1:]} classes\n")
        for entry in owners:
            parts += [f"### {entry.name}\n", f"{entry.summary}\n", *_table(entry.config)]
    return "\n".join(parts)


def _table(cls: type) -> Iterator[str]:
    yield "| key | default | meaning |\n|---|---|---|"
    for name, key in keys_of(cls).items():
        about = key.field.metadata.get("help", "")
        allowed = key.field.metadata.get("allowed")
        bounds = str(allowed) if allowed and any(allowed) else ""
        symbol = key.field.metadata.get("symbol")
        meaning = "; ".join(filter(None, [about, bounds, symbol and f"{symbol} in the paper"]))
        yield f"| `{name}` | `{_default(key.field)}` | {meaning.replace('|', chr(92) + '|')} |"
    yield ""


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return json.dumps(made) if isinstance(made, dict | list) else "..."
    return "required" if field.default is dataclasses.MISSING else json.dumps(field.default, default=str)
