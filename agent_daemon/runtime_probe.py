"""Asks the device's llama-cpp-python what it can do, in a process of its own: importing it costs memory that an
idle agent should not hold, and a build for another CPU dies at once."""

import asyncio
import subprocess
import sys

from agent_daemon.contract.wire import RuntimeFacts

_TIMEOUT = 60.0
_COMMAND = (sys.executable, "-m", "agent_daemon.worker", "--probe-runtime")


async def probe_runtime() -> RuntimeFacts:
    """Never raises: whatever goes wrong is in `error`, as one line."""
    return await asyncio.to_thread(_probe)


def _probe() -> RuntimeFacts:
    try:
        done = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return RuntimeFacts(error=f"llama-cpp-python could not be asked: {error}")
    if done.returncode == 0:
        try:
            return RuntimeFacts.model_validate_json(done.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            return RuntimeFacts(error="llama-cpp-python gave an answer that makes no sense")
    if done.returncode < 0:
        return RuntimeFacts(
            error=f"llama-cpp-python was ended by signal {-done.returncode}: it may be built for another CPU"
        )
    lines = done.stderr.strip().splitlines()
    return RuntimeFacts(error=f"llama-cpp-python does not load: {lines[-1] if lines else 'no reason given'}")
