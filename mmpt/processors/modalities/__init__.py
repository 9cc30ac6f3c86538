"""Items of several modalities: streams of features, subtitles, raw clips."""

from mmpt.processors.modalities.modalities import (
    ModalityAligner,
    ModalityMetaProcessor,
    ModalityTextProcessor,
    ModalityVideoProcessor,
    read_annotation,
)
