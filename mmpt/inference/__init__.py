"""Trained models in use: encoding, search for moments, alignment of captions."""

from mmpt.inference.gram_model import MMGramModel
from mmpt.inference.mmpt_model import MMPTModel
