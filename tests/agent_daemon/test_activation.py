"""The transition table by cases in tests/cases/transitions, what holds for all of it, and the choice of a
strategy."""

import json
from pathlib import Path

import pytest

from agent_daemon.activation import (
    MIB,
    TABLE,
    Action,
    Happening,
    choose_strategy,
    memory_bound,
    needs,
    on_demand,
    resident,
    transition,
)
from agent_daemon.contract.release import (
    Artifact,
    BlobRef,
    DeviceRelease,
    Placement,
    Predicted,
    Residency,
    ServedModel,
    Strategy,
)
from agent_daemon.contract.wire import TERMINAL_STATES, ActivationState
from agent_daemon.room import FreeMemory, Need

CASES = sorted((Path(__file__).parents[1] / "cases" / "transitions").glob("*.json"))
S = ActivationState


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    state = S(case["start"])
    for step in case["steps"]:
        follows = transition(state, Happening(step["happens"]))
        assert (follows.state, follows.action) == (step["state"], step["action"]), step
        state = follows.state


def test_there_are_cases() -> None:
    assert len(CASES) == 13


@pytest.mark.parametrize("state", S)
def test_every_state_survives_a_restart_and_a_second_one_changes_nothing(state: ActivationState) -> None:
    once = transition(state, Happening.RESTARTED)
    assert transition(once.state, Happening.RESTARTED) == once


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_nothing_but_a_restart_happens_after_the_end_and_it_leads_nowhere_else(
    state: ActivationState,
) -> None:
    assert [what for (where, what) in TABLE if where is state] == [Happening.RESTARTED]
    assert transition(state, Happening.RESTARTED).state is state


def test_only_a_probe_that_held_commits() -> None:
    ways = {(where, what) for (where, what), follows in TABLE.items() if follows.state is S.COMMITTED}
    assert ways == {(S.PROBING, Happening.PROBE_HELD), (S.COMMITTED, Happening.RESTARTED)}


def test_nothing_is_loaded_before_it_was_judged() -> None:
    ways = {(where, what) for (where, what), follows in TABLE.items() if follows.action is Action.LOAD}
    assert ways == {(S.STAGED, Happening.JUDGED)}
    refused = transition(S.STAGED, Happening.REFUSED)
    assert refused == transition(S.STAGED, Happening.RESTARTED)


def test_what_was_measured_counts_for_what_was_predicted() -> None:
    a = model("a", 60)
    sizes = {a.engine_key(): Need(70)}
    assert choose_strategy(new(a), NONE_RUN, FreeMemory(69, {}), sizes) is Strategy.REPLACE
    assert choose_strategy(new(a), NONE_RUN, FreeMemory(70, {}), sizes) is Strategy.HANDOVER
    assert needs(new(a), NONE_RUN, sizes) == Need(70)
    assert needs(new(a), frozenset(sizes), sizes) == Need(0)


def test_every_state_can_end_and_no_action_stands_outside_the_table() -> None:
    ends = set(TERMINAL_STATES)
    for _ in S:
        ends |= {where for (where, _), follows in TABLE.items() if follows.state in ends}
    assert ends == set(S)
    assert {follows.action for follows in TABLE.values()} == set(Action)


def test_a_pair_that_cannot_happen_is_a_bug_and_says_which() -> None:
    with pytest.raises(ValueError, match="probe_held cannot happen to an operation that is staged"):
        transition(S.STAGED, Happening.PROBE_HELD)
    with pytest.raises(ValueError, match="failed cannot happen to an operation that is committed"):
        transition(S.COMMITTED, Happening.FAILED)


# -- strategy --------------------------------------------------------------------------------------------


def model(
    letter: str, total: int, *, gpu: str | None = None, host: int = 0, name: str = "m", **residency: bool
) -> ServedModel:
    digest = "sha256:" + letter * 64
    placement = Placement(
        memory="vram" if gpu else "ram",
        gpu_uuid=gpu,
        gpu_layers=31 if gpu else 0,
        layers=31,
        context=512,
        parallel=1,
        kv_type="f16",
        predicted=Predicted(weights=total, kv_cache=0, compute=0, total=total, host=host),
    )
    file = BlobRef(digest=digest, size=1, name="m.gguf")
    return ServedModel(
        name=name,
        artifact=Artifact(ref="x", digest=digest, files=(file,)),
        placement=placement,
        residency=Residency(**residency),
    )


def new(*models: ServedModel, strategy: Strategy = Strategy.AUTO) -> DeviceRelease:
    return DeviceRelease(number=2, manifest="m", models=models, strategy=strategy)


