"""One request as the usage of a minute."""

from typing import Any

import pytest

from agent_daemon.contract.histogram import EMPTY, Histogram
from agent_daemon.contract.wire import USAGE_SUMS, Usage
from agent_daemon.metering import RequestRecord, usage_of

RELEASE = f"sha256:{'a' * 64}"


def record(**more: Any) -> RequestRecord:
    return RequestRecord(**{"model": "chat", "release": RELEASE, "number": 3, "finish": "stop", **more})


def test_an_answer_becomes_a_row_of_its_minute() -> None:
    answered = record(
        adapter="legal",
        key="0123456789ab",
        prompt_tokens=40,
        cached_tokens=30,
        completion_tokens=5,
        queued=0.03,
        first=0.25,
        generating=0.4,
        total=0.7005,
    )
    assert usage_of(answered, 120) == Usage(
        minute=120,
        model="chat",
        adapter="legal",
        key="0123456789ab",
        release=RELEASE,
        number=3,
        requests=1,
        failures=0,
        prompt_tokens=40,
        cached_tokens=30,
        completion_tokens=5,
        ttft_ms=250,
        duration_ms=700,
        queue_ms=30,
        finish_stop=1,
        ttft_histogram=Histogram.of([0.25]).counts,
        inter_token_histogram=Histogram.of([0.1]).counts,
        queue_histogram=Histogram.of([0.03]).counts,
    )


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "cancelled", "error"])
def test_each_end_has_a_count_of_its_own(finish: str) -> None:
    usage = usage_of(record(finish=finish), 60)
    ends = {name: getattr(usage, name) for name in USAGE_SUMS if name.startswith("finish_")}
    assert {name for name, count in ends.items() if count} == {f"finish_{finish}"}
    assert (sum(ends.values()), usage.failures) == (1, int(finish in ("cancelled", "error")))


def test_what_was_not_there_is_in_no_histogram() -> None:
    usage = usage_of(record(finish="cancelled", queued=2.0, total=2.0), 60)
    assert usage.ttft_histogram == usage.inter_token_histogram == EMPTY.counts
    assert usage.queue_histogram == Histogram.of([2.0]).counts
    assert (usage.ttft_ms, usage.queue_ms) == (2000, 2000)
