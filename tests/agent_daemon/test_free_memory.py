"""The least of what the system, its control groups and the process's own limits leave: from trees that a test makes,
and from real limits on a real process."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from agent_daemon import telemetry
from agent_daemon.free_memory import cgroup_room, free_ram, rlimit_room

MIB = 1 << 20
GIB = 1 << 30


class Tree:
    """A made /proc and /sys/fs/cgroup."""

    def __init__(self, folder: Path, membership: str) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self/cgroup").write_text(membership)
        self.cgroups.mkdir()

    def v2(self, path: str, limit: str, current: int, **stat: int) -> None:
        group = self.cgroups / path
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{current}\n")
        self._stat(group, stat)

    def v1(self, path: str, limit: int, usage: int, **stat: int) -> None:
        group = self.cgroups / "memory" / path
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (group / "memory.usage_in_bytes").write_text(f"{usage}\n")
        self._stat(group, stat)

    def _stat(self, group: Path, stat: dict[str, int]) -> None:
        (group / "memory.stat").write_text("".join(f"{name} {size}\n" for name, size in stat.items()))

    def room(self) -> int | None:
        return cgroup_room(self.proc, self.cgroups)


UNIT = "0::/system.slice/agent.service\n"


def test_a_unit_has_what_its_limit_leaves_and_what_nobody_used_lately(tmp_path: Path) -> None:
    tree = Tree(tmp_path, UNIT)
    tree.v2("system.slice/agent.service", str(4 * GIB), GIB, anon=700 * MIB, inactive_file=300 * MIB)
    assert tree.room() == 4 * GIB - (GIB - 300 * MIB)


def test_every_level_up_counts_and_the_tightest_is_what_is_left(tmp_path: Path) -> None:
    tree = Tree(tmp_path, UNIT)
    tree.v2("system.slice/agent.service", str(4 * GIB), GIB, inactive_file=0)
    tree.v2("system.slice", str(8 * GIB), 6 * GIB, inactive_file=512 * MIB)
    assert tree.room() == 2 * GIB + 512 * MIB
    tree.v2("system.slice/agent.service", "max", GIB, inactive_file=0)
    assert tree.room() == 2 * GIB + 512 * MIB
    tree.v2("system.slice", "max", 6 * GIB)
    assert tree.room() is None


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    tree = Tree(tmp_path, UNIT)
    tree.v2("system.slice/agent.service", str(GIB), GIB + MIB, inactive_file=0)
    assert tree.room() == 0


def test_weights_that_are_mapped_count_as_available_once(tmp_path: Path) -> None:
    """As the kernel's own figure has it; whoever wants to know what is left beside them takes off what is mapped."""
    tree = Tree(tmp_path, UNIT)
    group, used = "system.slice/agent.service", 3 * GIB
    tree.v2(group, str(4 * GIB), used, inactive_file=256 * MIB, active_file=2 * GIB, file_mapped=2 * GIB)
    assert tree.room() == 4 * GIB - (used - 2 * GIB - 256 * MIB)
    # Mapped pages that nobody has touched lately are on both counts.
    tree.v2(group, str(4 * GIB), used, inactive_file=2 * GIB, active_file=0, file_mapped=2 * GIB)
    assert tree.room() == 4 * GIB - (used - 2 * GIB)


def test_a_containers_group_is_the_root_that_it_sees(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "0::/\n")
    tree.v2("", str(2 * GIB), 512 * MIB, inactive_file=12 * MIB)
    assert tree.room() == 2 * GIB - 500 * MIB


@pytest.mark.parametrize("path", ["/docker/0123abc", "/../../docker/0123abc"])
def test_a_path_of_the_host_is_not_found_inside_a_container_and_the_root_counts(
    tmp_path: Path, path: str
) -> None:
    tree = Tree(tmp_path, f"0::{path}\n")
    tree.v2("", str(2 * GIB), 512 * MIB)
    assert tree.room() == 2 * GIB - 512 * MIB


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "12:cpu,cpuacct:/a\n9:memory:/docker/x\n1:name=systemd:/a\n0::/unified\n")
    tree.v1("docker/x", 4 * GIB, GIB, total_inactive_file=100 * MIB, inactive_file=7)
    tree.v1("docker", 2**63 - 4096, 20 * GIB)
    tree.v1("", 2**63 - 4096, 20 * GIB)
    assert tree.room() == 3 * GIB + 100 * MIB
    tree.v1("docker", 3 * GIB, 2 * GIB)
    assert tree.room() == GIB


@pytest.mark.parametrize("membership", ["", "nonsense\n", "0::\n", "0:\n", "::\n0::/a:b/c\n"])
def test_what_cannot_be_read_limits_nothing(tmp_path: Path, membership: str) -> None:
    tree = Tree(tmp_path, membership)
    assert tree.room() is None
    (tree.cgroups / "memory.max").write_text("many\n")
    (tree.cgroups / "memory.current").write_text("1\n")
    assert tree.room() is None
    assert cgroup_room(tmp_path / "gone", tmp_path / "gone") is None


def test_the_least_is_what_is_free_and_is_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path, UNIT)
    there = free_ram(tree.proc, tree.cgroups)
    assert (there.bound_by, there.each) == ("system", rlimit_room())
    assert there.free == there.shared
    available = telemetry.ram_available()
    assert available is not None
    assert abs((there.free or 0) - available) < 2 * GIB
    tree.v2("system.slice/agent.service", str(64 * MIB), 60 * MIB)
    tight = free_ram(tree.proc, tree.cgroups)
    assert (tight.free, tight.bound_by, tight.shared) == (4 * MIB, "cgroup", 4 * MIB)


# -- limits of a process ---------------------------------------------------------------------------------

_LIMITED = """
import json, mmap, resource, sys
from agent_daemon.free_memory import free_ram
name, soft, take = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(getattr(resource, name), (soft, resource.RLIM_INFINITY))
held = mmap.mmap(-1, take, flags=mmap.MAP_PRIVATE) if take else None
found = free_ram()
room = found.each
def can(size):
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE).close()
    except OSError:
        return False
    return True
print(json.dumps([found.free, found.bound_by, room, found.shared, can(room - (4 << 20)), can(room + (4 << 20))]))
"""


@pytest.mark.parametrize("name", ["RLIMIT_DATA", "RLIMIT_AS"])
def test_a_process_can_take_what_its_own_limit_leaves_and_not_more(name: str) -> None:
    limit = 3 * GIB
    free, by, each, shared, less, more = _limited(name, limit, 0)
    assert by == "rlimit"
    assert free == each
    assert limit - 2 * GIB < each < limit
    assert shared > each
    assert (less, more) == (True, False)
    # What the process maps already is off.
    assert abs(each - _limited(name, limit, 256 * MIB)[2] - 256 * MIB) < 8 * MIB


def _limited(name: str, limit: int, take: int) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, name, str(limit), str(take)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


def test_without_a_limit_there_is_none() -> None:
    limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    unlimited = all(resource.getrlimit(each)[0] == resource.RLIM_INFINITY for each in limits)
    assert (rlimit_room() is None) == unlimited
