"""Which GPU a measured bandwidth is of, what it holds for, and a measurement of this machine by ggml itself."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent_daemon.bandwidth import BandwidthProbe, by_gpu, complete, identity
from agent_daemon.contract.wire import Facts, GpuFacts, RuntimeFacts
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_messages import Bandwidth, Bandwidths, parse_bandwidths
from tests.support import rpc_devices

CUDA = RuntimeFacts(version="0.3.36", backends=("cpu", "cuda"))
RAM = Bandwidth(name="CPU", ram=True, bytes_per_second=20)


def gpu(index: int) -> GpuFacts:
    return GpuFacts(index=index, uuid=f"GPU-{index}", vendor="nvidia", name="NVIDIA L4")


def of(name: str, speed: int, pci: str | None = None) -> Bandwidth:
    return Bandwidth(name=name, ram=False, pci=pci, bytes_per_second=speed)


def device(*gpus: GpuFacts, runtime: RuntimeFacts = CUDA) -> Facts:
    return Facts(agent_id="a", agent_version="1", cpu_model="Xeon", cpu_cores=8, gpus=gpus, runtime=runtime)


@pytest.mark.parametrize(
    ("devices", "addresses", "expected"),
    [
        # CUDA counts the fastest first, NVML by the slot.
        ([of("CUDA0", 300, "b"), of("CUDA1", 200, "a")], ("a", "b"), (200, 300)),
        ([of("CUDA0", 300, "b")], ("a", "b"), (None, 300)),
        ([of("CUDA0", 300), of("CUDA1", 200)], ("a", "b"), (None, None)),
        ([of("CUDA0", 300, "a"), of("CUDA1", 200, "b")], (None, None), (None, None)),
        ([of("CUDA0", 300, "a"), of("CUDA1", 200, "b")], (), (None, None)),
        ([], ("a", "b"), (None, None)),
    ],
)
def test_a_device_is_a_gpu_by_its_address_or_not_at_all(
    devices: list[Bandwidth], addresses: tuple[str | None, ...], expected: tuple[int | None, ...]
) -> None:
    assert by_gpu([RAM, *devices], (gpu(0), gpu(1)), addresses) == expected


def test_one_of_each_is_the_same_unless_the_addresses_say_otherwise() -> None:
    assert by_gpu([RAM, of("Vulkan0", 300)], (gpu(0),), ("a",)) == (300,)
    assert by_gpu([of("CUDA0", 300, "a")], (gpu(0),), ()) == (300,)
    assert by_gpu([of("CUDA0", 300, "b")], (gpu(0),), ("a",)) == (None,)
    assert by_gpu([of("CUDA0", 300, "a")], (), ()) == ()


def test_what_was_kept_holds_for_the_same_runtime_and_devices_only(tmp_path: Path) -> None:
    one = device(gpu(0))
    file = tmp_path / "bandwidth.json"
    measured = Bandwidths(devices=(RAM, of("CUDA0", 300)))
    file.write_text(json.dumps({"identity": identity(one), "measured": json.loads(measured.json())}))
    probe = BandwidthProbe(file, Supervisor(never, print))
    found = probe.known(one)
    assert (found.ram_bandwidth, found.gpus[0].bandwidth) == (20, 300)
    assert complete(found)
    newer = device(gpu(0), runtime=CUDA.model_copy(update={"version": "0.3.37"}))
    for other in (newer, device(gpu(1)), device(gpu(0), gpu(1)), device()):
        assert probe.known(other) == other
        assert not complete(probe.known(other))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"identity": 1, "measured": 7}', "\0"])
def test_what_was_kept_and_makes_no_sense_is_measured_again(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bandwidth.json"
    file.write_text(text)
    assert BandwidthProbe(file, Supervisor(never, print)).known(device()) == device()


async def never(_model: object) -> object:  # type: ignore[misc]
    raise AssertionError


@pytest.mark.engine
def test_it_is_measured_once_and_told(tmp_path: Path) -> None:
    file = tmp_path / "bandwidth.json"
    facts = device(runtime=RuntimeFacts(version="0.3.36", backends=("cpu",)))
    told: list[int | None] = []

    async def run() -> None:
        probe = BandwidthProbe(file, Supervisor(never, print), calm=0.1)

        async def current() -> Facts:
            return facts

        async def tell() -> None:
            told.append(probe.known(facts).ram_bandwidth)

        await probe.run(current, tell)

    asyncio.run(run())
    kept = file.read_text()
    assert told[0] is not None
    assert told[0] > 10**8
    asyncio.run(run())
    assert (told[1], file.read_text()) == (told[0], kept)


# -- ggml ------------------------------------------------------------------------------------------------

_PROBE = """
import sys
from pathlib import Path
from agent_daemon.worker.bandwidth import probe
from agent_daemon.worker.runtime import load_backends
from tests.bench.fit.truth import attach
library, *devices = sys.argv[1:]
attach(load_backends(), Path(library), devices)
print(probe().json().decode())
"""


@pytest.mark.engine
def test_every_device_is_measured_in_its_order_and_ram_is_told_apart() -> None:
    with rpc_devices.devices(2) as running:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, str(running.library), *running.addresses],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    found = parse_bandwidths(done.stdout.splitlines()[-1]).devices
    assert [each.ram for each in found].count(True) == 1
    remote = [each for each in found if not each.ram]
    assert [each.name[:3] for each in remote] == ["RPC", "RPC"]
    assert by_gpu(found, (gpu(0), gpu(1)), ("a", "b")) == (None, None)
    # a device on loopback answers before it has computed: how fast it was says nothing
    assert [10**7 < each.bytes_per_second < 10**13 for each in found if each.ram] == [True]
    assert all(each.bytes_per_second > 0 for each in remote)


@pytest.mark.engine
def test_with_too_little_room_nothing_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent_daemon.worker", "--probe-bandwidth", "--most", str(63 << 20)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert parse_bandwidths(done.stdout.splitlines()[-1]) == Bandwidths()
