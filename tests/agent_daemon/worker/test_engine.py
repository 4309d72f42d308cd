"""The engine with a real model, one step at a time: what it says, in which order, and that nothing is left."""

from collections.abc import Iterator
from typing import Any

import pytest

from agent_daemon.worker_messages import Choosing, Done, Event, Generate, Refused, Started, Text

pytestmark = pytest.mark.engine

GREEDY = Choosing(temperature=0)
COUNT = "1 2 3 4 5 6 7 8 9 10 11 12 13"


class Desk:
    """An engine and everything that it has said."""

    def __init__(self, model: Any) -> None:
        from agent_daemon.worker.engine import Engine

        self.model = model
        self.said: list[Event] = []
        self.engine = Engine(model, self.said.append)

    def ask(self, number: int, **what: Any) -> None:
        what.setdefault("sampling", GREEDY)
        self.engine.submit(Generate(id=number, **what))

    def finish(self) -> None:
        while self.engine.busy:
            self.engine.step()

    def of(self, number: int) -> list[Any]:
        return [event for event in self.said if getattr(event, "id", None) == number]

    def text(self, number: int) -> str:
        return "".join(event.text for event in self.of(number) if isinstance(event, Text))

    def cells(self) -> list[int]:
        """The highest position that each sequence holds, the empty ones (-1) left out."""
        import llama_cpp

        memory = self.model.memory
        found = (llama_cpp.llama_memory_seq_pos_max(memory, each) for each in range(self.model.sequences))
        return [position for position in found if position >= 0]

    def close(self) -> None:
        """Leaves the model as an engine that begins wants it: empty."""
        for number in [item.request.id for item in (*self.engine._running.values(), *self.engine._waiting)]:
            self.engine.cancel(number)
        self.engine.forget_held()


@pytest.fixture
def desk(chat_model: Any) -> Iterator[Desk]:
    made = Desk(chat_model)
    yield made
    made.close()


@pytest.fixture
def small_desk(small_model: Any) -> Iterator[Desk]:
    made = Desk(small_model)
    yield made
    made.close()


def test_one_answer_from_start_to_done(desk: Desk) -> None:
    assert not desk.engine.busy
    desk.ask(1, prompt=COUNT, max_tokens=8)
    assert desk.engine.busy
    desk.finish()
    started, *texts, done = desk.of(1)
    tokens = len(desk.model.tokenize(COUNT))
    assert started == Started(id=1, prompt_tokens=tokens)
    assert [event.tokens for event in texts] == list(range(1, 9))
    assert desk.text(1).startswith(" 14 15")
    assert done == Done(
        id=1,
        finish_reason="length",
        prompt_tokens=tokens,
        completion_tokens=8,
        seconds=done.seconds,
        queued=done.queued,
        first=done.first,
    )
    assert done.seconds > 0
    assert done.first is not None
    assert 0 <= done.queued < done.first
    # The eighth token was given out and never computed.
    assert desk.cells() == [tokens + 7 - 1]
    stats = desk.engine.stats()
    assert (stats.cells_used, stats.cells_held, stats.sequences_held) == (tokens + 7, tokens + 7, 1)
    assert (stats.sequences_running, stats.waiting) == (0, 0)
    desk.engine.forget_held()
    assert desk.cells() == []
    assert desk.engine.stats().cells_used == 0


def test_the_greedy_answer_is_the_one_of_the_librarys_own_interface(desk: Desk) -> None:
    import llama_cpp

    from tests.support.models import quickstart_model

    question: list[Any] = [{"role": "user", "content": "Name three colours."}]
    desk.ask(1, messages=tuple(question), max_tokens=10)
    desk.finish()
    reference = llama_cpp.Llama(
        str(quickstart_model()), n_ctx=1024, n_threads=1, flash_attn=True, verbose=False
    )
    try:
        answer: Any = reference.create_chat_completion(question, temperature=0, max_tokens=10)
    finally:
        reference.close()
    assert desk.text(1) == answer["choices"][0]["message"]["content"]
    assert desk.of(1)[0].prompt_tokens == answer["usage"]["prompt_tokens"]


