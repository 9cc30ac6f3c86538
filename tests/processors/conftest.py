import pytest

from tests.conftest import load_golden


@pytest.fixture
def golden(path):
    """The arrays of a `norton_data` file, its captions under "text"."""
    arrays = load_golden(path)
    arrays["text"] = {"start": arrays["text_start"], "end": arrays["text_end"], "cap": arrays["text_cap_ids"]}
    return arrays
