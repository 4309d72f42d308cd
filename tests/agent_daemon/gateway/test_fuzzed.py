"""Generated requests, by the document that the gateway serves: every answer is one that it announces, and the
workers live on."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS

from tests.support.agent import AgentProcess
from tests.support.releases import worker_of

pytestmark = pytest.mark.engine

POSTED = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses"),
    *("/v1/embeddings", "/v1/tokenize", "/tokenize"),
)
GOT = ("/v1/models", "/v1/models/{name}", "/metrics", "/healthz", "/readyz", "/openapi.json")
HELD = [
    *("content_type_conformance", "response_schema_conformance", "status_code_conformance"),
    "response_headers_conformance",
]
bounded = settings(
    max_examples=30,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def api(tools_agent: AgentProcess) -> Any:
    """The document as the agent serves it."""
    return schemathesis.openapi.from_url(f"{tools_agent.url}/openapi.json")


@pytest.fixture(autouse=True)
def _the_workers_live_on(tools_agent: AgentProcess) -> Any:
    def pids() -> list[int]:
        return [worker_of(tools_agent, name)["pid"] for name in ("small", "vectors")]

    before = pids()
    yield
    assert pids() == before
    assert tools_agent.chat("Say hello.", model="small")[0] == 200


def check(case: Case, agent: AgentProcess) -> int:
    """Sends a case: the answer is one that the document has, and never a mistake of the gateway's own. Returns its
    status."""
    response = case.call(base_url=agent.url, timeout=60)
    assert response.status_code < 500 or response.status_code == 503, response.text
    case.validate_response(response, checks=CHECKS.get_by_names(HELD))
    return response.status_code


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_generated_bodies(api: Any, tools_agent: AgentProcess, path: str, mode: GenerationMode) -> None:
    cases = api[path]["POST"].as_strategy(generation_mode=mode)
    right, other = ("vectors", "small") if path.endswith("embeddings") else ("small", "vectors")
    statuses = set()

    # No schema says "either content or messages", so few bodies are good; and splitting text takes no time.
    many = settings(bounded, max_examples=200) if path.endswith("tokenize") else bounded

    @seed(1)
    @many
    @given(cases, st.sampled_from([right, right, right, right, other, "nobody"]))
    def ask(case: Case, model: str) -> None:
        if isinstance(case.body, dict):
            # A generated name would only ever be that of no model.
            case.body["model"] = model
        statuses.add(check(case, tools_agent))

    ask()
    assert (200 in statuses) or mode is GenerationMode.NEGATIVE, "no request was good enough to test anything"


@pytest.mark.parametrize("path", GOT)
def test_generated_questions(api: Any, tools_agent: AgentProcess, path: str) -> None:
    @seed(1)
    @bounded
    @given(api[path]["GET"].as_strategy())
    def ask(case: Case) -> None:
        check(case, tools_agent)

    ask()
