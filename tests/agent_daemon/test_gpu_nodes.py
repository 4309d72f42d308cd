"""Which device nodes a GPU should have: on made trees of /sys and /dev, as the kernel lays them out."""

import threading
import time
from pathlib import Path

import pytest

from agent_daemon.gpu_nodes import missing_nodes, wait

NVIDIA, AMD, INTEL = "0x10de", "0x1002", "0x8086"


def card(sysfs: Path, slot: str, vendor: str, kind: str = "0x030000", driver: str | None = None) -> None:
    device = sysfs / "bus/pci/devices" / slot
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    if driver:
        (device / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")


@pytest.mark.parametrize(
    ("vendor", "kind", "driver", "missing"),
    [
        (NVIDIA, "0x030000", "nvidia", ("nvidiactl", "nvidia[0-9]*", "nvidia-uvm")),
        (NVIDIA, "0x030200", None, ("nvidiactl", "nvidia[0-9]*", "nvidia-uvm")),
        (NVIDIA, "0x030000", "nouveau", ()),
        (NVIDIA, "0x040300", "snd_hda_intel", ()),
        (AMD, "0x030000", "amdgpu", ("kfd", "dri/renderD*")),
        (AMD, "0x030000", "radeon", ()),
        (INTEL, "0x030000", "i915", ()),
    ],
)
def test_what_is_missing_follows_from_the_card_and_its_driver(
    tmp_path: Path, vendor: str, kind: str, driver: str | None, missing: tuple[str, ...]
) -> None:
    card(tmp_path / "sys", "0000:01:00.0", vendor, kind, driver)
    (tmp_path / "dev").mkdir()
    assert missing_nodes(tmp_path / "sys", tmp_path / "dev") == missing


def test_a_machine_without_a_gpu_waits_for_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    assert wait(30, tmp_path / "sys", tmp_path / "dev") == ()
    assert time.monotonic() - began < 5


def test_it_goes_on_as_soon_as_the_last_node_is_there(tmp_path: Path) -> None:
    sysfs, dev = tmp_path / "sys", tmp_path / "dev"
    card(sysfs, "0000:01:00.0", AMD, driver="amdgpu")
    (dev / "dri").mkdir(parents=True)
    (dev / "kfd").touch()
    threading.Timer(0.4, (dev / "dri/renderD128").touch).start()
    assert wait(30, sysfs, dev) == ()
    assert (dev / "dri/renderD128").exists()


def test_nodes_that_never_come_are_named_and_hold_up_nobody(tmp_path: Path) -> None:
    card(tmp_path / "sys", "0000:01:00.0", NVIDIA, driver="nvidia")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert wait(0.3, tmp_path / "sys", tmp_path / "dev") == ("nvidia[0-9]*", "nvidia-uvm")
