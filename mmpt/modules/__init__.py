"""Building blocks of networks: layers, heads, pooling, matching."""

from mmpt.modules.heads import ProjectionHead
from mmpt.modules.matching import GramMatchHead, PairMatcher
from mmpt.modules.pooling import AttentionPool, CropEmbedding
