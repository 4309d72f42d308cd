"""Histograms: the same buckets for ever, sums that are exact, quantiles that are honest estimates."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.histogram import BOUNDS, EMPTY, SIZE, Histogram
from agent_daemon.contract.wire import Usage

CASES = Path(__file__).parents[2] / "cases" / "histogram" / "quantiles.json"
seconds = st.lists(st.floats(0, 1e6), max_size=30)


def test_the_buckets_are_those_that_devices_and_inventories_out_there_have_counted_in() -> None:
    """Never change this line: other buckets are another field of the message and other columns of the tables."""
    assert BOUNDS == (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 300)
    assert (SIZE, EMPTY.counts) == (17, (0,) * 17)


@pytest.mark.parametrize("case", json.loads(CASES.read_text()), ids=lambda case: case["what"])
def test_quantiles(case: dict[str, Any]) -> None:
    found = Histogram.of(case["seconds"]).quantile(case["part"])
    assert found == (None if case["quantile"] is None else pytest.approx(case["quantile"]))


def test_each_duration_is_counted_in_the_first_bucket_that_takes_it() -> None:
    counts = Histogram.of([0.0, 0.002, 0.0021, 0.9, 1.0, 300.0, 300.1, 1e9]).counts
    assert counts == (2, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 2)


@given(seconds, seconds)
def test_a_sum_is_what_would_have_been_counted_together(one: list[float], two: list[float]) -> None:
    both = Histogram.of(one) + Histogram.of(two)
    assert both == Histogram.of(one + two) == Histogram.of(two) + Histogram.of(one)
    assert both.total == len(one) + len(two)
    assert Histogram.of(one) * 3 == Histogram.of(one * 3)
    assert Histogram.parse(both.text()) == both


@given(seconds.filter(bool), st.floats(0, 1))
def test_an_estimate_lies_in_the_bucket_of_the_true_quantile(durations: list[float], part: float) -> None:
    found = Histogram.of(durations).quantile(part)
    true = sorted(durations)[max(0, -int(-part * len(durations) // 1) - 1)]
    bounds = (0.0, *BOUNDS)
    start = max(bound for bound in bounds if bound < true or bound == 0)
    end = min((bound for bound in bounds if bound >= true), default=BOUNDS[-1])
    assert found is not None
    assert min(start, BOUNDS[-1]) <= found <= max(end, 0.002)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "[1]", "null", "[" + "1.5," * 16 + "1]", "[" + "true," * 16 + "1]", str([-1] * 17)],
)
def test_text_that_is_no_histogram_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Histogram.parse(text)


def test_an_older_agents_usage_is_taken_without_what_it_does_not_say() -> None:
    told = {"minute": 60, "model": "chat", "release": f"sha256:{'a' * 64}", "number": 1, "requests": 2}
    usage = Usage.model_validate(
        {**told, "failures": 1, "prompt_tokens": 5, "completion_tokens": 3, "ttft_ms": 9}
    )
    assert (usage.adapter, usage.key, usage.cached_tokens, usage.queue_ms, usage.finish_stop) == (
        "",
        "",
        0,
        0,
        0,
    )
    assert {usage.ttft_histogram, usage.inter_token_histogram, usage.queue_histogram} == {(0,) * 17}