def test_requests_run_together_and_say_what_they_say_alone(desk: Desk) -> None:
    prompts = {1: COUNT, 2: "Once upon a time there was"}
    for number, prompt in prompts.items():
        desk.ask(number, prompt=prompt, max_tokens=6)
    desk.finish()
    together = {number: desk.text(number) for number in prompts}
    order = [event.id for event in desk.said if isinstance(event, Text)]
    assert order == [1, 2] * 6
    for number, prompt in prompts.items():
        desk.ask(number + 10, prompt=prompt, max_tokens=6)
        desk.finish()
        assert desk.text(number + 10) == together[number]


def test_a_third_request_waits_for_a_free_sequence(desk: Desk) -> None:
    for number, tokens in ((1, 2), (2, 6), (3, 2)):
        desk.ask(number, prompt=COUNT, max_tokens=tokens)
    desk.finish()
    order = [(type(event).__name__, event.id) for event in desk.said if isinstance(event, Started | Done)]
    assert order == [("Started", 1), ("Started", 2), ("Done", 1), ("Started", 3), ("Done", 3), ("Done", 2)]


def test_a_long_prompt_is_cut_so_that_running_answers_go_on_between_the_pieces(desk: Desk) -> None:
    desk.ask(1, prompt=COUNT, max_tokens=12)
    desk.engine.step()
    assert [type(event) for event in desk.of(1)] == [Started, Text]
    long = "word " * 530
    tokens = len(desk.model.tokenize(long))
    assert 511 < tokens < 1022
    desk.ask(2, prompt=long, max_tokens=2)
    # Each step of the long prompt takes at most what the engine expects to do in half a second.
    while not any(isinstance(event, Text) for event in desk.of(2)):
        said = len(desk.of(1))
        desk.engine.step()
        assert len(desk.of(1)) in (said + 1, 14)
    begins = desk.said.index(desk.of(2)[0])
    answers = desk.said.index(next(event for event in desk.of(2) if isinstance(event, Text)))
    between = [event for event in desk.said[begins + 1 : answers] if event.id == 1]
    assert len(between) >= 2


# -- ends ------------------------------------------------------------------------------------------------


def test_a_stop_string_ends_the_answer_before_itself(desk: Desk) -> None:
    desk.ask(1, prompt=COUNT, max_tokens=30, stop=(" 17", "nothing"))
    desk.finish()
    done = desk.of(1)[-1]
    assert desk.text(1) == " 14 15 16"
    assert done.finish_reason == "stop"
    assert done.completion_tokens < 15


def test_text_held_back_for_a_stop_string_that_did_not_come_is_given_out_at_the_end(desk: Desk) -> None:
    desk.ask(1, prompt=COUNT, max_tokens=5)
    desk.ask(
        2, prompt=COUNT, max_tokens=5, stop=(desk.model.piece(desk.model.tokenize(" 9")[0]).decode() + "?",)
    )
    desk.finish()
    assert desk.text(2) == desk.text(1)
    assert desk.of(2)[-1].finish_reason == "length"


def test_an_answer_ends_where_the_model_says_so(desk: Desk) -> None:
    # After the end of its own turn this model opens no other: the token itself is no text.
    desk.ask(1, messages=({"role": "user", "content": "Say only: yes"},), max_tokens=200)
    desk.finish()
    done = desk.of(1)[-1]
    assert done.finish_reason == "stop"
    assert done.completion_tokens < 200
    assert "<|im_end|>" not in desk.text(1)


def test_the_context_caps_an_answer_that_names_no_limit_or_a_larger_one(small_desk: Desk) -> None:
    desk = small_desk
    prompt = COUNT + " 14 15 16 17 18 19 20" * 2
    tokens = len(desk.model.tokenize(prompt))
    desk.ask(1, prompt=prompt)
    desk.ask(2, prompt=prompt, max_tokens=5000)
    desk.finish()
    for number in (1, 2):
        done = desk.of(number)[-1]
        assert (done.finish_reason, done.completion_tokens) == ("length", 100 - tokens)


