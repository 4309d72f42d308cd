"""Where cells are few, and in any order of things: no answer changes, nothing fails, nothing is left."""

import random
from typing import Any

import pytest

from agent_daemon.worker_messages import Done
from tests.agent_daemon.worker.conftest import load_model
from tests.agent_daemon.worker.test_engine import Desk
from tests.agent_daemon.worker.test_kinds import (
    CHAT,
    DOCUMENT,
    PROMPTS,
    QUESTIONS,
    STORY,
    ask,
    ask_in_turn,
    assert_greedy,
    assert_nothing_is_left,
    cached,
)
from tests.support.tiny_models import WINDOW, tiny_model

pytestmark = pytest.mark.engine


def made(kind: str, context: int, parallel: int, **more: Any) -> Desk:
    return Desk(load_model("chat", context, parallel, path=tiny_model(kind), **more))


@pytest.mark.parametrize("kind", CHAT)
def test_answers_that_outgrow_the_cells_step_back_and_come_to_their_end(kind: str) -> None:
    """Four are let in by what is free then; each grows to 200 tokens, for which there are not enough cells."""
    desk = made(kind, 512, 4, cells=512)
    animals = ("owls", "bees", "ants", "emus")
    prompts = {number: f"{number} {word}, " * 12 for number, word in enumerate(animals, 1)}
    for number, prompt in prompts.items():
        ask(desk, number, prompt, 104)
    desk.finish()
    assert desk.engine.stats().preemptions > 0
    assert_greedy(desk, kind, prompts, 104)
    desk.close()
    assert_nothing_is_left(desk)


@pytest.mark.parametrize("kind", CHAT)
def test_a_prompt_that_takes_every_cell_has_them_all(kind: str) -> None:
    """What others left behind goes for it, and what it leaves goes for the next."""
    desk = made(kind, 1024, 2, cells=1024)
    ask_in_turn(desk, PROMPTS)
    long = {9: (STORY * 2)[:1000], 10: "W" + (STORY * 2)[1:1000]}
    for number, prompt in long.items():
        ask(desk, number, prompt, 24)
    desk.finish()
    assert_greedy(desk, kind, long, 24)
    assert cached(desk, 10) == 0
    desk.close()
    assert_nothing_is_left(desk)


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_as_many_cells_are_used_as_the_engine_counts(kind: str) -> None:
    """llama.cpp does not tell, but takes exactly as many tokens more as there are free cells."""
    from agent_daemon.worker.model import Batch

    desk = made(kind, 512, 4)
    ask_in_turn(desk, PROMPTS)
    stats = desk.engine.stats()
    assert stats.cells_used < sum(map(len, PROMPTS.values()))
    (number, *_) = (each for each in range(desk.model.sequences) if not _holds(desk, each))
    batch, free = Batch(desk.model.batch_limit), stats.cells - stats.cells_used
    for start in range(0, free, desk.model.batch_limit):
        batch.clear()
        batch.extend([97] * min(desk.model.batch_limit, free - start), start, number, False)
        assert batch.decode(desk.model) == 0
    batch.clear()
    batch.add(97, free, number, False)
    assert batch.decode(desk.model) == 1
    desk.model.forget(number)
    desk.close()
    assert_nothing_is_left(desk)


def _holds(desk: Desk, number: int) -> bool:
    return bool(desk.model.first_position(number) >= 0)


# -- windows ---------------------------------------------------------------------------------------------


def test_a_beginning_whose_window_has_slid_on_is_computed_again() -> None:
    """A sequence of 2400 tokens, by the end of which the sliding layers' 704 cells hold nothing of its beginning."""
    desk = made("sliding", 4096, 1)
    long = (STORY * 4)[:2400]
    ask(desk, 1, long, 20)
    desk.finish()
    first = max(desk.model.first_position(number) for number in range(desk.model.sequences))
    assert first > 1000
    lost, there = long[: first - 100] + "?", long[: first + WINDOW + 100] + "?"
    for number, prompt in ((2, there), (3, lost)):
        ask(desk, number, prompt)
        desk.finish()
        assert_greedy(desk, "sliding", {number: prompt})
    assert cached(desk, 2) == len(there) - 1
    assert cached(desk, 3) == 0
    desk.close()
    assert_nothing_is_left(desk)


