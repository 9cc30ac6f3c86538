"""Building blocks of models: layers, heads, pooling; nearest-neighbour index and vector pools."""

from mmpt.modules.heads import ProjectionHead
from mmpt.modules.matching import GramMatchHead, PairMatcher
from mmpt.modules.pooling import AttentionPool, CropEmbedding
from mmpt.modules.retri import VectorRetriever
from mmpt.modules.vectorpool import DistributedVideoVectorPool, VideoVectorPool
