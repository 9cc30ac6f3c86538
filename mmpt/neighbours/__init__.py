"""Nearest neighbours: exact and approximate indexes, pools of video vectors, training batches of similar
videos."""

from mmpt.neighbours.index import VectorRetriever
from mmpt.neighbours.pool import DistributedVideoVectorPool, VideoVectorPool
