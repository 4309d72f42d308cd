"""Beginnings that requests share are computed once, and nothing that is kept is ever in the way."""

from collections.abc import Iterator
from typing import Any

import pytest

from agent_daemon.worker_messages import Done, Started, Text
from tests.agent_daemon.worker.conftest import load_model
from tests.agent_daemon.worker.test_engine import Desk
from tests.support.tiny_models import tiny_model

pytestmark = pytest.mark.engine

DOCUMENT = " ".join(f"Item {number} costs {number * 7 % 13} coins." for number in range(25))
QUESTIONS = {
    number: f"{DOCUMENT}\n\nNumbers: " + " ".join(str(first + step) for step in range(9))
    for number, first in enumerate((1, 20, 41, 70), 1)
}
"""Each is gone on with by counting: an answer that does not hang on the rounding of one kernel or another, which
compute batches of different sizes."""


@pytest.fixture(scope="module")
def wide_model() -> Any:
    """Four sequences over 2048 cells."""
    return load_model("chat", 512, 4)


@pytest.fixture
def desk(wide_model: Any) -> Iterator[Desk]:
    made = Desk(wide_model)
    yield made
    made.close()


@pytest.fixture(scope="module")
def small_wide_model() -> Any:
    """Four sequences over 2048 cells, of a model that answers in milliseconds; a token is a letter."""
    return load_model("chat", 512, 4, path=tiny_model("dense"))


@pytest.fixture
def quick_desk(small_wide_model: Any) -> Iterator[Desk]:
    made = Desk(small_wide_model)
    yield made
    made.close()


def alone(model: Any, prompt: str, **more: Any) -> str:
    """The answer of an engine that has computed nothing before."""
    desk = Desk(model)
    desk.ask(1, prompt=prompt, max_tokens=8, **more)
    desk.finish()
    desk.close()
    return desk.text(1)


def started(desk: Desk, number: int) -> Started:
    return next(event for event in desk.of(number) if isinstance(event, Started))


def shared(desk: Desk, one: str, other: str) -> int:
    """How many tokens two prompts have in common."""
    tokens, others = desk.model.tokenize(one), desk.model.tokenize(other)
    return next(at for at, (a, b) in enumerate(zip(tokens, others, strict=False)) if a != b)


def test_a_finished_request_s_beginning_is_taken_over_and_the_answer_is_the_same(
    desk: Desk, wide_model: Any
) -> None:
    expected = alone(wide_model, QUESTIONS[2])
    for number in (1, 2):
        desk.ask(number, prompt=QUESTIONS[number], max_tokens=8)
        desk.finish()
    assert started(desk, 1).cached_tokens == 0
    assert started(desk, 2).cached_tokens == shared(desk, QUESTIONS[1], QUESTIONS[2]) > 200
    assert desk.text(2) == expected


def test_the_same_prompt_again_computes_its_last_token_only(desk: Desk) -> None:
    for number in (1, 2):
        desk.ask(number, prompt=QUESTIONS[1], max_tokens=8)
        desk.finish()
    begun = started(desk, 2)
    assert begun.cached_tokens == begun.prompt_tokens - 1
    assert desk.text(2) == desk.text(1)
    assert desk.engine.stats().prompt_tokens == begun.prompt_tokens + 1


def test_the_next_turn_goes_on_from_the_whole_last_one(desk: Desk) -> None:
    desk.ask(1, prompt=QUESTIONS[1], max_tokens=8)
    desk.finish()
    # The answer's last token was given out and not computed.
    desk.ask(2, prompt=f"{QUESTIONS[1]}{desk.text(1)} And then?", max_tokens=4)
    desk.finish()
    assert started(desk, 2).cached_tokens == started(desk, 1).prompt_tokens + 7


def test_a_burst_waits_for_one_computation_of_what_it_shares(desk: Desk, wide_model: Any) -> None:
    expected = {number: alone(wide_model, prompt) for number, prompt in QUESTIONS.items()}
    for number, prompt in QUESTIONS.items():
        desk.ask(number, prompt=prompt, max_tokens=8)
    desk.finish()
    common = shared(desk, QUESTIONS[1], QUESTIONS[2])
    cached = [started(desk, number).cached_tokens for number in QUESTIONS]
    # The last few tokens are not worth another step of waiting.
    assert cached[0] == 0
    assert all(common - 16 < each <= common for each in cached[1:])
    computed = sum(started(desk, number).prompt_tokens for number in QUESTIONS) - sum(cached)
    assert desk.engine.stats().prompt_tokens == computed
    assert {number: desk.text(number) for number in QUESTIONS} == expected
    # None of them ran before the first one had computed what they wait for.
    order = [event.id for event in desk.said if isinstance(event, Started)]
    assert order == [1, 2, 3, 4]


