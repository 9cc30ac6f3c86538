"""A video and a text to align, and how a result is compared with the golden arrays."""

import numpy as np

TEXT = {
    "start": np.arange(12) * 4.0,
    "end": np.arange(12) * 4.0 + 3.5,
    "cap": [[20 + i] * (1 + i % 4) for i in range(12)],
}


VIDEO = np.repeat(np.arange(60, dtype=np.float32)[:, None], 4, axis=1)  # row s is full of s


def assert_matches(golden, group, item):
    names = [name for name in golden if name.startswith(f"{group}.")]
    assert names
    for name in names:
        got = np.asarray(item[name.split(".")[1]])
        assert got.dtype == golden[name].dtype
        np.testing.assert_array_equal(got, golden[name], err_msg=name)


def sentence(golden, i):
    """Token ids of caption i of a golden file."""
    return [token for token in golden["text_cap_ids"][i].tolist() if token >= 0]
