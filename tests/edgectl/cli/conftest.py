from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgectl.__main__ import main
from edgectl.inventory.repository import Repository


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Edgectl = Callable[..., Result]


@pytest.fixture
def edgectl(capsys: pytest.CaptureFixture[str]) -> Edgectl:
    """Runs one command line in this process and gives what it printed."""

    def run(*argv: str) -> Result:
        capsys.readouterr()
        code = main(argv)
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return run


@pytest.fixture
def inventory(_own_home: Path) -> Iterator[Repository]:
    """The inventory where the commands look for it."""
    with Repository(_own_home / ".local/state/edgectl/inventory.db") as repository:
        yield repository
