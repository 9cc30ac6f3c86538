"""Models; importing this package registers those that YAML files can name."""

from mmpt.models import (
    features,
    mmfusion,
    mmfusion_align,
    mmfusion_downstream,
    mmfusion_joint,
    mmgram,
    mmstica,
    raw_clips,
    transformermodel,
)
from mmpt.models.build import build_model
from mmpt.models.checkpoint import LoadReport, load_weights, read_state_dict
from mmpt.models.mmpt_model import MMPTModel
from mmpt.models.s3dg import S3D

__all__ = [
    "LoadReport",
    "MMPTModel",
    "S3D",
    "build_model",
    "features",
    "load_weights",
    "mmfusion",
    "mmfusion_align",
    "mmfusion_downstream",
    "mmfusion_joint",
    "mmgram",
    "mmstica",
    "raw_clips",
    "read_state_dict",
    "transformermodel",
]
