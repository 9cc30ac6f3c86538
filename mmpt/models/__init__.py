"""Networks; importing this package registers those that YAML files can name."""

from mmpt.models import (
    dual_encoder,
    features,
    gram,
    linear,
    mmfusion,
    mmfusion_align,
    mmfusion_downstream,
    mmfusion_joint,
    mmgram,
    mmstica,
    raw_clips,
    raw_recognition,
    small,
    transformermodel,
)
from mmpt.models.build import build_model

__all__ = [
    "MMGramModel",
    "MMPTModel",
    "build_model",
    "dual_encoder",
    "features",
    "linear",
    "mmfusion",
    "mmfusion_align",
    "mmfusion_downstream",
    "mmfusion_joint",
    "mmgram",
    "mmstica",
    "raw_clips",
    "raw_recognition",
    "small",
    "transformermodel",
]


def __getattr__(name: str) -> type:
    """`from mmpt.models import MMPTModel`, the line that papers print; lazily, since inference is built on
    models."""
    if name in ("MMPTModel", "MMGramModel"):
        from mmpt import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
