"""Sixteen machines at once: all of them succeed, and the control side says what it took."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import manifests
from tests.lab.control import make_bundle
from tests.lab.fleet import Lab
from tests.lab.spec import Spec
from tests.support.models import ladder

pytestmark = pytest.mark.engine

NAMES = tuple(f"dev{number:02}" for number in range(1, 17))

MEASURE = """
import json, resource, subprocess, sys, time
began = time.monotonic()
done = subprocess.run([sys.executable, "-m", "edgectl", *sys.argv[1:]], stdout=subprocess.PIPE)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "code": done.returncode,
    "seconds": round(time.monotonic() - began, 1),
    "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
    "peak_mib": round(used.ru_maxrss / 1024),
    "out": done.stdout.decode(),
}))
"""


def measured(lab: Lab, *arguments: str | Path) -> dict[str, object]:
    """One command of the control side: exit code, output, seconds, processor seconds and its peak of memory."""
    done = lab.run([sys.executable, "-c", MEASURE, *map(str, arguments)], timeout=900)
    assert "Traceback" not in done.stderr, done.stderr
    figures: dict[str, object] = json.loads(done.stdout)
    return figures


@pytest.fixture(scope="module")
def sixteen(lab: Callable[..., Lab]) -> Lab:
    make_bundle()
    return lab(*(Spec(name) for name in NAMES))


def test_sixteen_machines_at_once(
    sixteen: Lab, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    added = measured(
        sixteen, "device", "add", "--from-ssh-config", "dev*", "--label", "size=16", "-o", "json"
    )
    installed = measured(sixteen, "device", "bootstrap", "-l", "size=16", "--ram-limit", "1GiB", "-o", "json")
    assert [row["outcome"] for row in json.loads(str(installed["out"]))] == ["installed"] * len(NAMES)
    manifest = manifests.write(
        tmp_path / "m.yaml",
        {"assistant": manifests.model(ladder()["Q2_K"])},
        probe={"timeout": 120},
        rollout={"max_parallel": 16},
    )
    deployed = measured(sixteen, "deploy", "-f", manifest, "--yes", "-o", "json")
    outcomes = {row["device"]: row["outcome"] for row in json.loads(str(deployed["out"]))["devices"]}
    assert outcomes == dict.fromkeys(NAMES, "succeeded")
    refreshed = measured(sixteen, "status", "--refresh", "-o", "json")
    assert json.loads(str(refreshed["out"]))["summary"]["by_state"] == {"serving": len(NAMES)}
    assert {sixteen[name].chat()[0] for name in NAMES} == {200}
    again = measured(sixteen, "deploy", "-f", manifest, "--yes", "-o", "json")
    assert again["code"] == 0
    figures = {"add": added, "bootstrap": installed, "deploy": deployed, "refresh": refreshed, "again": again}
    for name, taken in figures.items():
        shown = {key: taken[key] for key in ("seconds", "cpu_seconds", "peak_mib")}
        record_property(name, json.dumps(shown))
        print(f"{len(NAMES)} machines, {name}: {shown}")
