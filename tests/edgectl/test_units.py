"""The services that bootstrap installs, judged by systemd's own tools."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgectl.layout import SYSTEM, Layout, user_layout
from edgectl.units import AGENT_UNIT, GPU_UNIT, GUARD_UNIT, WATCHDOG_SECONDS, bundled, units

EXPOSURE = {AGENT_UNIT: 1.8, GPU_UNIT: 4.1, GUARD_UNIT: 3.2}
"""`systemd-analyze security` of systemd 252, 0 (nothing to attack) to 10: README says the agent's. It may fall."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in units(SYSTEM).items():
        (tmp_path / name).write_text(
            text.replace(SYSTEM.command, "/bin/true").replace(f"{SYSTEM.guard}/python", "/bin/true")
        )
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [AGENT_UNIT, GPU_UNIT, GUARD_UNIT])
def test_systemd_understands_every_line(folder: Path, name: str) -> None:
    done = analyze("verify", "--man=no", "--generators=no", "--recursive-errors=no", str(folder / name))
    assert name not in done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [AGENT_UNIT, GPU_UNIT, GUARD_UNIT])
def test_how_exposed_a_unit_is(folder: Path, name: str) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", str(folder / name))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE[name]


def test_the_agent_starts_after_the_gpu_s_nodes_but_not_only_then() -> None:
    text = units(SYSTEM)[AGENT_UNIT]
    assert f"Wants={GPU_UNIT}" in text
    assert re.search(rf"^After={GPU_UNIT}", text, re.MULTILINE)
    assert "Requires=" not in text


@pytest.mark.parametrize("text", [units(SYSTEM)[AGENT_UNIT], units(user_layout("/home/joe"))[AGENT_UNIT]])
def test_an_agent_is_watched_and_always_started_again(text: str) -> None:
    lines = text.splitlines()
    assert f"WatchdogSec={WATCHDOG_SECONDS}" in lines
    assert {"Type=notify", "Restart=always", "StartLimitIntervalSec=0", "NoNewPrivileges=yes"} <= set(lines)


def test_a_bundle_holds_units_of_both_scopes_and_nobody_s_home() -> None:
    found = bundled()
    system, person = (GUARD_UNIT, GPU_UNIT, AGENT_UNIT), (GUARD_UNIT, AGENT_UNIT)
    assert set(found) == {f"system/{name}" for name in system} | {f"user/{name}" for name in person}
    assert "%h/.local/share/edgectl-agent/current/bin/edgectl-agent run" in found[f"user/{AGENT_UNIT}"]
    assert "User=" not in found[f"user/{AGENT_UNIT}"]


@pytest.mark.parametrize("layout", [SYSTEM, user_layout("/home/joe")], ids=["system", "user"])
def test_the_guard_needs_no_version_and_works_while_an_upgrade_is_undecided(layout: Layout) -> None:
    text = units(layout)[GUARD_UNIT]
    lines = text.splitlines()
    assert f"ConditionPathExists={layout.prefix}/upgrade/marker.json" in lines
    assert (
        f"ExecStart={layout.prefix}/guard/python -I {layout.prefix}/guard/guard.py {layout.prefix}" in lines
    )
    assert "versions" not in text
    assert "current" not in text
    # Its own crash does not end it, and it is there at the next boot.
    assert {"Restart=on-failure", "StartLimitIntervalSec=0"} <= set(lines)
    assert any(line.startswith("WantedBy=") for line in lines)
    assert list(units(layout))[-1] == AGENT_UNIT
