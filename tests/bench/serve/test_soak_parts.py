"""What the soak judges by: its plans, the page of metrics, and the growth of memory."""

import itertools

from agent_daemon.contract.wire import WorkerState, WorkerStatus
from agent_daemon.metrics import Metrics
from agent_daemon.worker_messages import Stats
from tests.bench.serve.soak_plans import plans
from tests.bench.serve.soak_watch import Inside, Sample, growth, inside


def test_plans_are_the_same_for_a_seed_and_of_every_kind() -> None:
    first, again, other = (list(itertools.islice(plans(seed), 500)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert {plan.kind for plan in first} == {
        *(
            "short",
            "long",
            "shared",
            "logprobs",
            "json_schema",
            "stop",
            "penalties",
            "completion",
            "response",
        ),
        "bad",
    }
    assert {plan.status for plan in first} == {200, 400, 404}
    left = [plan for plan in first if plan.leave is not None]
    assert 100 < len(left) < 200
    assert all(plan.streamed for plan in left if plan.leave)


def test_the_page_of_metrics_is_read_as_the_agent_writes_it() -> None:
    key = "sha256:" + "1" * 64
    stats = Stats(id=1, cells=6144, cells_used=40, cells_held=30, sequences=20, sequences_running=2,
                  sequences_held=3, waiting=1, preemptions=4, evictions=5)  # fmt: skip
    worker = WorkerStatus(engine_key=key, models=("assistant",), state=WorkerState.READY, pid=1)
    seen = inside(Metrics().text({key: stats}, (worker,)))
    assert seen == Inside(2, 1, 6144, 40, 30, 20, 3, 4, 5)
    assert not seen.quiet


def test_rest_is_when_only_the_prefix_cache_keeps_cells() -> None:
    assert Inside(0, 0, 100, 30, 30, 8, 2, 0, 0).quiet
    assert not Inside(0, 0, 100, 31, 30, 8, 2, 0, 0).quiet
    assert not Inside(0, 1, 100, 30, 30, 8, 2, 0, 0).quiet
    assert not Inside(1, 0, 100, 30, 30, 8, 2, 0, 0).quiet


def test_growth_is_of_the_time_after_settling() -> None:
    rest = Inside(0, 0, 1, 0, 0, 1, 0, 0, 0)
    sizes = ((60, 900), (300, 1000), (360, 1010), (420, 1020), (480, 1030))
    samples = [Sample(seconds, rest, 1, 0, size, 0) for seconds, size in sizes]
    found = growth(samples, 300)
    assert found is not None
    assert (found.samples, round(found.bytes_per_minute, 6), found.most) == (4, 10, 30)
    assert growth(samples, 480) is None
