"""Evaluation: predictors (model -> arrays), metrics (arrays -> numbers), and the report that says how far to
trust them."""

from mmpt.evaluators.metric import Metric, RetrievalMetric
from mmpt.evaluators.predictor import Predictor, RetrievalPredictor, load_arrays, save_arrays
from mmpt.evaluators.report import Report
from mmpt.evaluators.result import Result
from mmpt.evaluators.runner import Evaluator
from mmpt.evaluators.tasks import raw_recognition
from mmpt.evaluators.tasks.coin import COINActionSegmentationMetric, COINPredictor, COINZSPredictor
from mmpt.evaluators.tasks.crosstask import CrossTaskMetric, CrossTaskPredictor
from mmpt.evaluators.tasks.didemo import DiDeMoMetric, DiDeMoPredictor
from mmpt.evaluators.tasks.fewshot import FewShotMetric, FewShotPredictor
from mmpt.evaluators.tasks.fullvideo import (
    BGRetrievalPredictor,
    FullVideoBGRetrievalMetric,
    FullVideoRetrievalMetric,
)
from mmpt.evaluators.tasks.gram import GramPredictor, GramRetrievalMetric
from mmpt.evaluators.tasks.htm_align import HTMAlignMetric, HTMAlignPredictor
from mmpt.evaluators.tasks.nlg import CaptionPredictor, NLGMetric, NLGPredictor
from mmpt.evaluators.tasks.qa import AnswerMetric, AnswerPredictor, QAMetric, QAPredictor
from mmpt.evaluators.tasks.recognition import (
    ActionRecognitionMetric,
    ModalityRecognitionMetric,
    RecognitionNNPredictor,
    RecognitionProbePredictor,
    RecognitionZSPredictor,
)

__all__ = [
    "ActionRecognitionMetric",
    "AnswerMetric",
    "AnswerPredictor",
    "BGRetrievalPredictor",
    "COINActionSegmentationMetric",
    "COINPredictor",
    "COINZSPredictor",
    "CaptionPredictor",
    "CrossTaskMetric",
    "CrossTaskPredictor",
    "DiDeMoMetric",
    "DiDeMoPredictor",
    "Evaluator",
    "FewShotMetric",
    "FewShotPredictor",
    "FullVideoBGRetrievalMetric",
    "FullVideoRetrievalMetric",
    "GramPredictor",
    "GramRetrievalMetric",
    "HTMAlignMetric",
    "HTMAlignPredictor",
    "Metric",
    "ModalityRecognitionMetric",
    "NLGMetric",
    "NLGPredictor",
    "Predictor",
    "QAMetric",
    "QAPredictor",
    "RecognitionNNPredictor",
    "RecognitionProbePredictor",
    "RecognitionZSPredictor",
    "Report",
    "Result",
    "RetrievalMetric",
    "RetrievalPredictor",
    "load_arrays",
    "save_arrays",
]