def test_a_shared_beginning_may_fill_the_sliding_layers_while_others_have_room() -> None:
    """Cells that several sequences share are not given up when the window slides on. So the 1024 cells of the sliding
    layers run out while three quarters of the others are free."""
    desk = made("sliding", 1024, 4)
    begin = STORY + DOCUMENT[:200]
    prompts = {number: begin + question for number, question in QUESTIONS.items()}
    for number, prompt in prompts.items():
        ask(desk, number, prompt, 90)
    desk.finish()
    assert [cached(desk, number) for number in prompts] == [0, *[len(begin)] * 3]
    assert_greedy(desk, "sliding", prompts, 90)
    stats = desk.engine.stats()
    assert stats.evictions + stats.preemptions > 0
    assert stats.cells_used < stats.cells / 2
    desk.close()
    assert_nothing_is_left(desk)


# -- anything in any order -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CHAT)
@pytest.mark.parametrize("seed", range(2))
def test_a_mix_with_cancels_in_few_cells(kind: str, seed: int) -> None:
    """Forty requests of all lengths and with all kinds of beginnings, a quarter of them cancelled somewhere."""
    chance = random.Random(f"{kind} {seed}")
    desk = made(kind, 1024, 4, cells=1280)
    beginnings = (DOCUMENT, DOCUMENT[:100], STORY[:500], STORY, "")
    prompts: dict[int, str] = {}
    counts: dict[int, int] = {}
    cancelled: set[int] = set()
    for number in range(1, 41):
        earlier = chance.choice([*prompts.values(), ""])
        prompts[number] = chance.choice([*beginnings, earlier])[-600:] + f"{chance.randrange(8)} and "
        counts[number] = chance.randint(1, 40)
        ask(desk, number, prompts[number], counts[number])
        for _ in range(chance.randint(0, 12)):
            desk.engine.step()
        if chance.random() < 0.25:
            cancelled.add(chance.randint(1, number))
            desk.engine.cancel(max(cancelled))
    desk.finish()
    ends = {number: desk.of(number)[-1] for number in prompts}
    assert all(isinstance(done, Done) for done in ends.values())
    completed = [number for number, done in ends.items() if done.finish_reason == "length"]
    assert set(ends) - set(completed) <= cancelled
    assert len(completed) > 25
    for number in completed:
        assert_greedy(desk, kind, {number: prompts[number]}, counts[number])
    stats = desk.engine.stats()
    assert stats.cached_tokens > 0
    assert stats.cells_used == stats.cells_held
    desk.close()
    assert_nothing_is_left(desk)


# -- when llama.cpp cannot compute -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", CHAT)
def test_a_fault_is_that_of_one_request_and_the_others_do_not_notice(kind: str) -> None:
    """A token that no vocabulary has stands for whatever llama.cpp may refuse: it refuses the whole batch."""
    desk = made(kind, 512, 4)
    prompts = {number: f"{number} {word} " * 9 for number, word in enumerate(("owls", "bees", "ants"), 1)}
    for number, prompt in prompts.items():
        ask(desk, number, prompt)
    desk.engine._admit()
    faulty = next(sequence for sequence, item in desk.engine._running.items() if item.request.id == 2)
    faulty.tokens[-1] = 10**9
    desk.finish()
    done = desk.of(2)[-1]
    assert (done.finish_reason, done.completion_tokens) == ("error", 0)
    assert done.error == "llama.cpp could not compute it (code -1)"
    assert_greedy(desk, kind, {number: prompts[number] for number in (1, 3)})
    desk.close()
    assert_nothing_is_left(desk)


def test_when_nothing_can_be_computed_the_engine_says_so() -> None:
    from agent_daemon.worker.engine import EngineBroken

    desk = made("dense", 512, 4)
    for number in (1, 2):
        ask(desk, number, "the same fault " * number)
    desk.engine._admit()
    for sequence in desk.engine._running:
        sequence.tokens[-1] = 10**9
    with pytest.raises(EngineBroken, match="returned -1 for each of 2 sequences"):
        desk.finish()
    desk.close()
