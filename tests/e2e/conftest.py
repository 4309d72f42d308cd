"""What the end-to-end tests start from: real model files, and an inventory in a folder of the module's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import Edgectl
from tests.support import models
from tests.support.agent import AgentProcess, running_agent


@pytest.fixture(scope="session")
def quickstart() -> Path:
    return models.quickstart_model()


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as another file: what a second release that works serves."""
    return models.renamed(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def edgectl(tmp_path_factory: pytest.TempPathFactory) -> Edgectl:
    return Edgectl(tmp_path_factory.mktemp("control") / "inventory.db")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """One agent for the tests of a module."""
    with running_agent(tmp_path_factory.mktemp("desk") / "state") as running:
        yield running
