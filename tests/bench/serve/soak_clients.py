"""The clients of a soak: each carries out one plan after the other and says what came of it."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

from tests.bench.serve.http_door import Event, ServerFailure, decoded, request
from tests.bench.serve.soak_plans import Plan

_MOST_TOLD = 20
_PATIENCE = 300.0
"""Seconds for one request: one that takes longer has been forgotten by somebody."""


@dataclass
class Tally:
    """What came of the requests so far: by kind and outcome, and the first of what must not happen, in words."""

    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def wrong(self, what: str) -> None:
        if len(self.violations) < _MOST_TOLD:
            self.violations.append(what)

    def count(self, outcome: str) -> int:
        """Requests of every kind that came to `outcome`: answered, refused, left or busy."""
        return sum(number for name, number in self.outcomes.items() if name.endswith(f" {outcome}"))


async def work(port: int, plans: Iterator[Plan], clients: int, tally: Tally) -> None:
    """Carries out the plans until there are none left, so many at once; everything has ended on return."""

    async def client() -> None:
        for plan in plans:
            try:
                async with asyncio.timeout(_PATIENCE):
                    outcome = await _carry_out(port, plan)
            except TimeoutError:
                tally.wrong(f"{plan.kind}: not over after {_PATIENCE:g} s")
                outcome = "broken"
            except (ServerFailure, OSError, asyncio.IncompleteReadError, ValueError) as error:
                tally.wrong(f"{plan.kind}: {type(error).__name__}: {error}")
                outcome = "broken"
            tally.outcomes[f"{plan.kind} {outcome}"] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


async def _carry_out(port: int, plan: Plan) -> str:
    """`answered`, `refused` as it had to be, `left`, or `busy` (429, which a full queue may say at any time).
    Raises ServerFailure for everything else."""
    if plan.leave == 0:
        return await _leave_at_once(port, plan)
    async with request(port, plan.path, plan.body) as (status, chunks):
        if status == 429:
            return "busy"
        if status == 200 == plan.status and plan.streamed:
            return await _listen(plan, decoded(chunks))
        said = b"".join([chunk async for chunk in chunks])
        if status != plan.status:
            raise ServerFailure(f"{status} instead of {plan.status}: {said[:300].decode(errors='replace')}")
        if plan.status != 200:
            return "refused"
        if "usage" not in json.loads(said):
            raise ServerFailure("an answer without its usage")
        return "answered"


async def _leave_at_once(port: int, plan: Plan) -> str:
    """Sends the request, waits for no more than a step of the engine, and is gone."""
    asking = request(port, plan.path, plan.body)
    entering = asyncio.ensure_future(asking.__aenter__())
    done, _ = await asyncio.wait([entering], timeout=(len(json.dumps(plan.body)) % 7) / 10)
    if not done:
        entering.cancel()
        await asyncio.wait([entering])
        return "left"
    status, _chunks = entering.result()
    await asking.__aexit__(None, None, None)
    if status not in (plan.status, 429):
        raise ServerFailure(f"{status} instead of {plan.status}")
    return "left"


async def _listen(plan: Plan, events: AsyncGenerator[Event, None]) -> str:
    heard, ended = 0, False
    try:
        async for event in events:
            heard += 1
            if event.get("error") or event.get("type") in ("error", "response.failed"):
                raise ServerFailure(f"the stream ended with an error: {event}")
            ended = ended or _ends(event)
            if heard == plan.leave:
                return "left"
    finally:
        await events.aclose()
    if not ended:
        raise ServerFailure(f"a stream of {heard} events without its end")
    return "answered"


def _ends(event: Event) -> bool:
    if event.get("type") in ("response.completed", "response.incomplete"):
        return True
    return any(choice.get("finish_reason") for choice in event.get("choices", ()))
