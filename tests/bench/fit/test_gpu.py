"""What the GPU bench does, with a device of ggml's own in place of a GPU, whose process is asked what it holds."""

from collections.abc import Iterator

import psutil
import pytest

from agent_daemon.contract.fit import VRAM_RESERVE
from agent_daemon.contract.need import layers
from agent_daemon.contract.serve_options import ServeOptions
from tests.bench.fit.gpu import Row, measure, table
from tests.bench.fit.headers import read
from tests.bench.fit.process_memory import count
from tests.support.models import quickstart_model
from tests.support.rpc_devices import Devices, devices

MIB = 1024**2


@pytest.fixture
def attached() -> Iterator[Devices]:
    """A new one each time: its process keeps freed buffers in its heap."""
    with devices(1) as running:
        yield running


def held_by(address: str) -> int:
    """Pages of no file of the process that serves this address."""
    # A child that has ended and was not waited for has no command line.
    living = (each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE)
    server = next(each for each in living if address in each.cmdline())
    return count("-", str(server.pid)).private


@pytest.mark.engine
@pytest.mark.parametrize("half", [False, True], ids=["whole", "half"])
def test_a_load_is_measured_against_what_the_device_counts(attached: Devices, half: bool) -> None:
    path = quickstart_model()
    facts = read([path])
    many = layers(facts) // 2 if half else layers(facts)
    row = measure(
        path,
        facts,
        ServeOptions(256),
        many,
        lambda pid: (held_by(attached.addresses[0]), None),
        attached,
        patience=0,
    )
    assert (row.gpu_layers, row.layers, row.process) == (many, 31, None)
    assert row.broken is None
    # its buffers, and the device's own bookkeeping and threads
    assert abs(row.taken - row.engine) < 12 * MIB
    assert row.taken > row.engine // 2


def test_what_is_taken_beyond_the_reserve_is_told() -> None:
    row = Row(
        "m", 31, 31, predicted=1000 * MIB, engine=1000 * MIB, taken=1000 * MIB + VRAM_RESERVE, process=None
    )
    assert row.broken is None
    more = Row(
        "m", 31, 31, predicted=1000 * MIB, engine=1000 * MIB, taken=1001 * MIB + VRAM_RESERVE, process=None
    )
    assert more.broken == (
        f"m: {more.beyond:,} taken beyond the prediction, {VRAM_RESERVE:,} are kept for it"
    )
    off = Row("m", 31, 31, predicted=1021 * MIB, engine=1000 * MIB, taken=0, process=None)
    assert off.broken == f"m: predicted {1021 * MIB:,}, llama.cpp says {1000 * MIB:,}"


def test_the_table_names_what_was_not_counted() -> None:
    said = table([Row("qwen3-4b", 18, 37, 1050 * MIB, 1000 * MIB, 1300 * MIB, None)]).splitlines()
    assert said[1].split() == ["qwen3-4b", "18/37", "1050.0", "1000.0", "+5.00%", "1300.0", "-", "250.0"]
