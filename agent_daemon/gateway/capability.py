"""Whether a loaded model can do what a request needs of it."""

from collections.abc import Sequence

from agent_daemon.gateway.errors import invalid
from agent_daemon.worker_messages import Tool
from agent_daemon.worker_process import WorkerProcess


async def check_tools(process: WorkerProcess, tools: Sequence[Tool]) -> None:
    """Raises ApiError 400 for tools that the model's template would leave out of the prompt in silence, and
    WorkerFailure when the worker is gone."""
    if tools and not (await process.ready()).tools:
        raise invalid("tools: this model's chat template declares no tools", "tools")
