"""What programs call and commands translate into; each name is imported when it is asked for."""

import importlib
from typing import Any

_HOME = {
    "Evaluation": "evaluation",
    "Run": "training",
    "TrainingFailed": "training",
    "catalogue": "listing",
    "check": "checking",
    "evaluate": "evaluation",
    "find_checkpoints": "evaluation",
    "train": "training",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
