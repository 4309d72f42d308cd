"""What each sampling setting does to a real model's answers."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from agent_daemon.worker_messages import Choosing, Constraint, Text
from tests.agent_daemon.worker.test_engine import COUNT, Desk

pytestmark = pytest.mark.engine


@pytest.fixture
def desk(chat_model: Any) -> Iterator[Desk]:
    made = Desk(chat_model)
    yield made
    made.close()


def hot(**more: Any) -> Choosing:
    """As random as it gets, but for what is said."""
    return Choosing(**{"temperature": 2, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 1, **more})


def greedy_and(desk: Desk, **request: Any) -> tuple[str, str]:
    """The greedy answer, and the one to a request that differs from it as said."""
    desk.ask(1, prompt=COUNT, max_tokens=6)
    desk.ask(2, prompt=COUNT, max_tokens=6, **request)
    desk.finish()
    return desk.text(1), desk.text(2)


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_a_seed_reproduces_an_answer(desk: Desk, seed: int) -> None:
    for number in (1, 2):
        desk.ask(number, prompt="Once upon a time", sampling=hot(seed=seed), max_tokens=6)
        desk.finish()
    assert desk.text(1) == desk.text(2)


def test_seeds_differ_and_so_do_answers_without_one(desk: Desk) -> None:
    for number in range(1, 5):
        desk.ask(number, prompt="Once upon a time", sampling=hot(seed=number), max_tokens=6)
        desk.ask(number + 10, prompt="Once upon a time", sampling=hot(seed=None), max_tokens=6)
    desk.finish()
    assert len({desk.text(number) for number in range(1, 5)}) == 4
    assert len({desk.text(number) for number in range(11, 15)}) == 4


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}])
def test_a_setting_that_leaves_one_candidate_makes_any_temperature_greedy(
    desk: Desk, narrow: dict[str, float]
) -> None:
    greedy, narrowed = greedy_and(desk, sampling=hot(**narrow))
    assert narrowed == greedy


def test_typical_sampling_keeps_to_what_is_typical(desk: Desk) -> None:
    """With next to nothing of the probability mass it is one candidate: the same for every seed."""
    for seed in (1, 2, 3):
        desk.ask(seed, prompt=COUNT, sampling=hot(typical_p=0.0001, seed=seed), max_tokens=5)
    desk.finish()
    assert len({desk.text(seed) for seed in (1, 2, 3)}) == 1


@pytest.mark.parametrize(
    "penalty", [{"presence_penalty": 2.0, "frequency_penalty": 2.0}, {"repeat_penalty": 2.0}]
)
def test_penalties_keep_the_model_from_going_on_as_before(desk: Desk, penalty: dict[str, float]) -> None:
    desk.ask(1, prompt=COUNT, max_tokens=12)
    desk.ask(2, prompt=COUNT, max_tokens=12, sampling=Choosing(temperature=0, **penalty))
    desk.finish()
    assert desk.text(1).count("1") == 4
    assert desk.text(2).count("1") < 4


def test_a_bias_forbids_and_forces_tokens(desk: Desk) -> None:
    (nine,) = desk.model.tokenize("9")
    (space,) = desk.model.tokenize(" ")
    greedy, forced = greedy_and(desk, logit_bias={nine: 100.0})
    assert forced == "9" * 6
    assert " " in greedy
    desk.ask(3, prompt=COUNT, max_tokens=6, logit_bias={space: -100.0})
    desk.finish()
    assert desk.text(3) != greedy


# -- logprobs --------------------------------------------------------------------------------------------


def test_logprobs_are_those_of_the_models_whole_distribution(desk: Desk) -> None:
    desk.ask(1, prompt=COUNT, max_tokens=4, logprobs=5)
    desk.finish()
    events = [event for event in desk.of(1) if isinstance(event, Text)]
    found = [each for event in events for each in event.logprobs]
    assert len(found) == 4
    assert "".join(each.token for each in found) == desk.text(1)
    for each in found:
        assert len(each.top) == 5
        assert each.top[0].logprob == each.logprob
        assert each.top[0].token == each.token
        values = [other.logprob for other in each.top]
        assert values == sorted(values, reverse=True)
        assert sum(math.exp(value) for value in values) <= 1
        assert bytes(each.bytes_).decode() == each.token


def test_all_logprobs_of_a_position_add_up_to_one() -> None:
    import numpy as np

    from agent_daemon.worker.logprobs import logprobs

    values = np.array([3.0, -1.0, 0.5, 2.0], dtype=np.float32)
    every = logprobs(values, 2, 4, lambda token: bytes([65 + token]))
    assert [each.token for each in every.top] == ["A", "D", "C", "B"]
    assert sum(math.exp(each.logprob) for each in every.top) == pytest.approx(1, abs=1e-12)
    assert every.logprob == every.top[2].logprob
    assert every.token == "C"
    assert logprobs(values, 2, 0, lambda token: b"x").top == ()


def test_a_part_of_a_character_is_reported_by_its_bytes() -> None:
    import numpy as np

    from agent_daemon.worker.logprobs import logprobs

    only = logprobs(np.zeros(2, dtype=np.float32), 0, 0, lambda _token: "é".encode()[:1])
    assert (only.token, only.bytes_) == ("�", (0xC3,))


# -- grammar ---------------------------------------------------------------------------------------------


def test_a_grammar_decides_what_the_answer_looks_like(desk: Desk) -> None:
    constraint = Constraint(kind="grammar", grammar='root ::= "yes, " ("indeed" | "why not")')
    desk.ask(1, prompt=COUNT, max_tokens=20, constraint=constraint)
    desk.ask(2, prompt=COUNT, max_tokens=20, constraint=constraint, sampling=hot())
    desk.finish()
    for number in (1, 2):
        assert desk.text(number) in ("yes, indeed", "yes, why not")
        assert desk.of(number)[-1].finish_reason == "stop"


def test_an_answer_whose_grammar_has_come_to_a_dead_end_ends_with_an_error_alone(desk: Desk) -> None:
    """llama.cpp lets no token begin with the character of number 0, whatever the grammar says."""
    constraint = Constraint(kind="grammar", grammar='root ::= "a" "\\x00"')
    desk.ask(1, prompt=COUNT, max_tokens=5, constraint=constraint)
    desk.ask(2, prompt=COUNT, max_tokens=5)
    desk.finish()
    done = desk.of(1)[-1]
    assert (done.finish_reason, done.completion_tokens) == ("error", 1)
    assert done.error == "the grammar allows nothing to follow"
    assert desk.of(2)[-1].finish_reason == "length"


def test_a_grammar_that_llama_does_not_take_is_refused(desk: Desk) -> None:
    from agent_daemon.worker.sampling import GrammarRefused, Sampler

    with pytest.raises(GrammarRefused, match="does not take the grammar"):
        Sampler(Choosing(), desk.model.vocab, grammar='root ::= "unclosed')
