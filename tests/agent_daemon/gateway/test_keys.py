"""What the gateway knows of who asks: usage by API key, and who may read the metrics."""

import hashlib
import http.client
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from agent_daemon.contract.release import Access
from agent_daemon.contract.wire import Outcome, RecordKind, Usage
from tests.support.agent import AgentProcess, running_agent
from tests.support.releases import client, deploy, release, served
from tests.support.tiny_models import tiny_model

pytestmark = pytest.mark.engine

KEYS = ("ek-one", "ek-two")
IDS = tuple(hashlib.sha256(key.encode()).hexdigest()[:12] for key in KEYS)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent that asks for one of two keys and has `/metrics`."""
    path, folder = tiny_model("dense"), tmp_path_factory.mktemp("keyed")
    hashes = tuple(f"sha256:{hashlib.sha256(key.encode()).hexdigest()}" for key in KEYS)
    wanted = release(served("tiny", path), access=Access(key_hashes=hashes, metrics=True))
    with running_agent(folder / "state") as agent:
        assert deploy(agent, wanted, path).outcome is Outcome.SUCCEEDED
        yield agent


def ask(agent: AgentProcess, path: str, key: str | None, body: Any = None) -> tuple[int, str | None, str]:
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, headers)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


def test_requests_are_counted_by_the_id_of_the_key_that_was_used(keyed: AgentProcess) -> None:
    body = {"model": "tiny", "prompt": "abc", "max_tokens": 2}
    for key, stream in ((KEYS[0], False), (KEYS[0], True), (KEYS[1], False)):
        assert ask(keyed, "/v1/completions", key, {**body, "stream": stream})[0] == 200
    assert ask(keyed, "/v1/completions", "ek-three", body)[0] == 401
    with client(keyed) as control:
        records = control.reports(5000).records
    counted: Counter[str] = Counter()
    for record in records:
        if record.kind is RecordKind.USAGE:
            usage = Usage.model_validate(record.body)
            counted[usage.key] += usage.requests
    # The probe of the release asked the worker itself: it is nobody's request.
    assert counted == {IDS[0]: 2, IDS[1]: 1}


def test_metrics_are_for_who_has_a_key_and_name_none(keyed: AgentProcess) -> None:
    assert ask(keyed, "/metrics", None)[0] == 401
    status, kind, page = ask(keyed, "/metrics", KEYS[0])
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'edgectl_requests_total{model="tiny"' in page
    assert not any(identity in page for identity in IDS)


def test_metrics_are_not_there_where_the_manifest_does_not_say_so(served_agent: AgentProcess) -> None:
    status, answer = served_agent.ask("/metrics")
    assert (status, answer["error"]["code"]) == (404, "not_found")
