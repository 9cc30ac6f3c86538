"""Comparisons of losses and of modalities on the embedded world; not part of the installed package."""
