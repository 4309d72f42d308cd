"""PURE. What the clients of a soak do: an endless, seeded mix of requests, good and bad, kept and given up."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.bench.serve import texts

CONTEXT = 1024
"""Tokens for each sequence of the model that a soak asks."""

_SYSTEMS = tuple("You help with stories." + texts.words(f"soak/system/{n}", 150 + 60 * n) for n in range(4))
_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog", "horse"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Plan:
    """One request. `status` is what has to come of it. `leave` says when its client goes away: before it has an
    answer (0), after so many events of the stream, or not at all (None)."""

    kind: str
    path: str
    body: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    leave: int | None = None

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))


def plans(seed: int) -> Iterator[Plan]:
    """The same plans for the same seed, without an end."""
    chance = random.Random(seed)
    makers, weights = zip(*_MIX, strict=True)
    number = 0
    while True:
        number += 1
        plan = chance.choices(makers, weights)[0](chance, f"soak/{seed}/{number}")
        yield plan if plan.status != 200 else _given_up_perhaps(chance, plan)


def _given_up_perhaps(chance: random.Random, plan: Plan) -> Plan:
    leave = None
    if chance.random() < 0.3:
        # Often within the prompt's computation, when nothing has been answered yet.
        leave = 0 if not plan.streamed or chance.random() < 0.4 else chance.randint(1, 30)
    return Plan(plan.kind, plan.path, plan.body, plan.status, leave)


def _chat(
    chance: random.Random,
    kind: str,
    messages: tuple[dict[str, str], ...],
    tokens: tuple[int, int],
    **more: Any,
) -> Plan:
    body = {
        "model": "assistant",
        "messages": messages,
        "max_tokens": chance.randint(*tokens),
        "temperature": chance.choice((0, 0.7, 1.2)),
        "stream": chance.random() < 0.6,
        **more,
    }
    return Plan(kind, "/v1/chat/completions", body)


def _short(chance: random.Random, name: str) -> Plan:
    return _chat(chance, "short", texts.chat(texts.story(name, chance.randint(3, 40))), (1, 48))


def _long(chance: random.Random, name: str) -> Plan:
    return _chat(chance, "long", texts.chat(texts.story(name, chance.randint(300, 800))), (1, 96))


def _shared(chance: random.Random, name: str) -> Plan:
    messages = texts.chat(texts.story(name, chance.randint(3, 60)), chance.choice(_SYSTEMS))
    return _chat(chance, "shared", messages, (4, 64))


def _likely(chance: random.Random, name: str) -> Plan:
    messages = texts.chat(texts.story(name, 12))
    return _chat(chance, "logprobs", messages, (1, 16), logprobs=True, top_logprobs=chance.randint(0, 5))


def _json(chance: random.Random, name: str) -> Plan:
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": _SCHEMA, "strict": True}}
    messages = texts.chat(f"Describe a pet that likes{texts.words(name, 4)}, as JSON.")
    return _chat(chance, "json_schema", messages, (48, 64), response_format=form)


def _stopped(chance: random.Random, name: str) -> Plan:
    return _chat(chance, "stop", texts.chat(texts.counting(name)), (8, 64), stop=["three", " the", "\n\n"])


def _penalized(chance: random.Random, name: str) -> Plan:
    more = {"frequency_penalty": 0.5, "presence_penalty": 0.2, "seed": chance.randint(0, 9), "top_p": 0.9}
    return _chat(chance, "penalties", texts.chat(texts.story(name, 10)), (4, 32), **more)


def _completion(chance: random.Random, name: str) -> Plan:
    body = {
        "model": "assistant",
        "prompt": f"Once upon a time{texts.words(name, chance.randint(1, 120))}",
        "max_tokens": chance.randint(1, 40),
        "stream": chance.random() < 0.5,
    }
    return Plan("completion", "/v1/completions", body)


def _response(chance: random.Random, name: str) -> Plan:
    body = {
        "model": "assistant",
        "input": texts.story(name, 8),
        "max_output_tokens": chance.randint(4, 32),
        "stream": chance.random() < 0.5,
    }
    return Plan("response", "/v1/responses", body)


def _bad(chance: random.Random, name: str) -> Plan:
    good = _chat(chance, "bad", texts.chat(texts.story(name, 5)), (1, 8)).body
    wrong: tuple[tuple[int, dict[str, Any]], ...] = (
        (404, {"model": "nobody"}),
        (400, {"messages": []}),
        (400, {"temperature": 9}),
        (400, {"top_logprobs": 3}),
        (400, {"logit_bias": {"the": 3}}),
        (400, {"grammar": "root ::= nowhere"}),
        (400, {"messages": texts.chat(texts.words(name, 2 * CONTEXT))}),
    )
    status, change = chance.choice(wrong)
    return Plan("bad", "/v1/chat/completions", {**good, **change}, status)


_MIX: tuple[tuple[Callable[[random.Random, str], Plan], int], ...] = (
    (_short, 30),
    (_long, 8),
    (_shared, 20),
    (_likely, 6),
    (_json, 6),
    (_stopped, 8),
    (_penalized, 6),
    (_completion, 8),
    (_response, 6),
    (_bad, 10),
)
