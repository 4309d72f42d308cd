"""What a worker does not import: each takes tens of milliseconds of every start, and few workers ever use it."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.engine

LEFT_OUT = (
    *(
        "numpy",
        "asyncio",
        "pydantic",
        "psutil",
        "argparse",
        "agent_daemon.grammar",
        "agent_daemon.worker.structure",
    ),
    *("agent_daemon.contract.release", "agent_daemon.contract.device_facts", "agent_daemon.worker.bandwidth"),
)


def test_a_worker_imports_nothing_that_it_may_never_need() -> None:
    code = "import json, sys, agent_daemon.worker.__main__; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = json.loads(done.stdout)
    assert "llama_cpp" in imported
    assert [name for name in LEFT_OUT if name in imported] == []
