"""How clients behave: in a closed loop, all at once, turn by turn, or in the middle of somebody else's stream."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.bench.serve.answers import Answer, Ask, Scene, worst_gap
from tests.bench.serve.servers import Door

_RUNNING = 8
"""Pieces that every stream has to have said before the long prompt arrives."""


async def closed_loop(door: Door, name: str, asks: Sequence[Ask], clients: int) -> Scene:
    """So many clients, each asking its next question as soon as it has been answered, until none is left."""
    left, answers = iter(asks), []

    async def client() -> None:
        for ask in left:
            answers.append(await door.ask(ask))

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return Scene(name, tuple(answers), time.monotonic() - began)


async def at_once(door: Door, name: str, asks: Sequence[Ask]) -> Scene:
    """A burst: every question in the same moment."""
    return await closed_loop(door, name, asks, len(asks))


async def conversations(
    door: Door, name: str, openings: Sequence[Ask], results: Callable[[int, int], str], turns: int
) -> Scene:
    """Conversations side by side. After each answer comes what a tool said, `results(conversation, turn)`, and the
    model is asked again with everything so far."""
    answers: list[Answer] = []

    async def converse(number: int, ask: Ask) -> None:
        for turn in range(turns):
            answer = await door.ask(ask)
            answers.append(answer)
            said = {"role": "assistant", "content": answer.text}
            told = {"role": "user", "content": results(number, turn)}
            ask = replace(ask, messages=(*ask.messages, said, told))

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, ask in enumerate(openings):
            group.create_task(converse(number, ask))
    return Scene(name, tuple(answers), time.monotonic() - began)


async def intrusion(door: Door, name: str, streams: Sequence[Ask], intruder: Ask) -> Scene:
    """A long prompt that arrives while streams run. The worst gap is theirs, from the long prompt's arrival to its
    first token; the time to first token is the long prompt's."""
    running = asyncio.Semaphore(0)

    def heard(pieces: int) -> None:
        if pieces == _RUNNING:
            running.release()

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(door.ask(ask, heard)) for ask in streams]
        for _ in streams:
            await running.acquire()
        long = await door.ask(intruder)
    seconds = time.monotonic() - began
    beside = tuple(task.result() for task in tasks)
    return Scene(name, (long,), seconds, worst_gap(beside, long.asked, long.pieces[0]), beside)