def test_who_waits_for_another_is_not_lost_when_that_one_leaves(desk: Desk, wide_model: Any) -> None:
    expected = alone(wide_model, QUESTIONS[2])
    desk.ask(1, prompt=QUESTIONS[1], max_tokens=8)
    desk.ask(2, prompt=QUESTIONS[2], max_tokens=8)
    desk.engine.step()
    assert desk.of(2) == []
    desk.engine.cancel(1)
    desk.finish()
    assert desk.text(2) == expected


def test_a_running_answer_shares_its_prompt(desk: Desk, wide_model: Any) -> None:
    expected = alone(wide_model, QUESTIONS[2])
    desk.ask(1, prompt=QUESTIONS[1], max_tokens=100)
    while not any(isinstance(event, Text) for event in desk.of(1)):
        desk.engine.step()
    desk.ask(2, prompt=QUESTIONS[2], max_tokens=8)
    while not any(isinstance(event, Done) for event in desk.of(2)):
        desk.engine.step()
    assert started(desk, 2).cached_tokens > 200
    assert desk.text(2) == expected
    desk.engine.cancel(1)


def test_shared_cells_are_counted_and_kept_once(desk: Desk) -> None:
    for number, prompt in QUESTIONS.items():
        desk.ask(number, prompt=prompt, max_tokens=8)
        desk.finish()
    stats = desk.engine.stats()
    kept: list[list[int]] = []
    for number, prompt in QUESTIONS.items():
        kept.append(desk.model.tokenize(prompt + desk.text(number))[:-1])
    beginnings = {tuple(tokens[:length]) for tokens in kept for length in range(1, len(tokens) + 1)}
    assert stats.cells_used == len(beginnings) < sum(map(len, kept)) / 2
    assert (stats.sequences_running, stats.sequences_held) == (0, 4)


def test_what_another_one_covers_is_not_kept_twice(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.ask(number, prompt=QUESTIONS[1], max_tokens=4 * number)
        desk.finish()
    assert desk.engine.stats().sequences_held == 1


def test_held_sequences_go_when_their_cells_are_wanted_and_the_oldest_first(quick_desk: Desk) -> None:
    desk = quick_desk
    prompts = {number: "abcdefgh"[number - 1] + "word " * 84 for number in range(1, 9)}
    for number, prompt in prompts.items():
        desk.ask(number, prompt=prompt, max_tokens=2)
        desk.finish()
    stats = desk.engine.stats()
    tokens = started(desk, 1).prompt_tokens + 1
    assert stats.cells_used <= desk.model.cells
    assert stats.sequences_held == desk.model.cells // tokens == 4
    assert stats.evictions == 4
    for number, cached in ((8, tokens - 2), (1, 0)):
        desk.ask(number + 10, prompt=prompts[number], max_tokens=2)
        desk.finish()
        assert started(desk, number + 10).cached_tokens == cached


def test_short_requests_are_not_held_up_by_a_long_one(quick_desk: Desk) -> None:
    desk = quick_desk
    desk.ask(1, prompt="word " * 96, max_tokens=2)
    desk.ask(2, prompt="One short question?", max_tokens=2)
    desk.finish()
    order = [event.id for event in desk.said if isinstance(event, Done)]
    assert order == [2, 1]


def test_a_client_with_many_requests_does_not_keep_another_one_waiting(quick_desk: Desk) -> None:
    desk = quick_desk
    for number in range(1, 9):
        desk.ask(number, prompt=f"{number} is", max_tokens=4, client="busy")
    desk.ask(9, prompt="Hello", max_tokens=4, client="quiet")
    desk.finish()
    order = [event.id for event in desk.said if isinstance(event, Started)]
    assert order.index(9) <= 4


def test_cancelling_at_any_moment_leaves_nothing(quick_desk: Desk) -> None:
    desk = quick_desk
    prompts = [letter + "word " * 60 for letter in "abcd"]
    for moment in range(12):
        desk.ask(moment + 1, prompt=prompts[moment % 4], max_tokens=6)
        for _ in range(moment):
            desk.engine.step()
        desk.engine.cancel(moment + 1)
        assert not desk.engine.busy
    stats = desk.engine.stats()
    assert (stats.sequences_running, stats.waiting) == (0, 0)
    assert stats.cells_used == stats.cells_held
    desk.engine.forget_held()
    assert desk.cells() == []
    assert desk.engine.stats().cells_used == 0
