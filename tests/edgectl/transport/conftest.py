from collections.abc import Iterator
from pathlib import Path

import pytest

from edgectl.transport import Transports
from tests.support.sshd import Sshd, keygen, running_sshd


@pytest.fixture(autouse=True)
def _no_agent_of_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def home() -> Path:
    """The test's own, with a folder .ssh."""
    (Path.home() / ".ssh").mkdir()
    return Path.home()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return keygen(tmp_path / "key")


@pytest.fixture
def sshd(tmp_path: Path, key: Path) -> Iterator[Sshd]:
    """Lets `key` in."""
    with running_sshd(tmp_path / "sshd") as server:
        server.authorize(key)
        yield server


@pytest.fixture
def transports(tmp_path: Path) -> Iterator[Transports]:
    """With an SSH configuration of the test's, `tmp_path`/config."""
    config = tmp_path / "config"
    config.touch()
    with Transports(ssh_config=config) as opened:
        yield opened
