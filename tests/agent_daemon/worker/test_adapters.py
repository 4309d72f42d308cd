"""Requests of different adapters share one engine and nothing else: each answer is the one of its adapter alone."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.worker_messages import AdapterFile, Done, Text
from tests.agent_daemon.worker.conftest import load_model
from tests.agent_daemon.worker.test_engine import Desk
from tests.agent_daemon.worker.test_kinds import (
    COUNT,
    DOCUMENT,
    PROMPTS,
    assert_judged,
    assert_nothing_is_left,
    cached,
)
from tests.support.lora import write_lora
from tests.support.models import quickstart_model
from tests.support.tiny_models import tiny_model

pytestmark = pytest.mark.engine

NAMES = (None, "legal", "medical")
TURNS = [(number, name) for number in PROMPTS for name in NAMES]
"""Every prompt for every adapter and for none, as (number of the prompt, adapter)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, Path]:
    return {
        name: write_lora(folder / f"{name}.gguf", tiny_model("dense"), name) for name in ("legal", "medical")
    }


@pytest.fixture(scope="module")
def model(files: dict[str, Path]) -> Any:
    """Four answers at once, of either adapter or none."""
    adapters = tuple(AdapterFile(name=name, path=str(path)) for name, path in files.items())
    return load_model("chat", 1024, 4, path=tiny_model("dense"), adapters=adapters)


@pytest.fixture
def desk(model: Any) -> Iterator[Desk]:
    made = Desk(model)
    yield made
    made.close()
    assert_nothing_is_left(made)


@pytest.fixture(scope="module")
def solo(files: dict[str, Path]) -> dict[tuple[int, str | None], str]:
    """The answers of fresh engines that have one adapter each, or none."""
    answers = {}
    for name in NAMES:
        adapters = (AdapterFile(name=name, path=str(files[name])),) if name else ()
        fresh = load_model("chat", 1024, 4, path=tiny_model("dense"), adapters=adapters)
        for number, prompt in PROMPTS.items():
            desk = Desk(fresh)
            desk.ask(1, prompt=prompt, max_tokens=COUNT, adapter=name)
            desk.finish()
            desk.close()
            answers[number, name] = desk.text(1)
    return answers


def ask(desk: Desk, identity: int, turn: tuple[int, str | None], count: int = COUNT) -> None:
    number, adapter = turn
    desk.ask(identity, prompt=PROMPTS[number], adapter=adapter, max_tokens=count, logprobs=0)


def assert_greedy(
    desk: Desk, files: dict[str, Path], identity: int, turn: tuple[int, str | None], count: int = COUNT
) -> None:
    """Asserts that an answer is, but for rounding, the one of the plainest computation with that adapter."""
    from tests.support.plain_answer import plain

    number, adapter = turn
    judge = plain(tiny_model("dense"), files[adapter] if adapter else None)
    assert_judged(desk, identity, judge, PROMPTS[number], count)


def test_each_adapter_says_something_of_its_own(solo: dict[tuple[int, str | None], str]) -> None:
    for number in PROMPTS:
        assert len({solo[number, name] for name in NAMES}) == len(NAMES)


def test_one_after_the_other_each_answers_as_it_does_alone(
    desk: Desk, files: dict[str, Path], solo: dict[tuple[int, str | None], str]
) -> None:
    for identity, turn in enumerate(TURNS):
        ask(desk, identity, turn)
        desk.finish()
    for identity, turn in enumerate(TURNS):
        assert_greedy(desk, files, identity, turn)
    assert [desk.text(identity) for identity in range(len(TURNS))] == [solo[turn] for turn in TURNS]


def test_what_one_adapter_computed_is_never_taken_over_by_another(desk: Desk) -> None:
    for identity, turn in enumerate(TURNS):
        ask(desk, identity, turn)
        desk.finish()
    taken = {turn: cached(desk, identity) for identity, turn in enumerate(TURNS)}
    assert {taken[1, name] for name in NAMES} == {0}
    assert {taken[number, name] for number in (2, 3, 4) for name in NAMES} == {len(DOCUMENT)}


