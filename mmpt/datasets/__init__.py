"""Data sets: four pluggable parts joined into items and batches."""

from mmpt.datasets.mixture import MixedDataset
from mmpt.datasets.mmdataset import MMDataset, build_dataset
from mmpt.datasets.pairs import training_pairs
from mmpt.datasets.plan import DataPlan

__all__ = ["DataPlan", "MMDataset", "MixedDataset", "build_dataset", "training_pairs"]
