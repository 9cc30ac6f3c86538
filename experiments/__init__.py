"""Comparisons of losses and of modalities on the synthetic world; not part of the installed package."""
