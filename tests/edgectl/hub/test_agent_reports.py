"""A real agent and a real hub: nobody asks, and the inventory knows all the same."""

from pathlib import Path

from agent_daemon.contract.wire import Facts
from edgectl.inventory import queries
from edgectl.inventory.repository import Repository
from tests.support.agent import running_agent, wait_until
from tests.support.hub import running_hub, secrets_in


def test_an_agent_reports_by_itself(tmp_path: Path) -> None:
    database, state_dir = tmp_path / "inventory.db", tmp_path / "state"
    token_file, config = tmp_path / "token", tmp_path / "agent.toml"
    token_file.write_text("edgectl-dev_not-yet-known\n")
    with Repository(database) as repository, running_hub(database) as hub:
        config.write_text(f'hub = "{hub.url}"\nhub_token_file = "{token_file}"\n')
        with running_agent(state_dir, arguments=("--config", str(config))) as agent:
            problem = wait_until(lambda: agent.state()["hub"]["problem"])
            assert "the hub refused this device: this hub does not know the token" in problem
            assert "edgectl device bootstrap NAME" in problem

            where = {"kind": "local", "state_dir": str(state_dir)}
            repository.add_device("desk", where)
            repository.add_device("lap", where)
            token_file.write_text(repository.mint_token("desk", 1) + "\n")
            agent.stop()
            agent.start()
            # Its agent is not known yet: only a bootstrap, or a person who asks it, says which one it is.
            wait_until(
                lambda: "does not know this device's agent yet" in str(agent.state()["hub"]["problem"])
            )
            assert repository.device("desk").last_seen is None

            repository.save_facts("desk", Facts.model_validate(agent.control("GET", "/v1/facts")[1]))
            heard = repository.device("desk").last_seen
            agent.kill()
            agent.start()
            wait_until(lambda: agent.state()["hub"]["reported_at"])
            assert agent.state()["hub"]["problem"] is None
            assert (repository.device("desk").last_seen or 0) > (heard or 0)
        with queries.reading(database) as connection:
            desk, lap = queries.device_status(connection)
        assert (desk["state"], desk["heartbeat_sent_at"] is not None) == ("never_deployed", True)
        assert desk["agent_version"] is not None
        assert lap["state"] == "unknown"
    assert secrets_in(agent.log.read_text() + hub.log.read_text()) == []
