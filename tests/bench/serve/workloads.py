"""The workloads, each a few scenes of fresh questions that are the same for every server.

Numbers of tokens are the issue's; how often each is done is what gives steady figures in a few minutes. `name` in the
texts holds the repetition, so that a repeated prompt is never what is measured.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tests.bench.serve import texts
from tests.bench.serve.answers import Ask, Scene
from tests.bench.serve.plays import at_once, closed_loop, conversations, intrusion
from tests.bench.serve.servers import PARALLEL, Door

PEER = "llama.cpp"
BOTH_PEERS = ("edgectl", PEER, "llama_cpp.server")
LEVELS = (1, 4, 8)
_OUT = 64


@dataclass(frozen=True)
class Size:
    """How much of a workload is done: requests of each client in a loop, bursts, turns of a conversation, and the
    tokens that running streams have to say."""

    each: int = 3
    least: int = 6
    bursts: int = 2
    turns: int = 5
    stream_tokens: int = 400

    def requests(self, clients: int) -> int:
        return max(self.least, self.each * clients)


QUICK = Size(each=1, least=2, bursts=1, turns=2, stream_tokens=200)

Play = Callable[[Door, str, Size], AsyncIterator[Scene]]


@dataclass(frozen=True)
class Workload:
    """`context` is in tokens for each of the sequences; `servers` are those that take part unless told otherwise,
    and `peer` is the one that the others are compared with."""

    title: str
    play: Play
    context: int = 1024
    servers: tuple[str, ...] = BOTH_PEERS
    peer: str = PEER


def stories(name: str, count: int, system: str | None = None) -> list[Ask]:
    """Questions of 90 tokens, with the 30 of the template's own system text where no other is given."""
    return [Ask(texts.chat(texts.story(f"{name}/{n}", 43), system), _OUT) for n in range(count)]


def alone(*levels: int) -> Play:
    async def play(door: Door, name: str, size: Size) -> AsyncIterator[Scene]:
        for clients in levels:
            asks = stories(f"{name}/{clients}", size.requests(clients))
            yield await closed_loop(door, str(clients), asks, clients)

    return play


async def shared(door: Door, name: str, size: Size) -> AsyncIterator[Scene]:
    system = "You help with stories." + texts.words(f"{name}/system", 183)
    await at_once(door, "warm-up", stories(f"{name}/warm", PARALLEL, system))
    for clients in LEVELS:
        asks = stories(f"{name}/{clients}", size.requests(clients), system)
        yield await closed_loop(door, str(clients), asks, clients)


async def burst(door: Door, name: str, size: Size) -> AsyncIterator[Scene]:
    for number in range(size.bursts):
        document = "Read this." + texts.words(f"{name}/{number}", 596)
        questions = [texts.about(document, f"{name}/{number}/{n}") for n in range(PARALLEL)]
        yield await at_once(door, "8", [Ask(texts.chat(each), 32) for each in questions])


async def agents(door: Door, name: str, size: Size) -> AsyncIterator[Scene]:
    system = texts.tools(f"{name}/tools", 1200)
    tasks = [texts.chat(f"Your task:{texts.words(f'{name}/{n}', 30)}.", system) for n in range(4)]

    def result(conversation: int, turn: int) -> str:
        return texts.result(f"{name}/{conversation}/{turn}", 60)

    yield await conversations(door, "4", [Ask(task, 48) for task in tasks], result, size.turns)


async def long_prompt(door: Door, name: str, size: Size) -> AsyncIterator[Scene]:
    streams = [Ask(texts.chat(texts.counting(f"{name}/{n}")), size.stream_tokens) for n in range(4)]
    document = "Read this." + texts.words(f"{name}/long", 2940)
    yield await intrusion(door, "4", streams, Ask(texts.chat(texts.about(document, name)), 16))


WORKLOADS: dict[str, Workload] = {
    "a": Workload("distinct 90-token prompts, 64 out", alone(*LEVELS)),
    "b": Workload("the same behind a shared 190-token system prompt, warm", shared),
    "c": Workload("a burst of 8 that open with the same new 600 tokens, 32 out", burst),
    "d": Workload("an agent's trace: 1,200 tokens with tools, 4 conversations of 5 turns", agents, 4096),
    "e": Workload("a 3,000-token prompt arrives while 4 streams run", long_prompt, 4096, ("edgectl", PEER)),
    "memory": Workload("8 clients, without a prompt cache in host memory", alone(8), 1024,
                       ("edgectl", "llama.cpp-lean"), "llama.cpp-lean"),
    "gateway": Workload("through the gateway against the worker's own socket", alone(1, 8), 1024,
                        ("edgectl", "edgectl-worker"), "edgectl-worker"),
}  # fmt: skip


def warm_up() -> list[Ask]:
    """Short questions that make every sequence and graph exist before anything is measured."""
    return [Ask(texts.chat(f"Say hello to the{texts.words(f'warm/{n}', 4)}."), 8) for n in range(PARALLEL)]
