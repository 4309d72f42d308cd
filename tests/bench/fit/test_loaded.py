"""What the bench of really loaded models counts, and its sums; and one model through all of it."""

import mmap
from pathlib import Path

import pytest

from agent_daemon.contract.serve_options import ServeOptions
from tests.bench.fit.loaded import BOUND, Inside, Row, row, table
from tests.bench.fit.process_memory import count, forget

MB = 1_000_000
PAGE = mmap.PAGESIZE


def test_pages_of_no_file_are_private() -> None:
    written = b"x" * 4096 * PAGE
    before = count("none")
    with mmap.mmap(-1, 4096 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(written)
        grown = count("none").private - before.private
    # the interpreter's own heap may have grown or shrunk meanwhile
    assert 4096 * PAGE - 4 * MB < grown < 4096 * PAGE + 4 * MB


def test_pages_of_a_file_are_used_once_they_are_read(tmp_path: Path) -> None:
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"w" * 4096 * PAGE)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[at] for at in range(0, len(mapped), PAGE)) == 4096 * ord("w")
        assert count(file.name).mapped == 4096 * PAGE
        forget()
        assert count(file.name).used == 0
        assert sum(mapped[at] for at in range(0, 1024 * PAGE, PAGE)) == 1024 * ord("w")
        looked = count(file.name)
        assert looked.mapped == 4096 * PAGE
        # the kernel may keep several pages as one, and then counts them all
        assert 1024 * PAGE <= looked.used < 1200 * PAGE
    assert count(file.name).mapped == 0


def of(name: str, private: int, used: int) -> Row:
    inside = Inside(20 * MB, 8 * MB, private * MB, 100 * MB, used * MB, 250 * MB)
    return Row(name, 101 * MB, 100 * MB, 60 * MB, 40 * MB, inside, 230 * MB, 120 * MB)


def test_the_vocabulary_and_pages_that_nothing_reads_are_no_part_of_the_measure() -> None:
    exact, low = of("Q4_1", 120, 100), of("Q2_K", 140, 105)
    assert (exact.predicted, exact.measured, exact.off) == (200 * MB, 200 * MB, 0.0)
    assert (low.measured, round(low.off, 4)) == (225 * MB, -0.1111)
    said = table([exact, low]).splitlines()
    assert said[1].split()[:4] == ["Q4_1", "200.0", "200.0", "+0.00%"]
    assert said[-1] == "worst: Q2_K -11.11% (bound: 3%)"


@pytest.mark.engine
def test_a_model_takes_what_was_predicted(tmp_path: Path) -> None:
    found = row("Q4_1", ServeOptions(1024), tmp_path)
    assert abs(found.off) <= BOUND, table([found])
    # all of the file is mapped, and all of it but its header is read for each batch
    assert found.file - 4 * MB < found.inside.used <= found.inside.mapped <= found.file + PAGE
    assert found.ready_private < found.inside.private
