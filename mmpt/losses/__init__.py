"""Losses by the names that YAML files use; one import line a file registers its classes."""

from mmpt.losses.classification import (
    BCE,
    L1,
    MSE,
    ArgmaxCrossEntropy,
    CrossEntropy,
    DummyK400Loss,
    DummyLoss,
    SmoothL1,
)
from mmpt.losses.gdt import GDTLoss
from mmpt.losses.loss import Loss, LossConfig, build_loss, option
from mmpt.losses.milnce import MILNCELoss
from mmpt.losses.multimodal.gram import GRAMLoss
from mmpt.losses.multimodal.peers import PairwiseNCE, PMRLLoss, SymileLoss, TriangleLoss, VASTLoss
from mmpt.losses.nce import NCE, MMContraLoss, T2VContraLoss, V2TContraLoss
from mmpt.losses.sequence import SequenceContrastLoss
from mmpt.losses.stica import STiCALoss
from mmpt.losses.sumloss import SumLoss
from mmpt.losses.tempclr import FewShotAlignmentLoss, TempCLRLocalisationLoss, TempCLRLoss
from mmpt.losses.vlm import MFMMLM, MTM, NLGLoss
from mmpt.losses.writing import AnswerLoss, CaptionLoss

__all__ = [
    "BCE",
    "L1",
    "MFMMLM",
    "MSE",
    "MTM",
    "NCE",
    "AnswerLoss",
    "ArgmaxCrossEntropy",
    "CaptionLoss",
    "CrossEntropy",
    "DummyK400Loss",
    "DummyLoss",
    "FewShotAlignmentLoss",
    "GDTLoss",
    "GRAMLoss",
    "Loss",
    "LossConfig",
    "MILNCELoss",
    "MMContraLoss",
    "NLGLoss",
    "PMRLLoss",
    "PairwiseNCE",
    "STiCALoss",
    "SequenceContrastLoss",
    "SmoothL1",
    "SumLoss",
    "SymileLoss",
    "T2VContraLoss",
    "TempCLRLocalisationLoss",
    "TempCLRLoss",
    "TriangleLoss",
    "V2TContraLoss",
    "VASTLoss",
    "build_loss",
    "option",
]