def test_a_prompt_may_leave_room_for_one_token(small_desk: Desk) -> None:
    desk = small_desk
    for number, tokens in ((1, 99), (2, 100)):
        prompt = "a" + " a" * (tokens - 1)
        assert len(desk.model.tokenize(prompt)) == tokens
        desk.ask(number, prompt=prompt)
    desk.finish()
    assert desk.of(1)[-1].completion_tokens == 1
    assert desk.of(2)[-1].code == "context_length_exceeded"


def test_limits_of_the_request_come_before_those_of_the_model(desk: Desk) -> None:
    capped = Choosing(temperature=0, max_tokens=3)
    desk.ask(1, prompt=COUNT, sampling=capped)
    desk.ask(2, prompt=COUNT, sampling=capped, max_tokens=4)
    desk.finish()
    assert [desk.of(number)[-1].completion_tokens for number in (1, 2)] == [3, 4]


# -- cancelling ------------------------------------------------------------------------------------------


def test_a_cancelled_request_ends_at_once_and_frees_its_sequence(desk: Desk) -> None:
    desk.ask(1, prompt=COUNT, max_tokens=500)
    desk.engine.step()
    desk.engine.step()
    desk.engine.cancel(1)
    done = desk.of(1)[-1]
    assert (done.finish_reason, done.completion_tokens) == ("cancelled", 2)
    assert (desk.engine.busy, desk.cells()) == (False, [])


def test_a_request_may_be_cancelled_in_the_middle_of_its_prompt(desk: Desk) -> None:
    desk.ask(1, prompt="word " * 530)
    desk.engine.step()
    assert [type(event) for event in desk.of(1)] == [Started]
    desk.engine.cancel(1)
    assert desk.of(1)[-1].finish_reason == "cancelled"
    assert desk.cells() == []
    desk.ask(2, prompt=COUNT, max_tokens=2)
    desk.finish()
    assert desk.text(2) == " 1"


def test_a_waiting_request_is_cancelled_and_the_others_go_on(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.ask(number, prompt=COUNT, max_tokens=3)
    desk.engine.step()
    desk.engine.cancel(3)
    desk.engine.cancel(99)
    desk.finish()
    assert [event.finish_reason for event in desk.said if isinstance(event, Done)] == [
        "cancelled",
        "length",
        "length",
    ]
    assert desk.of(3) == [
        Done(id=3, finish_reason="cancelled", prompt_tokens=0, completion_tokens=0, seconds=0)
    ]


# -- refusing --------------------------------------------------------------------------------------------


def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers(desk: Desk) -> None:
    desk.ask(1, prompt="word " * 1100)
    desk.ask(2, prompt=COUNT, max_tokens=1)
    desk.finish()
    (refused,) = desk.of(1)
    assert (type(refused), refused.code) == (Refused, "context_length_exceeded")
    assert f"the prompt has {len(desk.model.tokenize('word ' * 1100))} tokens" in refused.message
    assert "a context of 1024 tokens" in refused.message
    assert desk.of(2)[-1].finish_reason == "length"


def test_a_prompt_of_megabytes_is_refused_without_counting_every_token(desk: Desk) -> None:
    text = " " * 16_000_000
    desk.ask(1, prompt=text)
    desk.finish()
    (refused,) = desk.of(1)
    assert refused.code == "context_length_exceeded"
    least = int(refused.message.split("at least ")[1].split()[0])
    assert 1024 < least <= 16_000_000 // 16
    assert "a context of 1024 tokens" in refused.message


def test_the_bound_never_refuses_what_would_have_fitted(desk: Desk) -> None:
    longest = " " * desk.model.longest_piece
    assert len(desk.model.tokenize(longest)) >= 1
    desk.ask(1, prompt=longest * 20, max_tokens=1)
    desk.finish()
    assert desk.of(1)[-1].finish_reason == "length"


def test_an_empty_prompt_is_refused(desk: Desk) -> None:
    desk.ask(1, prompt="")
    desk.finish()
    assert [(event.code, event.message) for event in desk.of(1)] == [
        ("invalid_prompt", "the prompt has no tokens")
    ]


def test_messages_that_the_template_cannot_render_are_refused(desk: Desk) -> None:
    desk.ask(1, messages=({"role": "user", "content": {"not": "text"}},))
    desk.finish()
    assert [event.code for event in desk.of(1)] == ["invalid_prompt"]
    assert not desk.engine.busy
