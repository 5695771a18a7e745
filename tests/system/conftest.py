"""What the tests of a house share."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from house import World  # noqa: E402


@pytest.fixture(scope="module")
def world():
    with World() as w:
        yield w
