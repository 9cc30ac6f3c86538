"""Checkpoint files: read safely, fit into a model, describe, convert."""

from mmpt.checkpoints.weights import LoadReport, load_weights, read_state_dict
