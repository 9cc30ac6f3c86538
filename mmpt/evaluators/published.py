"""Own runs against published ones: the data set says which lists are published, the metric which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt.evaluators.metric import Metric
from mmpt.processors.base import PublishedList
from mmpt.registry import META_PROCESSORS, METRICS


def published_lists(settings: Mapping[str, Any]) -> Sequence[PublishedList]:
    """The published test lists of a project file's data set, as its metric counts them; empty where none is
    known."""
    metric = _metric(settings)
    return _all_lists(settings).get(metric.published_list, ()) if metric else ()


def _all_lists(settings: Mapping[str, Any]) -> Mapping[str, Sequence[PublishedList]]:
    """Split -> published lists of the data set; empty for one that nobody published numbers on."""
    name = settings.get("dataset", {}).get("meta_processor")
    # a plugin's class need not know of published lists
    return getattr(META_PROCESSORS.get(name), "PUBLISHED", {}) if name in META_PROCESSORS.names() else {}


def _metric(settings: Mapping[str, Any]) -> type[Metric] | None:
    name = settings.get("metric")
    return METRICS.get(name) if name in METRICS.names() else None


def same_size(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> PublishedList | None:
    """The published test list of this size: as many queries, and gallery items where there are any."""
    queries, gallery = _size(facts)
    return next(
        (
            known
            for known in published_lists(settings)
            if queries == known.items and gallery in (None, known.items)
        ),
        None,
    )


def departures(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """One sentence per count or setting that differs from those behind the published numbers.

    Args:
        settings: the resolved project file.
        facts: of the result; `queries` (or `videos`) and `gallery` are read.
    """
    found = []
    known = published_lists(settings)
    if known and same_size(settings, facts) is None:
        queries, gallery = _size(facts)
        against = "" if gallery is None else f" against a gallery of {gallery}"
        found.append(f"test set: {queries}{against}; published: {' or '.join(map(str, known))}")
    metric = _metric(settings)
    for key, values in (metric.published_settings if metric and _all_lists(settings) else {}).items():
        value = _at(settings, key)
        if value not in values:
            found.append(f"{key}: {value}; published: {' or '.join(map(str, values))}")
    return found


def _size(facts: Mapping[str, Any]) -> tuple[int | None, int | None]:
    return facts.get("queries", facts.get("videos")), facts.get("gallery")


def _at(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where a part of it is absent."""
    value: Any = settings
    for part in key.split("."):
        value = (value or {}).get(part)
    return value
