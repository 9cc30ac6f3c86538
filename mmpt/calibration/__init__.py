"""Alignments that know when they do not know: spans with stated coverage, "not visible" with controlled false
discovery."""

from mmpt.calibration.calibration import AlignedVideo, Calibration, Spans, calibrate
