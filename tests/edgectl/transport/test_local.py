"""A device that is this machine, and whose agent cannot be reached."""

from pathlib import Path

import pytest

from edgectl.errors import Unreachable
from edgectl.transport.local import LocalTransport


@pytest.mark.parametrize(
    ("folder", "why"), [("nobody", "no such file or directory"), ("deep" * 30, "af_unix path too long")]
)
def test_why_no_agent_answers(tmp_path: Path, folder: str, why: str) -> None:
    with pytest.raises(Unreachable) as caught:
        LocalTransport(tmp_path / folder).connect(1.0)
    assert caught.value.message == f"no agent answers at {tmp_path / folder}/agent.sock: {why}"
