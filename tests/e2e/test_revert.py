"""A release that is not well goes away by itself, and clients of the old one do not notice."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e import manifests
from tests.e2e.asking import Client, Seen
from tests.e2e.commands import Done, Edgectl, finish
from tests.support import models
from tests.support.agent import AgentProcess, wait_until

pytestmark = pytest.mark.engine

BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated": (models.truncated, "assistant could not be loaded: "),
    "refused": (models.refused_by_llama, "assistant could not be loaded: "),
    "silent": (models.silent, "probe failed: assistant: answered the probe with nothing"),
}
"""How the second release is broken, and how the device's reason begins."""


@pytest.fixture(scope="module")
def serving(
    edgectl: Edgectl, agent: AgentProcess, quickstart: Path, tmp_path_factory: pytest.TempPathFactory
) -> AgentProcess:
    """The agent with r1 committed."""
    edgectl.add("desk", agent)
    folder = tmp_path_factory.mktemp("first")
    edgectl.deployed(manifests.write(folder / "first.yaml", {"assistant": manifests.model(quickstart)}))
    return agent


def deploy_while_asked(edgectl: Edgectl, agent: AgentProcess, manifest: Path) -> tuple[Done, list[Seen]]:
    """A deploy with three clients at the device all the while: more than it answers at once."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(agent)) for _ in range(3)]
        done = edgectl.deploy(manifest)
    return done, [client.seen for client in clients]


@pytest.mark.parametrize("strategy", ["handover", "replace"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_release_reverts_and_no_client_of_the_old_one_got_an_error(
    edgectl: Edgectl, serving: AgentProcess, tmp_path: Path, kind: str, strategy: str
) -> None:
    make, reason = BROKEN[kind]
    before = serving.state()
    manifest = manifests.write(
        tmp_path / "second.yaml",
        {"assistant": manifests.model(make(tmp_path))},
        rollout={"strategy": strategy},
    )
    done, clients = deploy_while_asked(edgectl, serving, manifest)
    assert done.code == 1, done.out
    (result,) = done.json["devices"]
    assert result["outcome"] == "reverted"
    assert result["reason"].startswith(reason), result
    assert f"desk: activating: strategy: {strategy}" in done.err
    assert f"desk: reverted: {reason}" in done.err
    for seen in clients:
        assert seen.problems == []
        assert seen.answers > 0
        assert set(seen.texts) == {seen.texts[0]}
    after = serving.state()
    assert (after["active"], after["active_number"]) == (before["active"], 1)
    assert [worker["state"] for worker in after["workers"]] == ["ready"]
    kept = after["workers"][0]["pid"] == before["workers"][0]["pid"]
    assert kept is (strategy == "handover")
    assert result["release"] in {f"r{barred['number']}" for barred in after["quarantine"]}


def test_the_command_outlives_a_restart_of_the_agent(
    edgectl: Edgectl, serving: AgentProcess, other_model: Path, tmp_path: Path
) -> None:
    manifest = manifests.write(
        tmp_path / "held.yaml", {"assistant": manifests.model(other_model)}, probe={"min_healthy": 20}
    )
    deploying = edgectl.start("deploy", "-f", manifest, "--yes", "-o", "json")
    wait_until(lambda: serving.state()["operation"]["state"] == "probing")
    serving.kill()
    serving.start()
    done = finish(deploying)
    (result,) = done.json["devices"]
    assert (done.code, result["outcome"]) == (1, "reverted")
    assert result["reason"] == "the agent was stopped while it was probing"
    assert serving.chat()[0] == 200
    assert serving.state()["active_number"] == 1


def test_the_table_says_so_too(edgectl: Edgectl, serving: AgentProcess, tmp_path: Path) -> None:
    source = models.truncated(tmp_path)
    source = source.rename(tmp_path / "cut.gguf")
    manifest = manifests.write(
        tmp_path / "cut.yaml", {"assistant": manifests.model(source)}, probe={"prompt": "Are you there?"}
    )
    done = edgectl.run("deploy", "-f", manifest, "--yes")
    assert done.code == 1
    assert "is incomplete: 46.1 MiB of its tensors are not in it" in done.out
    (line,) = [line.split() for line in done.out.splitlines() if "reverted" in line]
    assert line[:2] == ["desk", "reverted"]
    assert " ".join(line).partition("B ")[2].split(" ", 1)[1].startswith("assistant could not be loaded: ")
    table = edgectl.run("status").out
    assert "reverted" in table
    (row,) = edgectl.query("select state, release, outcome, attention from device_status")
    assert row == {"state": "reverted", "release": "r1", "outcome": "reverted", "attention": 1}


def test_a_release_that_works_replaces_the_old_one_without_an_error(
    edgectl: Edgectl, serving: AgentProcess, other_model: Path, tmp_path: Path
) -> None:
    for strategy in ("handover", "replace"):
        manifest = manifests.write(
            tmp_path / f"{strategy}.yaml",
            {"assistant": manifests.model(other_model, context=768 if strategy == "replace" else 512)},
            rollout={"strategy": strategy},
        )
        done, clients = deploy_while_asked(edgectl, serving, manifest)
        assert (done.code, done.outcomes()) == (0, {"desk": "succeeded"})
        assert [seen.problems for seen in clients] == [[], [], []]
        assert all(seen.answers for seen in clients)
