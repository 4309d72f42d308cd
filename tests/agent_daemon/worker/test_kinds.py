"""Whatever an architecture keeps for a sequence, an answer that takes over what is there is the answer without."""

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from agent_daemon.contract.sequences import sequences
from agent_daemon.worker_messages import Done, Started, Text
from tests.agent_daemon.worker.conftest import load_model
from tests.agent_daemon.worker.test_engine import Desk
from tests.support.tiny_models import WINDOW, tiny_model

pytestmark = pytest.mark.engine

DIGESTS = {
    "dense": "5542ed524dcc31597f6b03d4281164829fdf31e731ea442e1ce730b34ddf125e",
    "sliding": "c02198428bda1a660f8e8a53ba3f13d6bf8f26898a0ac06a211bc23344d3961e",
    "recurrent": "bb503b3048732db72eb6ab0d18e26c0a897c7a635ca0be3773332894aae2254b",
    "hybrid": "bee2d8a01a17c47fc16517e7d06ef1b937f03c14cc59fbe1b37df6d4fcc0f3ee",
    "hybrid-sliding": "c856bc58518b6b6b7b60632c9083ac493f4a75b852243aff5a0da48cb3d38b1f",
    "templated": "605fa26feccfe4d9546ef5cd5785caae947c2f34d32c044b724aa8cdf6f6ebc3",
    "encoder": "def7e0d6d15acbd6d2f9e503abc137a64229163302cc583f6d5e9361c4d2bbc0",
    "decoder": "31f792c2c8842a576e32c9fc9355b0125921ec4229a0a4e60334eae4fca581fb",
}
CHAT = ("dense", "sliding", "recurrent", "hybrid", "hybrid-sliding")
WHOLE = ("recurrent", "hybrid", "hybrid-sliding")
"""Kinds of which only a whole sequence can be gone on from."""
DOCUMENT = "The quick brown fox jumps over the lazy dog. " * 7
STORY = "Once upon a time there lived a miller by the river, and " * 12
QUESTIONS = {
    1: "Who was it?",
    2: "Then what, my dear",
    3: "Are there more of them",
    4: "Ladders are for foxes",
}
"""They part at their first letter, so that what they share is DOCUMENT and nothing else."""
PROMPTS = {number: DOCUMENT + question for number, question in QUESTIONS.items()}
COUNT = 8
"""Tokens of each answer. All of these models speak bytes: a prompt has as many tokens as letters."""


def ask(desk: Desk, number: int, prompt: str, count: int = COUNT) -> None:
    desk.ask(number, prompt=prompt, max_tokens=count, logprobs=0)


def ask_in_turn(desk: Desk, prompts: dict[int, str]) -> None:
    for number, prompt in prompts.items():
        ask(desk, number, prompt)
        desk.finish()


def assert_greedy(desk: Desk, kind: str, prompts: dict[int, str], count: int = COUNT) -> None:
    """Asserts that each answer is, but for rounding, the uncached one at temperature 0."""
    from tests.support.plain_answer import plain

    for number, prompt in prompts.items():
        assert_judged(desk, number, plain(tiny_model(kind)), prompt, count)


def assert_judged(desk: Desk, number: int, judge: Any, prompt: str, count: int) -> None:
    """Asserts it token by token: that each is the likeliest one, and as likely as the engine said."""
    from tests.support.plain_answer import CLOSE

    texts = [event for event in desk.of(number) if isinstance(event, Text)]
    said = [each.logprob for event in texts for each in event.logprobs]
    assert len(said) == count
    behind, logprobs = judge.judge(prompt, desk.text(number))
    assert behind < CLOSE, f"answer {number} has a token that is {behind:.2f} behind"
    assert said == pytest.approx(logprobs, abs=CLOSE)


@cache
def _model(kind: str) -> Any:
    """Four answers at once over 4 x 1024 cells."""
    return load_model("chat", 1024, 4, path=tiny_model(kind))


@pytest.fixture(params=CHAT)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def desk(kind: str) -> Iterator[Desk]:
    made = Desk(_model(kind))
    yield made
    made.close()
    assert_nothing_is_left(made)


def assert_nothing_is_left(desk: Desk) -> None:
    stats = desk.engine.stats()
    assert (stats.cells_used, stats.cells_held) == (0, 0)
    assert (stats.sequences_running, stats.sequences_held, stats.waiting) == (0, 0, 0)
    assert desk.cells() == []


