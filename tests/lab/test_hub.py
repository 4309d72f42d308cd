"""Reports that arrive by themselves: from real agents to a real hub, which is away for minutes, and which lets in
nobody else."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e import manifests
from tests.e2e.asking import Client
from tests.lab.control import Control, make_bundle
from tests.lab.fleet import Lab
from tests.lab.spec import Spec
from tests.support.agent import wait_until
from tests.support.models import quickstart_model

pytestmark = pytest.mark.engine

AWAY = 130.0
"""Seconds that the hub is away under traffic: two minutes of usage begin and end meanwhile."""

# curl is not on every machine: one request as anybody could make it, from the control side's network.
POST = """
import http.client, sys
host, token, kind = sys.argv[1:]
connection = http.client.HTTPConnection(host, timeout=60)
headers = {"Authorization": "Bearer " + token} if token else {}
body = {"garbage": b"\\x00{not json", "empty": b"", "huge": None}.get(kind) if kind != "file" else sys.stdin.buffer.read()
status = "cut"
try:
    if kind == "huge":
        chunks = (b"x" * 1_000_000 for _ in range(100))
        connection.request("POST", "/v1/check-in", chunks, {**headers, "Content-Length": "100000000"})
    else:
        connection.request("POST", "/v1/check-in", body, headers)
except OSError:
    pass
try:
    status = connection.getresponse().status
except OSError:
    pass
print(status)
"""


class Hub:
    """`edgectl hub serve` on the control side; may be stopped and started again."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.address = f"{lab.network.control_address}:8770"
        self.log = lab.home / "hub.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = (sys.executable, "-m", "edgectl", "hub", "serve", "--listen", self.address, "--interval", "1")
        self.process = self.lab.background(argv, self.log)
        wait_until(lambda: self.post("", "empty") == "401")

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(30) == 0

    def post(self, token: str, kind: str, data: str | None = None) -> str:
        """The status that a check-in gets; `refused` or `cut` where there is none."""
        done = self.lab.run([sys.executable, "-c", POST, self.address, token, kind], input=data)
        return done.stdout.strip() or "refused"


