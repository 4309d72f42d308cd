"""A real agent says when it is well; and a file of what it serves that is lost is seen, sent again and loaded anew."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import releases
from tests.support.agent import AgentProcess, running_agent, wait_until
from tests.support.releases import blob

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def desk(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("desk") / "state") as agent:
        yield agent


def said(agent: AgentProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((agent.state_dir / "well.json").read_text())
    return found


def path_of(agent: AgentProcess, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return agent.state_dir / "store" / "blobs" / name[:2] / name


def test_an_agent_is_well_when_it_serves_again_what_it_served(desk: AgentProcess, quickstart: Path) -> None:
    assert desk.process is not None
    wait_until(lambda: said(desk)["well"])
    assert said(desk)["pid"] == desk.process.pid
    wanted = releases.release(1, quickstart)
    releases.commit(desk, wanted, quickstart)
    lost = path_of(desk, blob(quickstart).digest)
    kept = lost.with_name("kept")
    desk.stop()
    lost.rename(kept)
    desk.start()
    wait_until(lambda: "assistant is not served again" in (said(desk)["waiting"] or ""))
    assert (said(desk)["answers"], said(desk)["well"]) == (True, False)
    assert said(desk)["pid"] == desk.process.pid
    kept.rename(lost)
    wait_until(lambda: said(desk)["well"], 90)
    assert desk.chat()[0] == 200


def test_a_file_that_is_lost_under_a_worker_is_drift_until_it_is_sent_again_and_the_worker_reads_it(
    desk: AgentProcess, quickstart: Path
) -> None:
    wanted = releases.release(1, quickstart)
    if desk.state()["active"] != wanted.digest():
        releases.commit(desk, wanted, quickstart)
    wait_until(lambda: desk.state()["workers"][0]["state"] == "ready")
    digest = blob(quickstart).digest
    assert desk.state()["drift"] == []
    (before,) = (worker["pid"] for worker in desk.state()["workers"])
    path_of(desk, digest).unlink()
    found = desk.state()["drift"]
    assert [each["kind"] for each in found] == ["blob", "blob"]
    assert (found[0]["what"], found[0]["detail"].rpartition(" ")[2]) == (digest, "missing")
    assert found[1]["detail"] == "is served from a file that was given up"
    assert desk.chat()[0] == 200

    staged = releases.stage(desk, wanted)
    assert [missing["digest"] for missing in staged["missing"]] == [digest]
    releases.send(desk, quickstart)
    last = releases.finished(desk, releases.activate(desk, wanted))
    assert last["outcome"] == "succeeded"
    (after,) = (worker["pid"] for worker in desk.state()["workers"] if worker["state"] == "ready")
    assert after != before
    assert desk.state()["drift"] == []
    assert desk.chat()[0] == 200
    # Nothing is left to be done.
    assert releases.stage(desk, wanted) == {"operation": None, "missing": []}


def test_what_is_served_is_not_barred_when_it_cannot_be_loaded_anew(
    desk: AgentProcess, quickstart: Path
) -> None:
    wanted = releases.release(1, quickstart)
    path_of(desk, blob(quickstart).digest).unlink()
    staged = releases.stage(desk, wanted)
    releases.send(desk, quickstart)
    operation = releases.activate(desk, wanted)
    assert operation == staged["operation"]["id"]
    assert desk.process is not None
    wait_until(lambda: desk.state()["operation"]["state"] in ("activating", "probing", "committed"))
    desk.kill()
    desk.start()
    wait_until(lambda: desk.state()["operation"]["state"] in ("reverted", "committed"))
    assert desk.state()["quarantine"] == []
    wait_until(lambda: said(desk)["well"], 90)
    assert (desk.state()["active"], desk.chat()[0]) == (wanted.digest(), 200)
    assert os.path.exists(path_of(desk, blob(quickstart).digest))