NONE_RUN: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("free", "expected"),
    [(100, Strategy.HANDOVER), (99, Strategy.REPLACE), (0, Strategy.REPLACE), (None, Strategy.REPLACE)],
)
def test_both_releases_live_side_by_side_exactly_where_the_new_one_fits_beside(
    free: int | None, expected: Strategy
) -> None:
    assert choose_strategy(new(model("a", 100)), NONE_RUN, FreeMemory(free, {})) is expected


def test_models_add_up_and_weights_that_are_shared_or_run_already_count_once() -> None:
    a, b = model("a", 60, name="a"), model("b", 50, name="b")
    assert choose_strategy(new(a, b), NONE_RUN, FreeMemory(109, {})) is Strategy.REPLACE
    assert choose_strategy(new(a, b), NONE_RUN, FreeMemory(110, {})) is Strategy.HANDOVER
    assert choose_strategy(new(a, b), frozenset({a.engine_key()}), FreeMemory(50, {})) is Strategy.HANDOVER
    twin = model("a", 60, name="twin")
    assert choose_strategy(new(a, twin), NONE_RUN, FreeMemory(60, {})) is Strategy.HANDOVER


def test_each_gpu_has_to_hold_its_own_and_the_rest_lies_in_ram() -> None:
    wanted = new(model("a", 100, gpu="GPU-0", host=10), model("b", 50, gpu="GPU-1", host=5, name="b"))
    enough = FreeMemory(15, {"GPU-0": 100, "GPU-1": 50})
    assert choose_strategy(wanted, NONE_RUN, enough) is Strategy.HANDOVER
    for short in (
        FreeMemory(14, {"GPU-0": 100, "GPU-1": 50}),
        FreeMemory(15, {"GPU-0": 99, "GPU-1": 1000}),
        FreeMemory(15, {"GPU-0": 100, "GPU-1": None}),
        FreeMemory(15, {"GPU-0": 100}),
    ):
        assert choose_strategy(wanted, NONE_RUN, short) is Strategy.REPLACE


def test_of_what_is_loaded_on_demand_only_the_largest_needs_room() -> None:
    stays = model("a", 100, name="a", pinned=True)
    b, c = model("b", 30, name="b", on_demand=True), model("c", 50, name="c", on_demand=True)
    wanted = new(stays, b, c)
    assert [each.name for each in resident(wanted)] == ["a"]
    assert [each.name for each in on_demand(wanted)] == ["b", "c"]
    assert choose_strategy(wanted, NONE_RUN, FreeMemory(149, {})) is Strategy.REPLACE
    assert choose_strategy(wanted, NONE_RUN, FreeMemory(150, {})) is Strategy.HANDOVER
    # Those that are in memory already make room for one another.
    running = frozenset({stays.engine_key(), c.engine_key()})
    assert choose_strategy(wanted, running, FreeMemory(0, {})) is Strategy.HANDOVER
    running = frozenset({stays.engine_key(), b.engine_key()})
    assert choose_strategy(wanted, running, FreeMemory(19, {})) is Strategy.REPLACE
    assert choose_strategy(wanted, running, FreeMemory(20, {})) is Strategy.HANDOVER
    # In each memory it may be another one.
    wanted = new(
        model("b", 30, gpu="GPU-0", host=9, on_demand=True), model("c", 50, name="c", on_demand=True)
    )
    assert choose_strategy(wanted, NONE_RUN, FreeMemory(50, {"GPU-0": 30})) is Strategy.HANDOVER
    assert choose_strategy(wanted, NONE_RUN, FreeMemory(50, {"GPU-0": 29})) is Strategy.REPLACE


def test_a_worker_that_is_shared_stays_if_one_of_its_names_does() -> None:
    a, twin = model("a", 60, name="a", on_demand=True), model("a", 60, name="twin")
    assert [each.name for each in resident(new(a, twin))] == ["a", "twin"]
    assert on_demand(new(a, twin)) == ()
    assert choose_strategy(new(a, twin), NONE_RUN, FreeMemory(60, {})) is Strategy.HANDOVER


@pytest.mark.parametrize("named", [Strategy.HANDOVER, Strategy.REPLACE])
def test_a_release_that_names_its_strategy_gets_it(named: Strategy) -> None:
    for free in (0, 1000):
        assert choose_strategy(new(model("a", 100), strategy=named), NONE_RUN, FreeMemory(free, {})) is named


def test_the_margin_of_a_small_model_is_256_mib_and_of_a_large_one_its_part() -> None:
    assert memory_bound(100 * MIB, 0.25) == 356 * MIB
    assert memory_bound(8192 * MIB, 0.25) == 10240 * MIB
    assert memory_bound(1024 * MIB, 0) == 1280 * MIB
