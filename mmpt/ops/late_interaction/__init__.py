"""Similarity of token sets."""

from mmpt.ops.late_interaction.functions import LARGEST_EXPONENT, TILE_TOKENS, token_similarity
