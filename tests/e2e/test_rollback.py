"""Back to an earlier release: without moving a byte, and without the bad one coming back."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import manifests
from tests.e2e.commands import Edgectl, listing
from tests.support import models
from tests.support.agent import AgentProcess

pytestmark = pytest.mark.engine


@dataclass
class Desk:
    """A device on which r1, r2 and r3 were committed one after the other, and r4 reverted."""

    edgectl: Edgectl
    agent: AgentProcess
    bad: Path

    def blobs(self) -> dict[str, tuple[int, int]]:
        found = listing(self.agent.state_dir)
        return {name: stat for name, stat in found.items() if name.startswith("store/")}

    def active(self) -> int:
        number: int = self.agent.state()["active_number"]
        return number


@pytest.fixture(scope="module")
def desk(
    edgectl: Edgectl,
    agent: AgentProcess,
    quickstart: Path,
    other_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Desk:
    folder = tmp_path_factory.mktemp("manifests")
    edgectl.add("desk", agent)
    wanted = {
        "first": manifests.model(quickstart),
        "second": manifests.model(other_model),
        "third": manifests.model(other_model, context=768),
    }
    for name, model in wanted.items():
        edgectl.deployed(manifests.write(folder / f"{name}.yaml", {"assistant": model}))
    bad = manifests.write(folder / "bad.yaml", {"assistant": manifests.model(models.silent(folder))})
    assert edgectl.deploy(bad).outcomes() == {"desk": "reverted"}
    return Desk(edgectl, agent, bad)


def rollback(desk: Desk, *arguments: str) -> tuple[int, str, str | None, int]:
    """Exit code, outcome, release and bytes moved of one rollback."""
    done = desk.edgectl.run("rollback", *arguments, "--yes", "-o", "json")
    (result,) = done.json["devices"]
    return done.code, result["outcome"], result["release"], result["bytes_moved"]


def test_rollback_goes_back_step_by_step_without_moving_a_byte(desk: Desk) -> None:
    before = desk.blobs()
    assert desk.active() == 3
    assert rollback(desk) == (0, "succeeded", "r2", 0)
    assert (desk.active(), desk.agent.chat()[0]) == (2, 200)
    assert rollback(desk) == (0, "succeeded", "r1", 0)
    assert (desk.active(), desk.agent.chat()[0]) == (1, 200)
    assert rollback(desk) == (1, "refused", None, 0)
    assert rollback(desk, "--to", "r3") == (0, "succeeded", "r3", 0)
    assert rollback(desk, "--to", "r1") == (0, "succeeded", "r1", 0)
    assert rollback(desk, "--to", "r1") == (0, "unchanged", "r1", 0)
    assert desk.active() == 1
    assert desk.blobs() == before
    rows = desk.edgectl.query(
        "select kind, release, outcome, bytes_moved from rollout_history order by rollout desc limit 2"
    )
    assert [row["kind"] for row in rows] == ["rollback", "rollback"]
    assert [row["outcome"] for row in rows] == ["unchanged", "succeeded"]


def test_the_bad_release_is_refused_until_retry_is_said(desk: Desk) -> None:
    before = desk.agent.state()["operation"]["id"]
    done = desk.edgectl.deploy(desk.bad)
    assert (done.code, done.outcomes()) == (1, {"desk": "refused"})
    assert done.json["devices"][0]["reason"] == (
        "quarantined: r4 was reverted here (probe failed: assistant: answered the probe with nothing); "
        "--retry tries it again"
    )
    assert rollback(desk, "--to", "r4")[:2] == (1, "refused")
    assert desk.agent.state()["operation"]["id"] == before
    assert rollback(desk, "--to", "r2") == (0, "succeeded", "r2", 0)
    assert desk.edgectl.deploy(desk.bad).outcomes() == {"desk": "refused"}
    done = desk.edgectl.deploy(desk.bad, "--retry")
    assert (done.code, done.outcomes()) == (1, {"desk": "reverted"})
    assert done.json["devices"][0]["bytes_moved"] == 0
    assert (desk.active(), desk.agent.chat()[0]) == (2, 200)


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("r77", 1, "edgectl: there is no release r77\n"),
        ("newest", 2, "edgectl: --to 'newest': expected a release such as r1\n"),
    ],
)
def test_a_release_that_never_was(desk: Desk, target: str, code: int, message: str) -> None:
    done = desk.edgectl.run("rollback", "--to", target, "--yes")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(message)
    assert len(done.err.splitlines()) == 2
