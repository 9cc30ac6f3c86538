"""Ranks as the releases count them."""

import numpy as np
import pytest

from mmpt.config import EvalConfig
from mmpt.evaluators import RetrievalMetric


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [2, 4, 50])
@pytest.mark.parametrize("size", [5, 20, 100, 1000])
def test_compat_ranks_are_places_in_numpys_reversed_default_sort(size, levels, dtype):
    scores = np.random.default_rng(levels).integers(0, levels, size=(size, size)).astype(dtype)
    expected = np.nonzero(np.argsort(scores, axis=1)[:, ::-1] == np.arange(size)[:, None])[1] + 1
    result = RetrievalMetric(EvalConfig(compat=True, bootstrap=0)).evaluate(scores=scores)
    assert (result.per_query["ranks"] == expected).all() and result.facts["tie rule"] == "released"
