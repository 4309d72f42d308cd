"""How many threads a model gets, on made-up and real sets of processors."""

import os
from pathlib import Path

import pytest

from agent_daemon.cores import usable_cores


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    """Two packages of two cores with two threads each, numbered as Linux does: siblings are n and n + 4."""
    for number in range(8):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "core_id").write_text(f"{number % 2}\n")
        (folder / "physical_package_id").write_text(f"{number // 2 % 2}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("allowed", "cores"),
    [
        (range(8), 4),
        ({0, 4}, 1),
        ({0, 1}, 2),
        # The same number of a core in another package is another core.
        ({0, 2}, 2),
        ({3}, 1),
        # A processor of which nothing is told counts by itself.
        ({0, 4, 11}, 2),
    ],
)
def test_physical_cores_among_the_allowed_processors(topology: Path, allowed: set[int], cores: int) -> None:
    assert usable_cores(lambda: allowed, topology) == cores


def test_a_process_that_is_bound_to_one_processor_has_one() -> None:
    before = os.sched_getaffinity(0)
    assert usable_cores() >= 1
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
