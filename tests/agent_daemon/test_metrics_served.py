"""`/metrics` on the control socket of a real agent."""

import pytest

from agent_daemon.contract.histogram import BOUNDS, EMPTY, Histogram
from agent_daemon.contract.wire import RecordKind, Usage
from tests.support.agent import AgentProcess
from tests.support.prometheus import scrape_agent
from tests.support.releases import client, usage_of

pytestmark = pytest.mark.engine


def test_the_page_says_what_clients_got_and_how_the_workers_are(served_agent: AgentProcess) -> None:
    socket_path = served_agent.state_dir / "agent.sock"
    answers = [served_agent.chat(f"Count to {number}.", model="terse") for number in (3, 4)]
    assert [status for status, _ in answers] == [200, 200]
    told = [body["usage"] for _, body in answers]
    kind, page = scrape_agent(socket_path)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    cached = page["llamacpp:prompt_tokens_cached_total"].value(model="terse")
    computed = page["llamacpp:prompt_tokens_total"].value(model="terse")
    counted = usage_of(served_agent, "terse")
    assert (cached + computed, counted["requests"]) == (
        counted["prompt_tokens"],
        page["edgectl_time_to_first_token_seconds"].value("_count", model="terse"),
    )
    assert counted["prompt_tokens"] >= sum(usage["prompt_tokens"] for usage in told)
    assert page["llamacpp:tokens_predicted_total"].value(model="terse") == counted["completion_tokens"]
    workers = {dict(labels)["worker"] for _, labels in page["edgectl_kv_cells"].samples}
    assert workers == {
        worker["engine_key"].removeprefix("sha256:")[:12] for worker in served_agent.state()["workers"]
    }
    assert set(page["llamacpp:requests_processing"].samples.values()) == {0}
    assert all(value == 1 for value in page["edgectl_worker_ready"].samples.values())


def test_reported_usage_has_the_times_that_the_page_has(served_agent: AgentProcess) -> None:
    assert served_agent.chat("Count to five.", model="single")[0] == 200
    status, vectors = served_agent.ask("/v1/embeddings", {"model": "vectors", "input": ["one", "two"]})
    assert status == 200
    _, page = scrape_agent(served_agent.state_dir / "agent.sock")
    with client(served_agent) as control:
        records = control.reports(5000).records
    usage = [Usage.model_validate(each.body) for each in records if each.kind is RecordKind.USAGE]
    for model in ("single", "vectors"):
        rows = [row for row in usage if row.model == model]
        first = sum((Histogram(row.ttft_histogram) for row in rows), EMPTY)
        waits = sum((Histogram(row.queue_histogram) for row in rows), EMPTY)
        told = page["edgectl_time_to_first_token_seconds"]
        assert told.value("_count", model=model) == first.total
        assert told.value("_bucket", model=model, le="5") == sum(first.counts[: BOUNDS.index(5) + 1])
        assert waits.total == sum(row.requests for row in rows)
        assert sum(row.finish_stop + row.finish_length for row in rows) <= waits.total
    assert sum(row.finish_length + row.finish_stop for row in usage if row.model == "single") >= 1
    embedded = [row for row in usage if row.model == "vectors"]
    assert sum(row.prompt_tokens for row in embedded) >= vectors["usage"]["prompt_tokens"] > 0
    assert {row.ttft_histogram for row in embedded} == {EMPTY.counts}
