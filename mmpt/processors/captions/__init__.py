"""Timed captions: reading, checking, removing repetitions."""

from mmpt.processors.captions.captions import Captions
