"""A model with LoRA adapters on a device: planned, moved once, and each asked for by a name of its own."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_daemon.contract import digest as digests
from tests.e2e import manifests
from tests.e2e.asking import Client
from tests.e2e.commands import Done, Edgectl
from tests.support.adapter_files import write_adapter
from tests.support.agent import AgentProcess
from tests.support.lora import write_lora

pytestmark = pytest.mark.engine


@dataclass
class Desk:
    """A device that serves one model with two adapters, and how that came about."""

    edgectl: Edgectl
    agent: AgentProcess
    files: dict[str, Path]
    manifest: Path
    plan: Done
    deploy: Done


@pytest.fixture(scope="module")
def desk(
    edgectl: Edgectl, agent: AgentProcess, quickstart: Path, tmp_path_factory: pytest.TempPathFactory
) -> Desk:
    folder = tmp_path_factory.mktemp("adapters")
    files = {"model": quickstart}
    for name in ("legal", "medical"):
        files[name] = write_lora(folder / f"{name}.gguf", quickstart, name)
    model = manifests.model(
        quickstart, adapters={name: f"file:{files[name]}" for name in ("legal", "medical")}
    )
    manifest = manifests.write(folder / "manifest.yaml", {"assistant": model})
    edgectl.add("desk", agent)
    plan = edgectl.run("plan", "-f", manifest, "-o", "json")
    return Desk(edgectl, agent, files, manifest, plan, edgectl.deployed(manifest))


def test_the_plan_counts_the_bytes_of_adapters(desk: Desk) -> None:
    total = sum(path.stat().st_size for path in desk.files.values())
    assert desk.plan.json["bytes_to_move"] == total
    (result,) = desk.deploy.json["devices"]
    assert (result["outcome"], result["bytes_moved"]) == ("succeeded", total)


def test_the_device_holds_every_file(desk: Desk) -> None:
    held = {digests.of_bytes(path.read_bytes()) for path in desk.files.values()}
    assert set(desk.agent.state()["blobs"]) == held


def test_each_name_answers_in_its_own_way(desk: Desk) -> None:
    texts = {}
    for name in ("assistant", "assistant:legal", "assistant:medical"):
        client = Client(desk.agent, name, max_tokens=12)
        client.ask()
        assert client.seen.problems == []
        (texts[name],) = client.seen.texts
    assert len(set(texts.values())) == 3


def test_the_same_again_is_unchanged_and_another_strength_moves_nothing(desk: Desk) -> None:
    assert desk.edgectl.deployed(desk.manifest).outcomes() == {"desk": "unchanged"}
    weaker = desk.manifest.with_name("weaker.yaml")
    model = manifests.model(
        desk.files["model"], adapters={"legal": {"source": f"file:{desk.files['legal']}", "scale": 0.25}}
    )
    manifests.write(weaker, {"assistant": model})
    (result,) = desk.edgectl.deployed(weaker).json["devices"]
    assert (result["outcome"], result["bytes_moved"]) == ("succeeded", 0)


def test_an_adapter_of_another_model_is_refused_before_anything_moves(desk: Desk) -> None:
    folder = desk.manifest.parent
    foreign = write_adapter(folder / "foreign.gguf", "llama", [("blk.0.attn_q.weight", 4096, 4096)])
    model = manifests.model(desk.files["model"], adapters={"legal": f"file:{foreign}"})
    done = desk.edgectl.deploy(manifests.write(folder / "foreign.yaml", {"assistant": model}))
    assert (done.code, done.out) == (1, "")
    assert "it changes blk.0.attn_q.weight of 4096 x 4096, the model's has 576 x 576" in done.err, done.err
