"""What a scrape is told of requests and workers."""

from typing import Any

import pytest

from agent_daemon.contract.wire import WorkerState, WorkerStatus
from agent_daemon.metering import RequestRecord
from agent_daemon.metrics import Metrics
from agent_daemon.worker_messages import Stats
from tests.support.inventory_messages import digest
from tests.support.prometheus import Scraped, scrape


def record(model: str = "chat", finish: Any = "stop", **more: Any) -> RequestRecord:
    return RequestRecord(model=model, release=digest("f"), number=1, finish=finish, **more)


def scraped(
    *records: RequestRecord, stats: dict[str, Stats] | None = None, workers: tuple[WorkerStatus, ...] = ()
) -> dict[str, Scraped]:
    metrics = Metrics()
    for each in records:
        metrics.observe(each)
    return scrape(metrics.text(stats or {}, workers))


def worker(key: str = "e", *models: str, **more: Any) -> WorkerStatus:
    return WorkerStatus(
        models=models or ("chat",), engine_key=digest(key), **{"state": WorkerState.READY, **more}
    )


def inside(**more: int) -> Stats:
    counts = {"cells": 400, "cells_used": 100, "cells_held": 60, "sequences": 14, "sequences_running": 3}
    return Stats(id=1, **{**counts, "sequences_held": 2, "waiting": 5, "steps": 70, "preemptions": 1, **more})


def test_an_agent_that_has_done_nothing_has_an_empty_page() -> None:
    assert scraped() == {}


def test_requests_are_summed_up_under_llama_servers_names() -> None:
    page = scraped(
        record(
            prompt_tokens=50,
            cached_tokens=40,
            completion_tokens=5,
            queued=0.5,
            first=1.0,
            generating=2.0,
            total=3.0,
        ),
        record(prompt_tokens=15, completion_tokens=3, queued=0.0, first=0.5, generating=1.0, total=2.0),
        record("vectors", prompt_tokens=8, total=0.25),
    )
    values = {
        name: family.value(model="chat") for name, family in page.items() if name.startswith("llamacpp:")
    }
    assert values == {
        "llamacpp:prompt_tokens_total": 25,
        "llamacpp:prompt_tokens_cached_total": 40,
        "llamacpp:prompt_seconds_total": 1.0,
        "llamacpp:tokens_predicted_total": 8,
        "llamacpp:tokens_predicted_seconds_total": 3.0,
        "llamacpp:prompt_tokens_seconds": 25.0,
        "llamacpp:predicted_tokens_seconds": 2.0,
    }
    assert page["llamacpp:prompt_tokens_seconds"].value(model="vectors") == 32.0
    assert page["llamacpp:tokens_predicted_total"].kind == "counter"
    assert page["llamacpp:predicted_tokens_seconds"].kind == "gauge"
    # No rate is made up for a model that has generated nothing.
    assert len(page["llamacpp:predicted_tokens_seconds"].samples) == 1


def test_requests_are_counted_by_adapter_and_end_and_never_by_key() -> None:
    page = scraped(
        *(record(adapter="legal", key="0123456789ab"), record(adapter="legal", finish="cancelled")),
        *(record(), record(key="ba9876543210")),
    )
    requests = page["edgectl_requests_total"]
    assert requests.value(model="chat", adapter="", finish="stop") == 2
    assert requests.value(model="chat", adapter="legal", finish="stop") == 1
    assert requests.value(model="chat", adapter="legal", finish="cancelled") == 1
    labels = {name for family in page.values() for _, labels in family.samples for name, _ in labels}
    assert labels == {"model", "adapter", "finish", "le"}


def test_times_are_histograms_of_what_was_measured() -> None:
    page = scraped(
        record(completion_tokens=3, first=0.25, generating=0.5, queued=0.125, total=1.0),
        record(finish="cancelled", queued=4.0, total=4.0),
    )
    first, steps = page["edgectl_time_to_first_token_seconds"], page["edgectl_inter_token_seconds"]
    assert (first.value("_count"), first.value("_sum")) == (1, 0.25)
    assert (first.value("_bucket", le="0.2"), first.value("_bucket", le="0.5")) == (0, 1)
    assert (steps.value("_count"), steps.value("_sum")) == (1, 0.25)
    queue = page["edgectl_queue_seconds"]
    assert (queue.value("_count"), queue.value("_sum"), queue.value("_bucket", le="5")) == (2, 4.125, 2)


def test_workers_are_told_as_they_are_now() -> None:
    page = scraped(stats={digest("e"): inside(evictions=9)}, workers=(worker(restarts=2),))
    assert {name: family.value(model="chat", worker="e" * 12) for name, family in page.items()} == {
        "llamacpp:requests_processing": 3,
        "llamacpp:requests_deferred": 5,
        "llamacpp:n_decode_total": 70,
        "llamacpp:kv_cache_usage_ratio": 0.25,
        "llamacpp:kv_cache_tokens": 100,
        "edgectl_kv_cells": 400,
        "edgectl_kv_cells_held": 60,
        "edgectl_sequences": 14,
        "edgectl_sequences_held": 2,
        "edgectl_preemptions_total": 1,
        "edgectl_evictions_total": 9,
        "edgectl_worker_ready": 1,
        "edgectl_worker_restarts_total": 2,
    }


def test_a_worker_that_did_not_answer_is_on_the_page_without_its_inside() -> None:
    page = scraped(workers=(worker(state=WorkerState.BACKOFF, restarts=4),))
    assert {name: family.value() for name, family in page.items()} == {
        "edgectl_worker_ready": 0,
        "edgectl_worker_restarts_total": 4,
    }


def test_two_workers_of_one_model_are_two_samples() -> None:
    page = scraped(
        stats={digest("e"): inside(), digest("d"): inside(waiting=0)}, workers=(worker("e"), worker("d"))
    )
    deferred = page["llamacpp:requests_deferred"]
    assert (deferred.value(worker="e" * 12), deferred.value(worker="d" * 12)) == (5, 0)


@pytest.mark.parametrize(
    ("models", "label"),
    [
        (("chat", "chat:legal", "chat:code"), "chat"),
        (("chat", "terse"), "chat,terse"),
        (("org:chat",), "org:chat"),
    ],
)
def test_a_worker_is_labelled_by_its_models(models: tuple[str, ...], label: str) -> None:
    page = scraped(workers=(worker("e", *models),))
    assert page["edgectl_worker_ready"].value(model=label) == 1


def test_an_empty_context_has_no_ratio_to_divide_by() -> None:
    page = scraped(stats={digest("e"): inside(cells=0, cells_used=0)}, workers=(worker(),))
    assert page["llamacpp:kv_cache_usage_ratio"].value() == 0
