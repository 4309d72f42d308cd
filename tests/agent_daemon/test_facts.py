"""Facts from the real machine, from a fake sysfs, and from stand-in GPUs through the real pynvml."""

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_daemon import __version__
from agent_daemon.contract.wire import Facts, GpuFacts, RuntimeFacts
from agent_daemon.facts import cpu_features, cpu_model, detect_facts
from agent_daemon.gpus import _pci_address, detect_gpus, free_vram, pci_addresses
from tests.support import nvml
from tests.support.nvml import GPU_IS_LOST, GpuMachine, gpu

GIB = 1024**3
RTX = gpu(
    0,
    24 * GIB,
    20 * GIB,
    name="NVIDIA GeForce RTX 4090",
    uuid="GPU-00000000-aaaa",
    compute="8.9",
    process="7:1",
)
T4 = gpu(1, 16 * GIB, 15 * GIB, name="Tesla T4", uuid="GPU-00000000-bbbb", compute="7.5")
RTX_FACTS = {
    "index": 0,
    "uuid": "GPU-00000000-aaaa",
    "vendor": "nvidia",
    "name": "NVIDIA GeForce RTX 4090",
    "vram_total": 24 * GIB,
    "vram_free": 20 * GIB,
    "driver": "550.54.14",
    "compute_capability": "8.9",
    "vram_others": 4 * GIB,
    "bandwidth": None,
}
T4_FACTS = RTX_FACTS | {
    "index": 1,
    "uuid": "GPU-00000000-bbbb",
    "name": "Tesla T4",
    "vram_total": 16 * GIB,
    "vram_free": 15 * GIB,
    "compute_capability": "7.5",
    "vram_others": GIB,
}
DRIVER = "driver 550.54.14"


@pytest.fixture
def no_sysfs(tmp_path: Path) -> str:
    return f"Path({str(tmp_path / 'no-sysfs')!r})"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[GpuMachine]:
    with GpuMachine(tmp_path / "gpus.txt") as process:
        yield process


# -- NVIDIA ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [((), []), ((RTX,), [RTX_FACTS]), ((RTX, T4), [RTX_FACTS, T4_FACTS])],
    ids=["none", "one", "two"],
)
def test_every_nvidia_gpu_is_listed_with_its_facts(
    machine: GpuMachine, no_sysfs: str, lines: tuple[str, ...], expected: list[dict[str, object]]
) -> None:
    machine.set(DRIVER, *lines)
    assert machine.ask(f"gpus.detect_gpus({no_sysfs})") == [expected, None]


def test_a_machine_without_nvml_has_no_gpus_and_no_error(tmp_path: Path, no_sysfs: str) -> None:
    with GpuMachine(tmp_path / "unused", nvml.environment_without_library(tmp_path)) as machine:
        assert machine.ask(f"gpus.detect_gpus({no_sysfs})") == [[], None]
        assert machine.ask(f"gpus.free_vram({no_sysfs})") == []


def test_a_library_without_its_driver_is_told_and_asked_again_next_time(
    machine: GpuMachine, no_sysfs: str
) -> None:
    assert machine.ask(f"gpus.detect_gpus({no_sysfs})") == [
        [],
        "NVIDIA GPUs: the driver does not answer (Driver Not Loaded)",
    ]
    machine.set(DRIVER, RTX)
    assert machine.ask(f"gpus.detect_gpus({no_sysfs})") == [[RTX_FACTS], None]


@pytest.mark.parametrize(
    ("function", "unknown", "label"),
    [
        ("nvmlDeviceGetMemoryInfo", ("vram_total", "vram_free", "vram_others"), "GPU 0 memory"),
        ("nvmlDeviceGetName", ("name",), "GPU 0 name"),
        ("nvmlDeviceGetUUID", ("uuid",), "GPU 0 UUID"),
        ("nvmlDeviceGetCudaComputeCapability", ("compute_capability",), "GPU 0 compute capability"),
        ("nvmlSystemGetDriverVersion", ("driver",), "NVIDIA driver version"),
    ],
)
def test_a_call_that_fails_leaves_only_its_fact_unknown(
    machine: GpuMachine, no_sysfs: str, function: str, unknown: tuple[str, ...], label: str
) -> None:
    machine.set(DRIVER, RTX, f"fail {function} {GPU_IS_LOST}")
    expected = RTX_FACTS | dict.fromkeys(unknown)
    assert machine.ask(f"gpus.detect_gpus({no_sysfs})") == [[expected], f"{label}: GPU is lost"]


