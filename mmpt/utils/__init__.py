"""Small tools that know nothing of models or data sets. Importing this package needs the standard library."""

import importlib
from typing import Any

_HOME = {
    "ItemRandom": "seed",
    "ShardError": "shardedtensor",
    "ShardWriter": "shardedtensor",
    "ShardedTensor": "shardedtensor",
    "UnsafePickle": "safe_pickle",
    "atomic_write": "files",
    "load_index": "shardedtensor",
    "load_plain_pickle": "safe_pickle",
    "optional_import": "optional",
    "save_plain_pickle": "safe_pickle",
    "set_seed": "seed",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Each name from its file, imported when it is first asked for: commands have to start at once."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