def cached(desk: Desk, number: int) -> int:
    (started,) = (event for event in desk.of(number) if isinstance(event, Started))
    return int(started.cached_tokens)


@pytest.mark.parametrize("name", DIGESTS)
def test_a_tiny_model_is_the_same_file_everywhere(name: str) -> None:
    assert hashlib.sha256(tiny_model(name).read_bytes()).hexdigest() == DIGESTS[name]


@pytest.mark.parametrize(
    ("name", "recurrent", "window"),
    [
        ("dense", False, 0),
        ("sliding", False, WINDOW),
        ("recurrent", True, 0),
        ("hybrid", True, 0),
        ("hybrid-sliding", True, WINDOW),
    ],
)
def test_a_kind_is_known_by_what_llama_cpp_says_of_it(name: str, recurrent: bool, window: int) -> None:
    model = _model(name)
    assert (model.recurrent, model.window, model.stateful) == (recurrent, window, recurrent or window > 0)
    assert model.sequences == sequences(4, "chat", stateful=model.stateful)


# -- where a beginning comes from ------------------------------------------------------------------------


def test_a_word_far_back_is_seen_in_the_answer(desk: Desk, kind: str) -> None:
    """Else the tests below could not tell a right sequence from a wrong one."""
    from tests.support.plain_answer import CLOSE, plain

    far = len(DOCUMENT) - (WINDOW // 2 if kind == "hybrid-sliding" else 150)
    changed = DOCUMENT[:far] + "mute" + DOCUMENT[far + 4 :] + QUESTIONS[1]
    ask_in_turn(desk, {1: PROMPTS[1]})
    logprobs = [plain(tiny_model(kind)).judge(prompt, desk.text(1))[1] for prompt in (PROMPTS[1], changed)]
    assert max(abs(one - other) for one, other in zip(*logprobs, strict=True)) > 2 * CLOSE


def test_from_a_finished_sequence(desk: Desk, kind: str) -> None:
    ask_in_turn(desk, PROMPTS)
    assert_greedy(desk, kind, PROMPTS)
    # A state is first kept where the second prompt was seen to part from the first.
    taken = [0, 0 if kind in WHOLE else len(DOCUMENT), len(DOCUMENT), len(DOCUMENT)]
    assert [cached(desk, number) for number in PROMPTS] == taken


def test_from_the_whole_of_the_last_turn(desk: Desk, kind: str) -> None:
    first = PROMPTS[1]
    ask_in_turn(desk, {1: first})
    second = first + desk.text(1) + " So."
    ask_in_turn(desk, {2: second})
    assert_greedy(desk, kind, {2: second})
    # The last token of an answer was given out and never computed.
    assert cached(desk, 2) == len(first) + COUNT - 1


def test_from_a_running_sequence(desk: Desk, kind: str) -> None:
    ask(desk, 1, PROMPTS[1], 40)
    while not desk.text(1):
        desk.engine.step()
    for number in (2, 3):
        ask(desk, number, PROMPTS[number])
    desk.finish()
    assert_greedy(desk, kind, {1: PROMPTS[1]}, 40)
    assert_greedy(desk, kind, {number: PROMPTS[number] for number in (2, 3)})
    assert [cached(desk, number) for number in (2, 3)] == [
        0 if kind in WHOLE else len(DOCUMENT),
        len(DOCUMENT),
    ]
    # All this while the first was still at it.
    assert [event.id for event in desk.said if isinstance(event, Done)][-1] == 1


def test_from_one_that_computes_it_for_all(desk: Desk, kind: str) -> None:
    for number, prompt in PROMPTS.items():
        ask(desk, number, prompt)
    desk.finish()
    assert_greedy(desk, kind, PROMPTS)
    assert [cached(desk, number) for number in PROMPTS] == [0, *[len(DOCUMENT)] * 3]
    computed = desk.engine.stats().prompt_tokens
    assert computed == len(DOCUMENT) + sum(map(len, QUESTIONS.values()))


def test_again_after_it_went(desk: Desk, kind: str) -> None:
    ask_in_turn(desk, PROMPTS)
    before = desk.engine.stats()
    assert before.sequences_held > 0
    for number in range(20, 20 + desk.model.sequences):
        other = f"{number} times, and then again: " * 16
        ask_in_turn(desk, {number: other})
    assert desk.engine.stats().evictions > before.evictions
    ask(desk, 100, PROMPTS[1])
    desk.finish()
    assert cached(desk, 100) == 0
    assert_greedy(desk, kind, {100: PROMPTS[1]})