def test_what_a_gpu_does_not_support_is_unknown_without_an_error(machine: GpuMachine, no_sysfs: str) -> None:
    machine.set(DRIVER, gpu(0, name="NVIDIA GB10", uuid="GPU-c", compute="12.1"))
    [found], error = machine.ask(f"gpus.detect_gpus({no_sysfs})")
    assert error is None
    assert found["name"] == "NVIDIA GB10"
    assert (found["vram_total"], found["vram_free"]) == (None, None)


def test_a_lost_gpu_is_named_and_the_other_keeps_its_facts_and_its_place(
    machine: GpuMachine, no_sysfs: str
) -> None:
    machine.set(DRIVER, RTX, T4, f"fail nvmlDeviceGetHandleByIndex_v2 {GPU_IS_LOST} 0")
    lost = dict.fromkeys(RTX_FACTS) | {"index": 0, "vendor": "nvidia", "driver": "550.54.14"}
    assert machine.ask(f"gpus.detect_gpus({no_sysfs})") == [[lost, T4_FACTS], "GPU 0: GPU is lost"]
    assert machine.ask(f"gpus.free_vram({no_sysfs})") == [None, 15 * GIB]


def test_gpus_that_vanish_over_a_suspend_come_back_by_themselves(machine: GpuMachine, no_sysfs: str) -> None:
    question = f"gpus.detect_gpus({no_sysfs})"
    machine.set(DRIVER, RTX)
    before = machine.ask(question)
    machine.set(DRIVER, RTX, f"fail nvmlDeviceGetCount_v2 {GPU_IS_LOST}")
    assert machine.ask(question) == [[], "NVIDIA GPUs: GPU is lost"]
    machine.set(DRIVER, RTX)
    assert machine.ask(question) == before == [[RTX_FACTS], None]


def test_free_memory_never_exceeds_the_total(machine: GpuMachine, no_sysfs: str) -> None:
    machine.set(DRIVER, gpu(0, 8 * GIB, 9 * GIB, name="odd"))
    assert machine.ask(f"gpus.free_vram({no_sysfs})") == [8 * GIB]


OURS = "{'GPU-00000000-aaaa': frozenset({70, 71})}"


