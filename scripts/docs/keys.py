"""The keys of project files, from the classes that own them: a page of the site."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from mmpt import registry
from mmpt.config.fields import keys_of
from mmpt.config.schema import Config, DatasetConfig, EvalConfig, ModelConfig
from mmpt.registry import Entry

INTRODUCTION = """# Keys of project files

A key belongs to the class that reads it. The first tables have the keys that several classes share. Below
them is every class that has keys of its own. `mmpt check FILE` finds keys that are unknown, of the wrong
type or out of bounds.
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
        by_table: dict[str, list[Entry]] = {}  # classes of the same keys stand together
        for _, entry in sorted(kind.entries().items()):
            if entry.config and keys_of(entry.config):
                by_table.setdefault("\n".join(_table(entry.config)), []).append(entry)
        if by_table:
            parts.append(f"## {kind.kind[0].upper()}{kind.kind[1:]} classes\n")
        for table, (first, *others) in by_table.items():
            more = f" and {len(others)} more" if len(others) > 1 else "".join(f", {e.name}" for e in others)
            about = [f"- **{entry.name}**: {entry.summary}" for entry in (first, *others)]
            parts += [f"### {first.name}{more}\n", *(about if others else [first.summary]), "", table]
    return "\n".join(parts)


def _table(cls: type) -> Iterator[str]:
    yield "| key | default | meaning |\n|---|---|---|"
    for name, key in keys_of(cls).items():
        about = key.field.metadata.get("help", "")
        allowed = key.field.metadata.get("allowed")
        words = allowed.one_of if allowed else ()
        is_bound = allowed and any(allowed) and not (words and all(str(word) in about for word in words))
        bounds = str(allowed).removeprefix("a finite number and ") if is_bound else ""
        symbol = key.field.metadata.get("symbol")
        meaning = "; ".join(filter(None, [about, bounds, symbol and f"{symbol} in the paper"]))
        yield f"| `{name}` | `{_default(key.field)}` | {meaning.replace('|', chr(92) + '|')} |"
    yield ""


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return json.dumps(made) if isinstance(made, dict | list) else "..."
    return "required" if field.default is dataclasses.MISSING else json.dumps(field.default, default=str)
