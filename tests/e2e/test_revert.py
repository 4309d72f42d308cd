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

SILENT = "probe failed: assistant: answered the probe with nothing"
"""Only loading and asking it tells."""
UNLOADABLE: dict[str, Callable[[Path], Path]] = {
    "truncated": models.truncated,
    "refused": models.refused_by_llama,
}
"""How the second release is broken so that llama.cpp sees it before it loads anything."""


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
def test_a_broken_release_reverts_and_no_client_of_the_old_one_got_an_error(
    edgectl: Edgectl, serving: AgentProcess, tmp_path: Path, strategy: str
) -> None:
    before = serving.state()
    manifest = manifests.write(
        tmp_path / "second.yaml",
        {"assistant": manifests.model(models.silent(tmp_path))},
        rollout={"strategy": strategy},
    )
    done, clients = deploy_while_asked(edgectl, serving, manifest)
    assert done.code == 1, done.out
    (result,) = done.json["devices"]
    assert result["outcome"] == "reverted"
    assert result["reason"].startswith(SILENT), result
    assert f"desk: activating: strategy: {strategy}" in done.notes
    assert any(note.startswith(f"desk: reverted: {SILENT}") for note in done.notes)
    assert_answered_as_before(clients)
    after = serving.state()
    assert (after["active"], after["active_number"]) == (before["active"], 1)
    assert [worker["state"] for worker in after["workers"]] == ["ready"]
    kept = after["workers"][0]["pid"] == before["workers"][0]["pid"]
    assert kept is (strategy == "handover")
    assert result["release"] in {f"r{barred['number']}" for barred in after["quarantine"]}


@pytest.mark.parametrize("strategy", ["handover", "replace"])
@pytest.mark.parametrize("kind", UNLOADABLE)
def test_a_file_that_cannot_be_loaded_is_refused_before_anything_changes(
    edgectl: Edgectl, serving: AgentProcess, tmp_path: Path, kind: str, strategy: str
) -> None:
    before = serving.state()
    manifest = manifests.write(
        tmp_path / "second.yaml",
        {"assistant": manifests.model(UNLOADABLE[kind](tmp_path))},
        rollout={"strategy": strategy},
    )
    done, clients = deploy_while_asked(edgectl, serving, manifest)
    assert done.code == 1, done.out
    (result,) = done.json["devices"]
    assert result["outcome"] == "refused"
    assert result["reason"].startswith("assistant cannot be loaded: "), result
    assert f"desk: staged: {result['reason']}" in done.notes
    assert_answered_as_before(clients)
    after = serving.state()
    for untouched in ("active", "active_number", "quarantine"):
        assert after[untouched] == before[untouched]
    assert [worker["pid"] for worker in after["workers"]] == [worker["pid"] for worker in before["workers"]]


def assert_answered_as_before(clients: list[Seen]) -> None:
    for seen in clients:
        assert seen.problems == []
        assert seen.answers > 0
        assert set(seen.texts) == {seen.texts[0]}


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


def test_a_release_is_probed_with_its_own_system_prompt(
    edgectl: Edgectl, serving: AgentProcess, other_model: Path, tmp_path: Path
) -> None:
    # Longer than the context: every client would be refused.
    wordy = manifests.model(other_model, system_prompt="Be brief. " * 300)
    done = edgectl.deploy(manifests.write(tmp_path / "wordy.yaml", {"assistant": wordy}))
    (result,) = done.json["devices"]
    assert (done.code, result["outcome"]) == (1, "reverted")
    assert result["reason"].startswith("probe failed: assistant: "), result
    assert "512" in result["reason"], result
    assert serving.state()["active_number"] == 1


def test_the_table_says_so_too(edgectl: Edgectl, serving: AgentProcess, tmp_path: Path) -> None:
    source = models.silent(tmp_path)
    source = source.rename(tmp_path / "mute.gguf")
    manifest = manifests.write(
        tmp_path / "mute.yaml", {"assistant": manifests.model(source)}, probe={"prompt": "Are you there?"}
    )
    done = edgectl.run("deploy", "-f", manifest, "--yes")
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if line.split()[:2] == ["desk", "reverted"]]
    assert " ".join(line.split()).partition("B ")[2].split(" ", 1)[1].startswith("probe failed: assistant: ")
    table = edgectl.run("status").out
    assert "reverted" in table
    (row,) = edgectl.query("select state, release, outcome, attention from device_status")
    assert row == {"state": "reverted", "release": "r1", "outcome": "reverted", "attention": 1}


def test_the_table_says_what_was_refused(edgectl: Edgectl, serving: AgentProcess, tmp_path: Path) -> None:
    source = models.truncated(tmp_path)
    source = source.rename(tmp_path / "cut.gguf")
    manifest = manifests.write(tmp_path / "cut.yaml", {"assistant": manifests.model(source)})
    done = edgectl.run("deploy", "-f", manifest, "--yes")
    assert done.code == 1
    assert "is incomplete: 46.1 MiB of its tensors are not in it" in done.out
    (line,) = [line for line in done.out.splitlines() if line.split()[:2] == ["desk", "refused"]]
    assert "assistant cannot be loaded: " in line
    (row,) = edgectl.query("select state, release, outcome from device_status")
    assert row == {"state": "serving", "release": "r1", "outcome": "refused"}


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
