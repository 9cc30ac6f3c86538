"""Reading data sets: what the items are, their features, their tokens, and how these become padded tensors.

Importing this package registers every class that a YAML can name under `dataset:`.
"""

from mmpt.processors import dual
from mmpt.processors.aligners import (
    FixedLenAligner,
    How2MILNCEAligner,
    OverlappedAligner,
    StartClipAligner,
    VariedLenAligner,
    VideoRetriAligner,
    VideoRetriOverlappedAligner,
)
from mmpt.processors.base import Aligner, MetaProcessor, MissingData, TextProcessor, VideoProcessor
from mmpt.processors.captions.captions import Captions
from mmpt.processors.downstream import DSAligner, DSNLGAligner, MetaTextBinarizer, NLGTextProcessor
from mmpt.processors.gdt import GDTAligner
from mmpt.processors.masking import (
    FrameMaskingProcessor,
    MFMMLMAligner,
    MMAttentionMask2DProcessor,
    TextGenerationProcessor,
    TextMaskingProcessor,
)
from mmpt.processors.modalities import raw_captions, raw_clips, raw_recognition, recognition
from mmpt.processors.modalities.modalities import (
    ModalityAligner,
    ModalityMetaProcessor,
    ModalityTextProcessor,
    ModalityVideoProcessor,
)
from mmpt.processors.modalities.views import ModalityViewAligner
from mmpt.processors.sampling import TextClipSamplingProcessor, VideoClipSamplingProcessor
from mmpt.processors.sets import activitynet
from mmpt.processors.sets.coin import (
    COINActionSegmentationAligner,
    COINActionSegmentationMetaProcessor,
    COINActionSegmentationTextProcessor,
)
from mmpt.processors.sets.crosstask import (
    CrossTaskAligner,
    CrossTaskMetaProcessor,
    CrossTaskTextProcessor,
    CrossTaskVideoProcessor,
)
from mmpt.processors.sets.didemo import DiDeMoAligner, DiDeMoMetaProcessor, DiDeMoTextProcessor
from mmpt.processors.sets.fewshot import FewShotAligner, FewShotMetaProcessor, FewShotVideoProcessor
from mmpt.processors.sets.how2 import (
    How2MetaProcessor,
    PKLJSONStrTextProcessor,
    ShardedHow2MetaProcessor,
    ShardedHow2VideoRetriMetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
)
from mmpt.processors.sets.htm_align import HTMAlignAligner, HTMAlignMetaProcessor
from mmpt.processors.sets.msrvtt import (
    MSRVTTMetaProcessor,
    MSRVTTNLGTextProcessor,
    MSRVTTQAAligner,
    MSRVTTQAMetaProcessor,
    MSRVTTQATextProcessor,
    MSRVTTTextProcessor,
)
from mmpt.processors.sets.recognition import RecognitionAligner, RecognitionMetaProcessor
from mmpt.processors.sets.youcook import (
    YoucookFullVideoBGAligner,
    YoucookFullVideoBGMetaProcessor,
    YoucookFullVideoBGProcessor,
    YoucookFullVideoBGTextProcessor,
    YoucookMetaProcessor,
    YoucookNLGMetaProcessor,
    YoucookVideoProcessor,
)
from mmpt.processors.tokens import SpecialIds, load_tokenizer

__all__ = [
    "Aligner",
    "COINActionSegmentationAligner",
    "COINActionSegmentationMetaProcessor",
    "COINActionSegmentationTextProcessor",
    "Captions",
    "CrossTaskAligner",
    "CrossTaskMetaProcessor",
    "CrossTaskTextProcessor",
    "CrossTaskVideoProcessor",
    "DSAligner",
    "DSNLGAligner",
    "DiDeMoAligner",
    "DiDeMoMetaProcessor",
    "DiDeMoTextProcessor",
    "FewShotAligner",
    "FewShotMetaProcessor",
    "FewShotVideoProcessor",
    "FixedLenAligner",
    "FrameMaskingProcessor",
    "GDTAligner",
    "HTMAlignAligner",
    "HTMAlignMetaProcessor",
    "How2MILNCEAligner",
    "How2MetaProcessor",
    "MFMMLMAligner",
    "MMAttentionMask2DProcessor",
    "MSRVTTMetaProcessor",
    "MSRVTTNLGTextProcessor",
    "MSRVTTQAAligner",
    "MSRVTTQAMetaProcessor",
    "MSRVTTQATextProcessor",
    "MSRVTTTextProcessor",
    "MetaProcessor",
    "MetaTextBinarizer",
    "MissingData",
    "ModalityAligner",
    "ModalityMetaProcessor",
    "ModalityTextProcessor",
    "ModalityVideoProcessor",
    "ModalityViewAligner",
    "NLGTextProcessor",
    "OverlappedAligner",
    "PKLJSONStrTextProcessor",
    "RecognitionAligner",
    "RecognitionMetaProcessor",
    "ShardedHow2MetaProcessor",
    "ShardedHow2VideoRetriMetaProcessor",
    "ShardedTextProcessor",
    "ShardedVideoProcessor",
    "ShardedVideoRetriTextProcessor",
    "ShardedVideoRetriVideoProcessor",
    "SpecialIds",
    "StartClipAligner",
    "TextClipSamplingProcessor",
    "TextGenerationProcessor",
    "TextMaskingProcessor",
    "TextProcessor",
    "VariedLenAligner",
    "VideoClipSamplingProcessor",
    "VideoProcessor",
    "VideoRetriAligner",
    "VideoRetriOverlappedAligner",
    "YoucookFullVideoBGAligner",
    "YoucookFullVideoBGMetaProcessor",
    "YoucookFullVideoBGProcessor",
    "YoucookFullVideoBGTextProcessor",
    "YoucookMetaProcessor",
    "YoucookNLGMetaProcessor",
    "YoucookVideoProcessor",
    "load_tokenizer",
]