def test_all_at_once_each_answers_as_it_does_alone_and_none_waits_for_the_others(
    desk: Desk, files: dict[str, Path]
) -> None:
    turns = [*((1, name) for name in NAMES), (2, "legal")]
    count = 60
    for identity, turn in enumerate(turns):
        ask(desk, identity, turn, count)
    desk.finish()
    for identity, turn in enumerate(turns):
        assert_greedy(desk, files, identity, turn, count)
    order = [event.id for event in desk.said if isinstance(event, Text)]
    first = [order.index(identity) for identity in range(len(turns))]
    last = [len(order) - 1 - order[::-1].index(identity) for identity in range(len(turns))]
    # Before any has come to its end all have begun, and they come to it within a turn or two of one another.
    assert max(first) < min(last)
    assert min(last) > len(order) - 2 * len(turns) * 5
    # Nobody is passed over for longer than the turns of the other adapters last: four steps of one or two answers.
    for identity in range(len(turns)):
        places = [place for place, each in enumerate(order) if each == identity]
        assert max(later - earlier for earlier, later in pairwise(places)) <= 4 * 3 + 1


def test_many_of_one_adapter_do_not_starve_one_of_another(desk: Desk, files: dict[str, Path]) -> None:
    """Twelve long answers of one adapter arrive first; the other's is short."""
    for identity in range(1, 13):
        desk.ask(identity, prompt=PROMPTS[identity % 4 + 1], adapter="legal", max_tokens=60, client="busy")
    ask_number = 99
    desk.ask(ask_number, prompt=PROMPTS[1], adapter="medical", max_tokens=COUNT, client="patient", logprobs=0)
    desk.finish()
    assert_greedy(desk, files, ask_number, (1, "medical"))
    ended = [event.id for event in desk.said if isinstance(event, Done)]
    assert ended.index(ask_number) <= 4


def test_a_scale_of_nothing_is_the_model_itself(
    files: dict[str, Path], solo: dict[tuple[int, str | None], str]
) -> None:
    adapters = (AdapterFile(name="mute", path=str(files["legal"]), scale=0.0),)
    desk = Desk(load_model("chat", 1024, 4, path=tiny_model("dense"), adapters=adapters))
    desk.ask(1, prompt=PROMPTS[1], adapter="mute", max_tokens=COUNT)
    desk.finish()
    assert desk.text(1) == solo[1, None]


def test_the_real_model_answers_by_its_adapter(folder: Path) -> None:
    from tests.support.plain_answer import CLOSE, plain

    file = write_lora(folder / "real.gguf", quickstart_model(), "legal", 0.3)
    desk = Desk(load_model("chat", 512, 2, adapters=(AdapterFile(name="legal", path=str(file)),)))
    prompt = "The capital of France is"
    for number, adapter in ((1, None), (2, "legal")):
        desk.ask(number, prompt=prompt, adapter=adapter, max_tokens=10)
    desk.finish()
    assert desk.text(1) != desk.text(2)
    for number, path in ((1, None), (2, file)):
        assert plain(quickstart_model(), path).judge(prompt, desk.text(number))[0] < CLOSE
    desk.close()


@pytest.mark.parametrize(
    ("base", "reason"),
    [("wide", "wrong base model"), ("recurrent", "arch mismatch"), (None, "expect general.type")],
)
def test_an_adapter_that_does_not_belong_to_the_model_is_refused_when_it_is_loaded(
    folder: Path, base: str | None, reason: str
) -> None:
    from agent_daemon.worker.model import LoadError

    path = tiny_model("dense")
    if base is not None:
        of = quickstart_model() if base == "wide" else tiny_model(base)
        path = write_lora(folder / f"{base}.gguf", of, "other", targets=("attn_q", "ssm_in"))
    with pytest.raises(LoadError, match=f"the adapter stray was refused: .*{reason}"):
        load_model(
            "chat", 256, 1, path=tiny_model("dense"), adapters=(AdapterFile(name="stray", path=str(path)),)
        )
