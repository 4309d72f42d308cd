"""Sixteen machines at once: bare, installed, serving. What it costs the control side: tests/bench/bench_fleet.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import manifests
from tests.lab.control import Control, make_bundle
from tests.lab.fleet import Lab
from tests.lab.spec import Spec
from tests.support.models import ladder

pytestmark = pytest.mark.engine

NAMES = tuple(f"dev{number:02}" for number in range(1, 17))


@pytest.fixture(scope="module")
def sixteen(lab: Callable[..., Lab]) -> Lab:
    make_bundle()
    return lab(*(Spec(name) for name in NAMES))


def test_sixteen_machines_at_once(sixteen: Lab, tmp_path: Path) -> None:
    control = Control(sixteen)
    control.ok("device", "add", "--from-ssh-config", "dev*", "--label", "size=16")
    rows = control.bootstrap("-l", "size=16", "--ram-limit", "1GiB", timeout=900)
    assert {row["name"]: row["outcome"] for row in rows} == dict.fromkeys(NAMES, "installed")
    manifest = manifests.write(
        tmp_path / "m.yaml",
        {"assistant": manifests.model(ladder()["Q2_K"])},
        probe={"timeout": 300},
        rollout={"max_unavailable": 16},
    )
    done = control.deploy(manifest)
    assert (done.code, done.outcomes()) == (0, dict.fromkeys(NAMES, "succeeded"))
    assert {sixteen[name].chat()[0] for name in NAMES} == {200}
    rows_by_name = control.status("--refresh")
    assert {(row["state"], row["release"]) for row in rows_by_name.values()} == {("serving", "r1")}
    assert control.usage()["answered"] == len(NAMES)
    again = control.deploy(manifest)
    assert (again.code, set(again.outcomes().values())) == (0, {"unchanged"})
