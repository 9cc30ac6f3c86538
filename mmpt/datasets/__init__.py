"""Data sets: four pluggable parts joined into items and batches."""

from mmpt.datasets.mmdataset import MMDataset, build_dataset

__all__ = ["MMDataset", "build_dataset"]
