"""Evaluation: predictors (model -> arrays), metrics (arrays -> numbers), and the report that says how far to trust them."""

from mmpt.evaluators.bootstrap import PairedResult, paired_bootstrap
from mmpt.evaluators.evaluator import Evaluator
from mmpt.evaluators.metric import Metric, Outcome, RetrievalMetric
from mmpt.evaluators.metric_fullvideo import FullVideoBGRetrievalMetric, FullVideoRetrievalMetric
from mmpt.evaluators.predictor import BGRetrievalPredictor, Predictor, RetrievalPredictor, load_arrays, save_arrays
from mmpt.evaluators.report import Report

__all__ = [
    "BGRetrievalPredictor",
    "Evaluator",
    "FullVideoBGRetrievalMetric",
    "FullVideoRetrievalMetric",
    "Metric",
    "Outcome",
    "PairedResult",
    "Predictor",
    "Report",
    "RetrievalMetric",
    "RetrievalPredictor",
    "load_arrays",
    "paired_bootstrap",
    "save_arrays",
]
