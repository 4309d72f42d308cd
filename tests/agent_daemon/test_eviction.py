"""Who leaves memory for another model: by cases in tests/cases/eviction, and what holds for every choice."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.eviction import Tenant, Verdict, choose, idle_until
from agent_daemon.room import FreeMemory, Need

CASES = sorted((Path(__file__).parents[1] / "cases" / "eviction").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    tenants = [Tenant(**{**each, "frees": Need(**each["frees"])}) for each in case["workers"]]
    choice = choose(Need(**case["wanted"]), FreeMemory(**case["free"]), tenants)
    assert {"verdict": choice.verdict, "keys": list(choice.keys)} == case["expected"], case["why"]
    # The order in which the workers happen to be listed says nothing.
    assert choose(Need(**case["wanted"]), FreeMemory(**case["free"]), tenants[::-1]) == choice


def test_there_are_cases() -> None:
    assert len(CASES) == 19


def some_tenants(most: int) -> st.SearchStrategy[list[Tenant]]:
    one = st.builds(
        Tenant,
        key=st.text("abcdef", min_size=1, max_size=4),
        frees=st.builds(Need, st.integers(0, 60), st.dictionaries(st.just("GPU-0"), st.integers(0, 60))),
        used=st.integers(0, 50).map(float),
        busy=st.booleans(),
        pinned=st.booleans(),
    )
    return st.lists(one, max_size=most, unique_by=lambda each: each.key)


@given(st.integers(0, 150), st.integers(0, 150), st.integers(-20, 60), st.integers(-20, 60), some_tenants(17))
def test_a_choice_frees_enough_in_both_memories_takes_nobody_in_vain_and_spares_the_busy_and_the_pinned(
    ram: int, vram: int, free_ram: int, free_vram: int, tenants: list[Tenant]
) -> None:
    choice = choose(Need(ram, {"GPU-0": vram}), FreeMemory(free_ram, {"GPU-0": free_vram}), tenants)
    known = {each.key: each for each in tenants}
    chosen = [known[key] for key in choice.keys]

    def fits(leaving: list[Tenant]) -> bool:
        freed = sum((each.frees for each in leaving), Need())
        return (ram == 0 or ram <= free_ram + freed.ram) and (
            vram == 0 or vram <= free_vram + freed.vram.get("GPU-0", 0)
        )

    assert not any(each.pinned for each in chosen)
    assert fits([]) is (choice.verdict is Verdict.FITS)
    idle = [each for each in tenants if not each.busy and not each.pinned]
    if choice.verdict is Verdict.EVICT:
        assert not any(each.busy for each in chosen)
        assert fits(chosen)
        assert not any(fits([each for each in chosen if each is not spared]) for spared in chosen)
    if choice.verdict is Verdict.WAIT:
        assert chosen
        assert all(each.busy for each in chosen)
        assert not fits(idle)
        assert fits(idle + chosen)
    if choice.verdict is Verdict.NEVER:
        assert not fits([each for each in tenants if not each.pinned])


@pytest.mark.parametrize(
    ("tenant", "until"),
    [
        (Tenant("a", Need(), used=100.0, idle_ttl=30.0), 130.0),
        (Tenant("a", Need(), used=100.0), None),
        (Tenant("a", Need(), used=100.0, idle_ttl=30.0, busy=True), None),
        (Tenant("a", Need(), used=100.0, idle_ttl=30.0, pinned=True), None),
    ],
)
def test_the_time_of_an_idle_worker_runs_from_its_last_request(tenant: Tenant, until: float | None) -> None:
    assert idle_until(tenant) == until
