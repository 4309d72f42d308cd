"""A short run of the bench: it counts what it says, and no request fails."""

from pathlib import Path

import pytest

from agent_daemon.contract.release import Strategy
from tests.bench.deploy.no_failed_request import _broken_stream, measure, table


@pytest.mark.engine
@pytest.mark.parametrize("strategy", [Strategy.HANDOVER, Strategy.REPLACE])
def test_no_request_fails_while_releases_are_exchanged(tmp_path: Path, strategy: Strategy) -> None:
    found = measure(tmp_path, strategy, clients=4, exchanges=2, quiet=2.0)
    assert found.problems == ()
    assert (found.failed, found.exchanges) == (0, 2)
    assert found.streamed > 0
    assert found.requests > found.streamed
    assert found.longest < 120
    assert str(strategy) in table([found])


def test_a_stream_counts_as_whole_only_with_its_end() -> None:
    end = b'data: {"choices": [{"finish_reason": "length"}]}\n\n'
    assert _broken_stream(end + b"data: [DONE]\n\n") is None
    assert _broken_stream(end) is not None
    assert _broken_stream(b'data: {"choices": [{"finish_reason": null}]}\n\ndata: [DONE]\n\n') is not None
    assert _broken_stream(b'data: {"error": {"message": "x"}}\n\n' + end + b"data: [DONE]\n\n") is not None
