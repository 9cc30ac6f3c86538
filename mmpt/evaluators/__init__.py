"""Evaluation: predictors (model -> arrays), metrics (arrays -> numbers), and the report that says how far to
trust them."""

from mmpt.evaluators.bootstrap import PairedResult, paired_bootstrap
from mmpt.evaluators.metric import Metric, RetrievalMetric
from mmpt.evaluators.predictor import (
    BGRetrievalPredictor,
    Predictor,
    RetrievalPredictor,
    load_arrays,
    save_arrays,
)
from mmpt.evaluators.predictor_didemo import DiDeMoPredictor
from mmpt.evaluators.predictor_fewshot import FewShotPredictor
from mmpt.evaluators.predictor_gram import GramPredictor
from mmpt.evaluators.predictor_htm_align import HTMAlignPredictor
from mmpt.evaluators.predictor_modalities import ModalityRecognitionPredictor
from mmpt.evaluators.predictor_nlg import NLGPredictor
from mmpt.evaluators.predictor_qa import QAPredictor
from mmpt.evaluators.predictor_recognition import (
    RecognitionNNPredictor,
    RecognitionProbePredictor,
    RecognitionZSPredictor,
)
from mmpt.evaluators.predictor_segmentation import COINPredictor, COINZSPredictor, CrossTaskPredictor
from mmpt.evaluators.report import Report
from mmpt.evaluators.result import Result
from mmpt.evaluators.runner import Evaluator
from mmpt.evaluators.tasks.coin import COINActionSegmentationMetric
from mmpt.evaluators.tasks.crosstask import CrossTaskMetric
from mmpt.evaluators.tasks.didemo import DiDeMoMetric
from mmpt.evaluators.tasks.fewshot import FewShotMetric
from mmpt.evaluators.tasks.fullvideo import FullVideoBGRetrievalMetric, FullVideoRetrievalMetric
from mmpt.evaluators.tasks.gram import GramRetrievalMetric
from mmpt.evaluators.tasks.htm_align import HTMAlignMetric
from mmpt.evaluators.tasks.modalities import ModalityRecognitionMetric
from mmpt.evaluators.tasks.nlg import NLGMetric
from mmpt.evaluators.tasks.qa import QAMetric
from mmpt.evaluators.tasks.recognition import ActionRecognitionMetric

__all__ = [
    "ActionRecognitionMetric",
    "BGRetrievalPredictor",
    "COINActionSegmentationMetric",
    "COINPredictor",
    "COINZSPredictor",
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
    "ModalityRecognitionPredictor",
    "NLGMetric",
    "NLGPredictor",
    "Result",
    "PairedResult",
    "Predictor",
    "QAMetric",
    "QAPredictor",
    "RecognitionNNPredictor",
    "RecognitionProbePredictor",
    "RecognitionZSPredictor",
    "Report",
    "RetrievalMetric",
    "RetrievalPredictor",
    "load_arrays",
    "paired_bootstrap",
    "save_arrays",
]
