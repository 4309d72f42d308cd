"""Every test gets a home of its own, so that no run reads or writes the person's configuration or inventory."""

import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

_HERE = Path(__file__).parent

# How long an example takes says something about the machine, not about the code.
settings.register_profile("edgectl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgectl")

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The lab takes longest, so where several processes test it begins first (with --no-loadscope-reorder).
    items.sort(key=lambda item: item.path.relative_to(_HERE).parts[0] != "lab")


class _Together(LoadScopeScheduling):
    """Of several processes that test (`-n 2`), one has all tests of a file, for what they share, and one all of the lab's,
    because its machines want the cores to themselves."""

    def _split_scope(self, nodeid: str) -> str:
        return "lab" if nodeid.startswith("tests/lab/") else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    # Not `--dist loadgroup`, whose marks change names of tests, which pytest 9.2 does not read any more.
    return _Together(config, log)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name, folder in {
        "XDG_CONFIG_HOME": ".config",
        "XDG_STATE_HOME": ".local/state",
        "XDG_CACHE_HOME": ".cache",
        "XDG_DATA_HOME": ".local/share",
    }.items():
        monkeypatch.setenv(name, str(home / folder))
    for name in ("EDGECTL_DATABASE_URL", "HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    return home


@pytest.fixture
def near_root() -> Iterator[Path]:
    """An empty folder for what has a Unix socket: its path has 107 characters at most, and `tmp_path` many of them."""
    with TemporaryDirectory() as folder:
        yield Path(folder)
