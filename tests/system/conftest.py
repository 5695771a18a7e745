"""What the tests of a house share."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from house import Kidoband, World  # noqa: E402


@pytest.fixture(scope="module")
def world():
    with World() as w:
        yield w


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """What failed comes with the last that the house said: it is gone when somebody reads of it."""
    report = (yield).get_result()
    house = item.funcargs.get("house") if report.failed else None
    if isinstance(house, Kidoband) and hasattr(report.longrepr, "addsection"):
        report.longrepr.addsection("the last events", "\n".join(map(json.dumps, house.events()[-20:])))