@pytest.mark.parametrize(
    ("processes", "others"),
    [
        ("process=70:1073741824 process=71:536870912 process=9:7", 4 * GIB - GIB - GIB // 2),
        ("process=70:1073741824 process=9:7", None),
        ("process=70:unknown process=71:5", None),
        ("process=70:4294967296 process=71:4294967296", 0),
    ],
    ids=["others", "one-of-ours-is-not-listed", "a-driver-that-does-not-count", "more-than-is-used"],
)
def test_what_others_use_of_a_gpu_is_what_our_workers_do_not(
    machine: GpuMachine, no_sysfs: str, processes: str, others: int | None
) -> None:
    line = gpu(0, 24 * GIB, 20 * GIB, name="NVIDIA GeForce RTX 4090", uuid="GPU-00000000-aaaa")
    machine.set(DRIVER, f"{line} {processes}", T4)
    first, second = machine.ask(f"gpus.detect_gpus({no_sysfs}, {OURS})")[0]
    assert (first["vram_others"], second["vram_others"]) == (others, GIB)


def test_a_gpu_whose_processes_cannot_be_listed_keeps_what_is_free(
    machine: GpuMachine, no_sysfs: str
) -> None:
    machine.set(DRIVER, RTX, f"fail nvmlDeviceGetComputeRunningProcesses_v3 {GPU_IS_LOST}")
    [found], error = machine.ask(f"gpus.detect_gpus({no_sysfs}, {OURS})")
    assert (found["vram_free"], found["vram_others"]) == (20 * GIB, None)
    assert error == "GPU 0 processes: GPU is lost"


def test_an_nvml_that_fails_halfway_leaves_that_gpu_unknown_and_says_so(
    machine: GpuMachine, no_sysfs: str
) -> None:
    machine.set(DRIVER, RTX, T4, f"fail nvmlDeviceGetMemoryInfo {GPU_IS_LOST} 1")
    (first, second), error = machine.ask(f"gpus.detect_gpus({no_sysfs})")
    assert (first["vram_free"], first["vram_others"]) == (20 * GIB, 4 * GIB)
    assert (second["vram_total"], second["vram_free"], second["vram_others"]) == (None, None, None)
    assert error == "GPU 1 memory: GPU is lost"


# -- AMD -------------------------------------------------------------------------------------------------


def _card(sysfs: Path, number: int, driver: str = "amdgpu", **files: str) -> Path:
    device = sysfs / f"class/drm/card{number}/device"
    device.mkdir(parents=True)
    for name, text in files.items():
        (device / name).write_text(f"{text}\n")
    target = sysfs / "bus/pci/drivers" / driver
    target.mkdir(parents=True, exist_ok=True)
    (device / "driver").symlink_to(target)
    return device


@pytest.fixture
def without_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in this process: a machine that runs them may have a GPU of its own."""
    import pynvml

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)


@pytest.mark.usefixtures("without_nvidia")
def test_amd_cards_are_read_from_sysfs_in_the_kernels_order(tmp_path: Path) -> None:
    card = {"vendor": "0x1002", "mem_info_vram_total": str(16 * GIB), "mem_info_vram_used": str(GIB)}
    _card(tmp_path, 10, **card)
    _card(tmp_path, 2, **card, product_name="Radeon PRO W7600", unique_id="5a3c9e0012345678")
    _card(tmp_path, 0, driver="i915", vendor="0x8086")
    (tmp_path / "class/drm/card2-DP-1/device").mkdir(parents=True)
    (tmp_path / "module/amdgpu").mkdir(parents=True)
    (tmp_path / "module/amdgpu/version").write_text("6.12.12\n")
    first = GpuFacts(
        index=0,
        uuid="GPU-5a3c9e0012345678",
        vendor="amd",
        name="Radeon PRO W7600",
        vram_total=16 * GIB,
        vram_free=15 * GIB,
        driver="amdgpu 6.12.12",
        vram_others=GIB,
    )
    second = first.model_copy(update={"index": 1, "uuid": None, "name": None})
    assert detect_gpus(tmp_path) == ((first, second), None)
    assert free_vram(tmp_path) == (15 * GIB, 15 * GIB)


@pytest.mark.usefixtures("without_nvidia")
def test_an_amd_card_is_never_freer_than_it_is_large_and_has_the_address_of_its_slot(tmp_path: Path) -> None:
    slot = tmp_path / "devices/pci0000:00/0000:03:00.0"
    slot.mkdir(parents=True)
    for name, text in {"vendor": "0x1002", "mem_info_vram_total": "100", "mem_info_vram_used": "-5"}.items():
        (slot / name).write_text(f"{text}\n")
    (tmp_path / "class/drm/card0").mkdir(parents=True)
    (tmp_path / "class/drm/card0/device").symlink_to(slot)
    (found,), _ = detect_gpus(tmp_path)
    assert (found.vram_free, found.vram_others) == (100, 0)
    assert pci_addresses(tmp_path) == ("0000:03:00.0",)


@pytest.mark.usefixtures("without_nvidia")
def test_an_amd_card_without_memory_counters_has_unknown_memory(tmp_path: Path) -> None:
    _card(tmp_path, 0, driver="radeon", vendor="0x1002")
    expected = GpuFacts(index=0, vendor="amd", driver="radeon")
    assert detect_gpus(tmp_path) == ((expected,), None)


@pytest.mark.usefixtures("without_nvidia")
def test_an_amd_counter_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    _card(tmp_path, 0, vendor="0x1002", mem_info_vram_total=str(GIB), mem_info_vram_used="?")
    (found,), error = detect_gpus(tmp_path)
    assert (found.vram_total, found.vram_free) == (GIB, None)
    assert error == "GPU 0 memory: mem_info_vram_used cannot be read (not a number)"


def test_amd_cards_are_counted_on_after_nvidia(machine: GpuMachine, tmp_path: Path) -> None:
    _card(tmp_path, 0, vendor="0x1002", mem_info_vram_total=str(GIB), mem_info_vram_used="0")
    machine.set(DRIVER, RTX)
    found, _ = machine.ask(f"gpus.detect_gpus(Path({str(tmp_path)!r}))")
    assert [(one["index"], one["vendor"]) for one in found] == [(0, "nvidia"), (1, "amd")]
    assert machine.ask(f"telemetry.gpu_free(Path({str(tmp_path)!r}))") == [20 * GIB, GIB]


@pytest.mark.parametrize(
    ("told", "address"),
    [
        (b"00000000:C1:00.0", "0000:c1:00.0"),
        ("0000:c1:00.0", "0000:c1:00.0"),
        ("card0", None),
        (b"", None),
    ],
)
def test_addresses_are_spelled_as_the_kernel_does(told: str | bytes, address: str | None) -> None:
    assert _pci_address(told) == address


# -- the rest of the machine -----------------------------------------------------------------------------


def test_facts_are_this_machines(tmp_path: Path) -> None:
    runtime = RuntimeFacts(version="0.3.36", backends=("cpu",))
    facts = detect_facts(
        agent_id="a1",
        state_dir=tmp_path,
        ram_limit=4 * GIB,
        runtime=runtime,
        gateway_url="http://127.0.0.1:11500",
        sysfs_root=tmp_path,
    )
    assert (facts.agent_id, facts.agent_version) == ("a1", __version__)
    assert (facts.ram_limit, facts.runtime) == (4 * GIB, runtime)
    assert facts.gateway_url == "http://127.0.0.1:11500"
    assert facts.hostname == platform.node()
    assert (facts.kernel, facts.arch) == (platform.release(), platform.machine())
    assert facts.python == platform.python_version()
    assert facts.cpu_threads == os.cpu_count()
    assert facts.cpu_cores is None or 1 <= facts.cpu_cores <= facts.cpu_threads
    assert facts.ram_total is not None
    assert facts.ram_available is not None
    kilobytes = Path("/proc/meminfo").read_text().partition("MemTotal:")[2].split()[0]
    assert facts.ram_total == int(kilobytes) * 1024
    assert 0 < facts.ram_available < facts.ram_total
    assert facts.ram_bound_by in ("system", "cgroup", "rlimit")
    assert facts.disk_free is not None
    assert abs(facts.disk_free - shutil.disk_usage(tmp_path).free) < GIB
    assert Facts.model_validate_json(facts.model_dump_json()) == facts


def test_what_cannot_be_known_is_none(tmp_path: Path) -> None:
    facts = detect_facts(
        agent_id="a1", state_dir=tmp_path / "gone", sysfs_root=tmp_path, cpuinfo=tmp_path / "gone"
    )
    assert (facts.disk_free, facts.cpu_model, facts.cpu_features) == (None, None, ())
    assert (facts.ram_limit, facts.gateway_url, facts.runtime) == (None, None, RuntimeFacts())


def test_an_x86_processor() -> None:
    text = (
        "processor\t: 0\nmodel name\t: AMD Ryzen 9 7950X 16-Core Processor\n"
        "flags\t\t: fpu sse4_2 f16c fma avx avx2 avx512f avx512_bf16 hypervisor\n\n"
        "processor\t: 1\nmodel name\t: AMD Ryzen 9 7950X 16-Core Processor\n"
        "flags\t\t: fpu sse4_2 f16c fma avx avx2 avx512f avx512_bf16 hypervisor\n"
    )
    assert cpu_model(text) == "AMD Ryzen 9 7950X 16-Core Processor"
    assert cpu_features(text) == ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16")


def test_an_arm_processor_with_two_kinds_of_cores_has_what_both_have() -> None:
    text = (
        "processor\t: 0\nFeatures\t: fp asimd evtstrm asimddp\nCPU part\t: 0xd05\n\n"
        "processor\t: 1\nFeatures\t: fp asimd evtstrm asimddp i8mm\nCPU part\t: 0xd41\n"
    )
    assert cpu_model(text) is None
    assert cpu_features(text) == ("asimd", "asimddp")


@pytest.mark.parametrize("text", ["", "model name\t: unknown\n", "model name\t:\n", "no colon here\n"])
def test_a_processor_without_a_name(text: str) -> None:
    assert (cpu_model(text), cpu_features(text)) == (None, ())
