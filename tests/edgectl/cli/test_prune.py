"""`edgectl prune` against a real agent: files of releases that were never activated, and of those that were."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.wire import ActivationState
from agent_daemon.journal import Journal
from agent_daemon.store import Store
from edgectl.agent_client import AgentClient
from edgectl.errors import DeviceError
from edgectl.transport.local import LocalTransport
from tests.agent_daemon.test_disk_room import MIB, content, release
from tests.support.agent import AgentProcess, running_agent

Run = Callable[..., Any]
ONE, TWO, THREE = (release(number, f"f{number}") for number in (1, 2, 3))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """It had three releases of one manifest, the last of which was taken back by hand, so that it serves none now."""
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    store, journal = Store(state_dir / "store"), Journal(state_dir / "journal.db")
    for each in (ONE, TWO, THREE):
        operation = journal.begin(journal.keep_release(each), each.number)
        (blob,) = each.blobs()
        with store.open_partial(blob.digest, blob.size, 0) as partial:
            partial.write(content(blob.name.removesuffix(".gguf")))
            partial.finish()
        journal.advance(operation.id, ActivationState.COMMITTED)
    journal._db.execute("DELETE FROM pointer")
    journal.close()
    with running_agent(state_dir) as started:
        yield started


@pytest.fixture
def desk(agent: AgentProcess, edgectl: Run) -> str:
    assert edgectl("device", "add", "desk", "--local", "--state-dir", str(agent.state_dir)).code == 0
    return "desk"


def blobs(agent: AgentProcess) -> set[str]:
    return set(agent.state()["blobs"])


def test_it_says_what_would_go_and_deletes_it_when_told(agent: AgentProcess, desk: str, edgectl: Run) -> None:
    (gone,) = ONE.blobs()
    dry = edgectl("prune", desk, "--dry-run", "-o", "json")
    (row,) = json.loads(dry.out)
    assert dry.code == 0
    assert (row["device"], row["releases"], row["files"], row["bytes"]) == ("desk", 1, 1, MIB)
    assert (row["blobs"], row["partials"], row["problem"]) == ([gone.digest], [], None)
    assert row["path"] == str(agent.state_dir / "store")
    assert len(blobs(agent)) == 3
    assert agent.state()["disk"]["prunable"] == MIB
    assert len(agent.state()["held"]) == 3

    asked = edgectl("prune", desk)
    assert asked.code == 2
    assert "nobody is there to confirm it" in asked.err
    assert "desk" in asked.out
    assert "1.0 MiB" in asked.out
    assert len(blobs(agent)) == 3

    done = edgectl("prune", "--yes", "-o", "json")
    (row,) = json.loads(done.out)
    assert (done.code, row["blobs"], row["bytes"]) == (0, [gone.digest], MIB)
    assert blobs(agent) == {blob.digest for each in (TWO, THREE) for blob in each.blobs()}
    assert agent.state()["held"] == [TWO.digest(), THREE.digest()]
    assert agent.state()["disk"]["prunable"] == 0

    again = edgectl("prune", "--yes")
    assert (again.code, "0 B" in again.out) == (0, True)


def test_one_that_cannot_be_reached_is_told_and_the_others_are_done(
    agent: AgentProcess, desk: str, edgectl: Run, tmp_path: Path
) -> None:
    with running_agent(tmp_path / "other") as gone:
        where = ("--local", "--state-dir", str(gone.state_dir), "--label", "site=there")
        assert edgectl("device", "add", "gone", *where).code == 0
    done = edgectl("prune", "--yes", "-o", "json")
    rows = {row["device"]: row for row in json.loads(done.out)}
    assert done.code == 3
    assert rows["desk"]["bytes"] == MIB
    assert (rows["gone"]["bytes"], "no agent answers" in rows["gone"]["problem"]) == (None, True)
    assert len(blobs(agent)) == 2
    assert edgectl("prune", "-l", "site=there", "--dry-run").code == 3
    assert edgectl("prune", "nobody").code == 2


def test_a_release_that_cannot_fit_is_refused_before_the_first_byte(agent: AgentProcess) -> None:
    whole = release(4, "g")
    (model,) = whole.models
    (file,) = model.artifact.files
    huge = file.model_copy(update={"size": 2**62})
    model = model.model_copy(update={"artifact": model.artifact.model_copy(update={"files": (huge,)})})
    before = agent.state()["operation"]
    with AgentClient(LocalTransport(agent.state_dir)) as client:
        for prune in (False, True):
            with pytest.raises(DeviceError) as refused:
                client.stage(whole.model_copy(update={"models": (model,)}), retry=False, prune=prune)
            assert refused.value.code == "no_space"
            assert "r4 needs 4194304.0 TiB more on the device's disk" in refused.value.message
            assert str(agent.state_dir / "store") in refused.value.message
            assert "a prune would free 1.0 MiB" in refused.value.message
            assert "pruning alone is not enough" in (refused.value.hint or "")
        assert {"receive", "prune", "damaged"} <= set(client.hello().features)
        assert client.prunable().blobs == tuple(blob.digest for blob in ONE.blobs())
    assert (agent.state()["operation"], len(blobs(agent))) == (before, 3)
