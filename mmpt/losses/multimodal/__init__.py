"""Losses over tuples of modalities."""
