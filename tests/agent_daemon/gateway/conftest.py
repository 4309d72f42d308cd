"""An agent for the tests of tools, formats and hostile requests."""

from collections.abc import Iterator

import pytest
from openai import OpenAI

from agent_daemon.contract.release import Access, Adapter, Limits
from agent_daemon.contract.wire import Outcome
from tests.support.agent import AgentProcess, running_agent
from tests.support.lora import write_lora
from tests.support.models import quickstart_model
from tests.support.releases import artifact, deploy, release, served
from tests.support.tool_model import tool_model


@pytest.fixture(scope="session")
def tools_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """Serves `tools`, whose template declares tools, with the adapter `tools:legal`; `hasty` from the same worker,
    whose requests may take half a second; `small`, which is soon done with any request; and `vectors`."""
    folder = tmp_path_factory.mktemp("tools")
    path, lora = tool_model(folder), write_lora(folder / "legal.gguf", quickstart_model(), "legal")
    engine = {"context": 2048, "parallel": 4, "adapters": (Adapter(name="legal", artifact=artifact(lora)),)}
    models = (
        served("tools", path, **engine, sampling={"temperature": 0}),
        served("hasty", path, **engine, limits=Limits(request_timeout=0.5)),
        served("small", path, context=96, parallel=4, sampling={"max_tokens": 4}),
        served("vectors", path, context=128, task="embeddings"),
    )
    with running_agent(folder / "state") as agent:
        wanted = release(*models, access=Access(metrics=True))
        assert deploy(agent, wanted, path, lora).outcome is Outcome.SUCCEEDED
        yield agent


@pytest.fixture
def tools_client(tools_agent: AgentProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{tools_agent.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client
