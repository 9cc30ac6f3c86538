"""Small tools that know nothing of models or data sets. Importing this package does not import torch."""

from mmpt.utils.files import atomic_write
from mmpt.utils.optional import optional_import
from mmpt.utils.safe_pickle import UnsafePickle, load_plain_pickle, save_plain_pickle
from mmpt.utils.seed import ItemRandom, set_seed
from mmpt.utils.shardedtensor import ShardedTensor, ShardError, ShardWriter

__all__ = [
    "ItemRandom",
    "ShardError",
    "ShardWriter",
    "ShardedTensor",
    "UnsafePickle",
    "atomic_write",
    "load_plain_pickle",
    "optional_import",
    "save_plain_pickle",
    "set_seed",
]
