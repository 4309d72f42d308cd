"""Fixtures for tests in the lab, all of which carry the marker `lab` and more time than others."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab import host
from tests.lab.fleet import Lab

_HERE = Path(__file__).parent
_SECONDS = 1800
"""The first test may wait for the base image, and sixteen machines take their time on two cores."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.lab)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_SECONDS))


@pytest.fixture(scope="session")
def lab_host() -> None:
    """Skips where no lab can be made, saying what is missing."""
    obstacle = host.obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)


@pytest.fixture(scope="module")
def lab(lab_host: None) -> Iterator[Callable[..., Lab]]:
    """Makes labs that last until the end of the module: `lab(Spec("dev1"), Spec("dev2"))`."""
    with ExitStack() as stack:
        yield lambda *specs: stack.enter_context(Lab(specs))