@pytest.fixture(scope="module")
def hub(lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """Two devices that report to it, each with a model and a token of its own."""
    make_bundle()
    machines = lab(Spec("dev1"), Spec("dev2"))
    control, hub = Control(machines), Hub(machines)
    control.add("dev1")
    control.add("dev2")
    hub.start()
    control.bootstrap("dev1", "dev2", "--hub", f"http://{hub.address}")
    manifest = manifests.write(
        tmp_path_factory.mktemp("hub") / "m.yaml", {"assistant": manifests.model(quickstart_model())}
    )
    assert control.deploy(manifest).code == 0
    return hub


@pytest.fixture
def control(hub: Hub) -> Control:
    return Control(hub.lab)


def contents(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return list(database.iterdump())


def token_of(lab: Lab, name: str) -> str:
    return lab[name].read("/etc/edgectl-agent/hub-token").strip()


def test_reports_arrive_by_themselves(hub: Hub, control: Control) -> None:
    before = control.usage()
    for name in ("dev1", "dev2"):
        assert hub.lab[name].chat()[0] == 200
    wait_until(lambda: control.usage()["answered"] == before["answered"] + 2)
    rows = control.status()
    assert {row["state"] for row in rows.values()} == {"serving"}
    assert all(time.time() - row["last_seen"] < 30 for row in rows.values())
    shown = control.ok("device", "show", "dev1", "-o", "json").json["state"]["hub"]
    assert shown["url"] == f"http://{hub.address}"
    assert shown["problem"] is None


def test_a_token_is_nowhere_but_on_its_device(hub: Hub, control: Control) -> None:
    lab = hub.lab
    token = token_of(lab, "dev1")
    assert token.startswith("edgectl-dev_")
    assert lab["dev1"].run(["stat", "-c", "%U:%G %a", "/etc/edgectl-agent/hub-token"]).stdout == (
        "root:edgectl-agent 640\n"
    )
    database = lab.home / ".local/state/edgectl/inventory.db"
    assert token not in "\n".join(contents(database))
    assert token not in hub.log.read_text()
    assert token not in lab["dev1"].journal("edgectl-agent")
    assert token not in json.dumps(control.ok("device", "show", "dev1", "-o", "json").json)


def test_a_hub_that_was_away_for_minutes_under_traffic_misses_nothing(hub: Hub, control: Control) -> None:
    lab = hub.lab
    wait_until(lambda: lab["dev1"].chat()[0] == 200)
    time.sleep(3)
    before = control.usage()
    with Client(lab["dev1"]) as first, Client(lab["dev2"]) as second:  # type: ignore[arg-type]
        wait_until(lambda: first.seen.answers > 2 and second.seen.answers > 2)
        hub.stop()
        time.sleep(AWAY)
        problem = control.ok("device", "show", "dev1", "-o", "json").json["state"]["hub"]["problem"]
        assert "the hub cannot be reached" in problem
        hub.start()
        answered = first.seen.answers
        wait_until(lambda: first.seen.answers > answered + 2)
    seen = first.seen.answers + second.seen.answers
    assert first.seen.problems == second.seen.problems == []
    # A device that has failed often tries again after up to a few minutes, one that has just started at once.
    for name in ("dev1", "dev2"):
        lab[name].run(["systemctl", "restart", "edgectl-agent"])
    wait_until(lambda: control.usage()["answered"] >= before["answered"] + seen, 600, 1)
    # And collecting the same by hand finds nothing to count twice.
    control.status("--refresh")
    after = control.usage()
    assert after["answered"] - before["answered"] == seen
    assert after["failures"] == before["failures"]
    for name in ("prompt_tokens", "completion_tokens"):
        assert after[name] - before[name] == getattr(first.seen, name) + getattr(second.seen, name)


def test_whoever_is_not_the_device_stores_nothing(hub: Hub, control: Control) -> None:
    lab = hub.lab
    database = lab.home / ".local/state/edgectl/inventory.db"
    good, other = token_of(lab, "dev1"), token_of(lab, "dev2")
    # From now on both are silent, so that whatever is stored comes from here.
    for name in ("dev1", "dev2"):
        lab[name].run(["systemctl", "stop", "edgectl-agent"])
    agent_id = lab["dev1"].read("/var/lib/edgectl-agent/agent-id").strip()
    usage = {
        "minute": 60, "model": "assistant", "release": "sha256:" + "0" * 64, "number": 1, "requests": 1000
    }  # fmt: skip
    message = json.dumps(
        {
            "schema_version": 1,
            "agent_id": agent_id,
            "epoch": "made-up",
            "sent_at": time.time(),
            "records": [{"seq": 1, "at": time.time(), "kind": "usage", "body": usage}],
        }
    )
    before = contents(database)
    assert hub.post("", "file", message) == "401"
    assert hub.post("edgectl-dev_" + "x" * 43, "file", message) == "401"
    assert hub.post(other, "file", message) == "403"
    assert hub.post(good, "garbage") == "400"
    assert hub.post(good, "huge") == "413"
    assert contents(database) == before
    with closing(sqlite3.connect(database)) as writing, writing:
        writing.execute("UPDATE device_token SET expires_at = 1")
    expired = contents(database)
    assert hub.post(good, "file", message) == "401"
    assert contents(database) == expired
    with closing(sqlite3.connect(database)) as writing, writing:
        writing.execute("UPDATE device_token SET expires_at = ?", (time.time() + 86400,))
    # The very same message with the right token is taken: it was the token that was in the way.
    assert hub.post(good, "file", message) == "200"
    assert contents(database) != before


def test_a_new_token_replaces_the_old_one_and_an_empty_hub_ends_it(hub: Hub, control: Control) -> None:
    lab = hub.lab
    before = token_of(lab, "dev2")
    (row,) = control.bootstrap("dev2", "--hub", f"http://{hub.address}")
    assert row["outcome"] in ("unchanged", "restarted")
    assert token_of(lab, "dev2") != before
    assert hub.post(before, "garbage") == "401"
    assert hub.post(token_of(lab, "dev2"), "garbage") == "400"
    control.bootstrap("dev2", "--hub", "")
    assert hub.post(token_of(lab, "dev2"), "garbage") == "401"
    assert control.ok("device", "show", "dev2", "-o", "json").json["state"]["hub"] is None
