"""One agent for all tests that only need a model to be served: loading is what costs time."""

from collections.abc import Iterator

import pytest

from agent_daemon.contract.release import Access
from agent_daemon.contract.wire import Outcome
from tests.support.agent import AgentProcess, running_agent
from tests.support.models import quickstart_model
from tests.support.releases import deploy, release, served

ORIGIN = "https://app.example"
"""A web page that this agent's manifest lets in."""


@pytest.fixture(scope="session")
def served_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """Serves `assistant`, `counted` and `terse` from one worker (two at a time), `single` from another (one at
    a time), and `vectors` for embeddings. Tests that count usage take a name of their own."""
    path = quickstart_model()
    both = {"context": 2048, "parallel": 2}
    models = (
        served("assistant", path, **both),
        served("counted", path, **both),
        served("left-streaming", path, **both),
        served("left-waiting", path, **both),
        served(
            "terse",
            path,
            **both,
            system_prompt="You always answer with the single word banana.",
            sampling={"temperature": 0, "max_tokens": 5},
        ),
        served("single", path, context=1024),
        served("vectors", path, context=512, task="embeddings"),
    )
    with running_agent(tmp_path_factory.mktemp("served") / "state") as agent:
        wanted = release(*models, access=Access(origins=(ORIGIN,)))
        assert deploy(agent, wanted, path).outcome is Outcome.SUCCEEDED
        yield agent
