"""A blob through an SSH channel, by root and by somebody who may become root: both end as the agent's own user."""

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from agent_daemon.contract import digest as digests
from edgectl.layout import SYSTEM
from edgectl.transport.ssh_dial import receive_command
from tests.lab.control import Control, make_bundle
from tests.lab.fleet import Lab
from tests.lab.spec import Spec, User
from tests.support.agent import wait_until

CONTENT = os.urandom(20 * 1024 * 1024 + 3)
SIZE = len(CONTENT)
STORE = f"{SYSTEM.state_dir}/store"


@pytest.fixture(scope="module")
def box(lab: Callable[..., Lab]) -> Lab:
    make_bundle()
    machines = lab(Spec("box", users=(User("anna", "free"),)))
    control = Control(machines)
    control.add("box")
    control.bootstrap("box")
    return machines


def send(lab: Lab, login: str, content: bytes, cut: int, offset: int = 0) -> list[dict[str, Any]]:
    """The lines that the device answers when bytes from `offset` to `cut` are sent by that login."""
    command = receive_command({}, login, digests.of_bytes(content), len(content), offset)
    done = subprocess.run(
        lab.control(["ssh", "-F", str(lab.ssh_config), f"{login}@box", command]),
        input=content[offset:cut],
        capture_output=True,
        env=lab.environment(),
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("login", ["root", "anna"])
def test_a_blob_comes_into_the_store_and_belongs_to_the_agent(box: Lab, login: str) -> None:
    content = login.encode() + CONTENT
    digest, half = digests.of_bytes(content), SIZE // 2
    first = send(box, login, content, half)
    assert (first[0], first[-1]) == ({"ready": 0}, {"offset": half})
    second = send(box, login, content, len(content), half)
    assert (second[0], second[-1]) == ({"ready": half}, {"complete": True})
    listed = box["box"].run(["sh", "-c", f"find {STORE} -printf '%u:%g %p\\n'"]).stdout.splitlines()
    assert len(listed) > 5
    assert {line.partition(" ")[0] for line in listed} == {"edgectl-agent:edgectl-agent"}
    path = f"{STORE}/blobs/{digest[7:9]}/{digest[7:]}"
    assert box["box"].run(["sha256sum", path]).stdout.split()[0] == digest[7:]
    wait_until(lambda: digest in state(box)["blobs"], 20)


def test_what_a_failing_disk_did_to_a_blob_is_told_by_the_agent(box: Lab) -> None:
    content = b"x" + CONTENT
    digest = digests.of_bytes(content)
    assert send(box, "root", content, len(content))[-1] == {"complete": True}
    path = f"{STORE}/blobs/{digest[7:9]}/{digest[7:]}"
    box["box"].run(["dd", "if=/dev/zero", f"of={path}", "bs=1M", "seek=3", "count=1", "conv=notrunc"])
    wait_until(lambda: digest in state(box)["damaged"], 40, pause=1)
    assert digest not in state(box)["blobs"]


def state(lab: Lab) -> dict[str, Any]:
    shown: dict[str, Any] = Control(lab).ok("device", "show", "box", "-o", "json").json
    return dict(shown["state"])
