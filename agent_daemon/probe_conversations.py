"""What a probe asks a model: what clients may ask, in the fewest tokens.

A template may bring a system prompt of its own, and on a processor computing that takes longer than all else that a probe
does. So a conversation is rendered as clients send it, which shows that the template takes it, and computed behind an
empty system message where that is shorter.
"""

from typing import Any

from agent_daemon.contract.release import ServedModel
from agent_daemon.manner import with_manner
from agent_daemon.worker_messages import Refused, Tokenize
from agent_daemon.worker_process import WorkerProcess

Messages = tuple[dict[str, Any], ...]
_EMPTY = {"role": "system", "content": ""}


async def conversations(
    model: ServedModel, prompt: str, process: WorkerProcess
) -> tuple[Messages, ...] | Refused:
    """What to ask, each where the one before got no answer; or why clients could not ask that at all. Raises
    WorkerFailure."""
    asked = with_manner(({"role": "user", "content": prompt},), model.system_prompt)
    rendered = await process.tokenize(Tokenize(id=0, messages=asked))
    if isinstance(rendered, Refused):
        return rendered
    if model.system_prompt is not None:
        return (asked,)
    brief = (_EMPTY, *asked)
    shorter = await process.tokenize(Tokenize(id=0, messages=brief))
    if isinstance(shorter, Refused) or len(shorter.tokens) >= len(rendered.tokens):
        return (asked,)
    return brief, asked
