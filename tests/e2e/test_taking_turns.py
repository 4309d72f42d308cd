"""Two models on a device that has room for one at a time: both are served, and one is in memory."""

from pathlib import Path

import pytest

from agent_daemon.contract.fit import WORKER_RESERVE
from tests.e2e import manifests
from tests.e2e.asking import Client
from tests.e2e.commands import Edgectl
from tests.support.agent import running_agent
from tests.support.models import ladder

pytestmark = pytest.mark.engine

MIB = 1 << 20


def needs(edgectl: Edgectl, path: Path) -> int:
    """Bytes of RAM that one candidate takes at the manifest's context."""
    done = edgectl.run("model", "fit", f"file:{path}", "--ram", "8GiB", "--context", "512", "-o", "json")
    total: int = done.json["total"]
    return total


def test_both_are_served_where_one_fits(edgectl: Edgectl, tmp_path: Path) -> None:
    files = {"large": ladder()["Q8_0"], "small": ladder()["Q4_K_M"]}
    need = {name: needs(edgectl, path) for name, path in files.items()}
    limit = need["large"] + WORKER_RESERVE + MIB
    assert sum(need.values()) > limit
    models = {name: manifests.model(path) for name, path in files.items()}
    manifest = manifests.write(tmp_path / "m.yaml", models)
    with running_agent(tmp_path / "desk", {}, ("--ram-limit", str(limit))) as agent:
        edgectl.add("desk", agent)
        (planned,) = edgectl.run("plan", "-f", manifest, "-o", "json").json["devices"]
        assert [model["residency"]["on_demand"] for model in planned["models"]] == [True, True]
        assert planned["notes"] == ["loaded on demand: large and small do not fit together"]
        assert edgectl.deployed(manifest).outcomes() == {"desk": "succeeded"}
        for name in ("large", "small", "large"):
            client = Client(agent, name)
            client.ask()
            assert client.seen.problems == []
            loaded = [worker["models"] for worker in agent.state()["workers"] if worker["state"] == "ready"]
            assert loaded == [[name]]
