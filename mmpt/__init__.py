"""mmpt: joint representations of long videos and text, trained by fairseq and driven by YAML.

    problems = mmpt.check("projects/toy/norton.yaml")
    run = mmpt.train("projects/toy/norton.yaml")
    report = mmpt.evaluate("projects/toy/test_youcook_zs.yaml", run.checkpoint)
    model, tokenizer, aligner = mmpt.MMPTModel.from_pretrained("projects/toy/norton.yaml", run.checkpoint)

Importing this package is instant: it needs neither torch nor fairseq. Each of these is imported when it is
first asked for.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "MMPTModel": "mmpt.inference",
    "check": "mmpt.api",
    "evaluate": "mmpt.api",
    "load_config": "mmpt.config",
    "train": "mmpt.api",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
