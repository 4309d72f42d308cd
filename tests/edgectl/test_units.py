"""The services that bootstrap installs, judged by systemd's own tools."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgectl.layout import SYSTEM, user_layout
from edgectl.units import AGENT_UNIT, GPU_UNIT, WATCHDOG_SECONDS, bundled, units

EXPOSURE = {AGENT_UNIT: 1.8, GPU_UNIT: 4.1}
"""`systemd-analyze security` of systemd 252, 0 (nothing to attack) to 10: README says the agent's. It may fall."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in units(SYSTEM).items():
        (tmp_path / name).write_text(text.replace(SYSTEM.command, "/bin/true"))
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [AGENT_UNIT, GPU_UNIT])
def test_systemd_understands_every_line(folder: Path, name: str) -> None:
    done = analyze("verify", "--man=no", "--generators=no", "--recursive-errors=no", str(folder / name))
    assert name not in done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [AGENT_UNIT, GPU_UNIT])
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
    assert sorted(found) == [f"system/{GPU_UNIT}", f"system/{AGENT_UNIT}", f"user/{AGENT_UNIT}"]
    assert "%h/.local/share/edgectl-agent/current/bin/edgectl-agent run" in found[f"user/{AGENT_UNIT}"]
    assert "User=" not in found[f"user/{AGENT_UNIT}"]
