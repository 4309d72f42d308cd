"""A site of machines that pass a blob on to one another: how much the control side sends, and that nothing stays open."""

import hashlib
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgectl.layout import SYSTEM
from tests.e2e import manifests
from tests.lab.control import Control, make_bundle
from tests.lab.fleet import ROOT, Lab
from tests.lab.spec import Spec
from tests.support.models import quickstart_model

pytestmark = pytest.mark.engine

SIZE = 48 * 1024 * 1024
SHARING = ("lap1", "lap2", "lap3")
NAMES = (*SHARING, "bare")


@pytest.fixture(scope="module")
def fleet(lab: Callable[..., Lab]) -> Control:
    make_bundle(ROOT, "--swarm")
    make_bundle()
    control = Control(lab(*(Spec(name) for name in NAMES)))
    for name in NAMES:
        control.add(name, "--label", "site=lab")
    assert {row["outcome"] for row in control.bootstrap(*SHARING, "--swarm")} == {"installed"}
    assert [row["outcome"] for row in control.bootstrap("bare")] == ["installed"]
    return control


def bring(control: Control, path: Path, *names: str) -> tuple[dict[str, Any], int]:
    """By the swarm; what came of it, and the bytes that left the control side's network device meanwhile."""
    before = control.lab.network.control_counters().sent
    done = control.lab.run([sys.executable, "-m", "tests.support.bring", "swarm", str(path), *names])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), control.lab.network.control_counters().sent - before


def made(control: Control, seed: int) -> Path:
    path = control.lab.home / f"model-{seed}.gguf"
    path.write_bytes(random.Random(seed).randbytes(SIZE))
    return path


def listening(control: Control, name: str) -> set[str]:
    """Addresses and ports beyond loopback that the machine listens on."""
    lines = control.lab[name].run(["ss", "-H", "-l", "-n", "-t", "-u"]).stdout.splitlines()
    return {line.split()[4] for line in lines if not line.split()[4].startswith(("127.", "[::1]"))}


def test_the_control_side_sends_one_copy_to_the_site(fleet: Control) -> None:
    path = made(fleet, 1)
    before = {name: listening(fleet, name) for name in SHARING}
    found, sent = bring(fleet, path, *NAMES)
    assert set(found["arrived"]) == set(SHARING)
    assert found["fell_back"] == {"bare": "this device has no libtorrent"}
    assert SIZE <= sent <= 1.5 * SIZE
    hexadecimal = hashlib.sha256(path.read_bytes()).hexdigest()
    stored = f"{SYSTEM.state_dir}/store/blobs/{hexadecimal[:2]}/{hexadecimal}"
    for name in SHARING:
        said = fleet.lab[name].run(["sha256sum", stored]).stdout
        assert said.split()[0] == hexadecimal
        assert fleet.lab[name].run(["stat", "-c", "%a %h", stored]).stdout.split() == ["444", "1"]
        # The port was open for as long as the swarm went on.
        assert listening(fleet, name) == before[name]
    assert not fleet.lab["bare"].exists(stored)


def test_the_next_device_of_the_site_costs_the_control_side_nothing(fleet: Control) -> None:
    """An upgrade of the bare one brings what it needs for a swarm, and the blob comes from its neighbours."""
    rows = fleet.bootstrap("bare", "--swarm")
    assert [row["outcome"] for row in rows] == ["upgraded"]
    found, sent = bring(fleet, made(fleet, 1), *NAMES)
    assert set(found["arrived"]) == set(NAMES)
    assert found["sent"] == 0
    assert sent < SIZE / 10
    # What was said once stays: bootstrapping it again changes nothing.
    assert [row["outcome"] for row in fleet.bootstrap("bare")] == ["unchanged"]
    assert [row["outcome"] for row in fleet.bootstrap("bare", "--no-swarm")] == ["upgraded"]
    found, _sent = bring(fleet, made(fleet, 2), "bare")
    assert found["fell_back"] == {"bare": "this device has no libtorrent"}


def test_a_deploy_to_the_site_sends_one_copy_and_one_to_who_cannot_share(
    fleet: Control, tmp_path: Path
) -> None:
    model = quickstart_model()
    manifest = manifests.write(
        tmp_path / "site.yaml",
        {"assistant": manifests.model(model)},
        rollout={"swarm": "site", "max_unavailable": 8},
    )
    before = fleet.lab.network.control_counters().sent
    done = fleet.deploy(manifest)
    sent = fleet.lab.network.control_counters().sent - before
    assert (done.code, set(done.outcomes().values())) == (0, {"succeeded"}), done.err + done.out
    size = model.stat().st_size
    assert {row["device"]: row["bytes_moved"] for row in done.json["devices"]} == dict.fromkeys(NAMES, size)
    # One copy for the three that share, and one for the fourth.
    assert 2 * size <= sent < 2.5 * size
    for name in NAMES:
        assert fleet.lab[name].chat()[0] == 200
