"""Building blocks of models: layers, heads, pooling; nearest-neighbour index and vector pools."""

from mmpt.modules.retri import VectorRetriever
from mmpt.modules.vectorpool import DistributedVideoVectorPool, VideoVectorPool
