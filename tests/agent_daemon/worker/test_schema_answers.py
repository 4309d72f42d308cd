"""Two hundred schemas, each answered by the real model through the real engine: every answer is an instance."""

import json
from typing import Any

import jsonschema
import pytest

from agent_daemon.worker_messages import Choosing, Constraint, Done, Generate, Text
from tests.agent_daemon.worker.conftest import load_model
from tests.support.schemas import schema

# Alone on one core it takes a minute or two; beside other tests much longer.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

SCHEMAS = {seed: schema(seed, depth=1) for seed in range(1000, 1200)}


@pytest.fixture(scope="module")
def answers() -> dict[int, tuple[str, str]]:
    """Text and finish reason by seed; half of them greedy, half by chance."""
    from agent_daemon.worker.engine import Engine

    said: list[Any] = []
    engine = Engine(load_model("chat", 256, 16), said.append)
    for seed, each in SCHEMAS.items():
        sampling = Choosing(temperature=0) if seed % 2 else Choosing(temperature=1.5, seed=seed)
        wanted = Constraint(kind="json_schema", json_schema=each)
        engine.submit(Generate(id=seed, prompt="JSON:", constraint=wanted, sampling=sampling, max_tokens=240))
    while engine.busy:
        engine.step()
    ends = {event.id: event.finish_reason for event in said if isinstance(event, Done)}
    texts = dict.fromkeys(SCHEMAS, "")
    for event in said:
        if isinstance(event, Text):
            texts[event.id] += event.text
    return {seed: (texts[seed], ends[seed]) for seed in SCHEMAS}


def test_every_answer_is_complete_and_an_instance_of_its_schema(answers: dict[int, tuple[str, str]]) -> None:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    for seed, (text, reason) in answers.items():
        assert reason == "stop", (seed, text)
        jsonschema.Draft202012Validator(SCHEMAS[seed], format_checker=checker).validate(json.loads(text))


def test_the_answers_are_not_all_alike(answers: dict[int, tuple[str, str]]) -> None:
    assert len({text for text, _reason in answers.values()}) > 150
