"""What may be deleted of a store: cases as JSON in tests/cases/pruning, and what holds for any history."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.pruning import Account, Known, kept, surplus

CASES = sorted((Path(__file__).parent.parent / "cases" / "pruning").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    account = Account(
        releases={
            name: Known(told["manifest"], frozenset(told["blobs"])) for name, told in case["releases"].items()
        },
        committed=tuple(case.get("committed", [])),
        active=case.get("active"),
        staged=frozenset(case.get("staged", [])),
        barred=frozenset(case.get("barred", [])),
    )
    gone = surplus(
        account,
        case["blobs"],
        case.get("partials", {}),
        needed=frozenset(case.get("needed", [])),
        at_least=case.get("at_least"),
    )
    assert sorted(kept(account)) == case["kept"]
    assert {
        "blobs": list(gone.blobs),
        "partials": list(gone.partials),
        "releases": list(gone.releases),
        "bytes": gone.bytes,
    } == case["gone"]


BLOBS = [f"blob{number}" for number in range(8)]


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    count = draw(st.integers(0, 7))
    names = [f"r{number}" for number in range(count)]
    releases = {
        name: Known(
            draw(st.sampled_from(["a", "b", "c"])), draw(st.frozensets(st.sampled_from(BLOBS), min_size=1))
        )
        for name in names
    }
    history = tuple(draw(st.lists(st.sampled_from(names), max_size=12))) if names else ()
    some = st.frozensets(st.sampled_from(names)) if names else st.just(frozenset())
    return Account(releases, history, history[-1] if history else None, draw(some), draw(some))


sizes = st.dictionaries(st.sampled_from(BLOBS), st.integers(1, 1000))
needs = st.frozensets(st.sampled_from(BLOBS))


@given(accounts(), sizes, sizes, needs, st.none() | st.integers(0, 4000))
def test_never_a_blob_of_a_release_that_stays(
    account: Account,
    blobs: dict[str, int],
    partials: dict[str, int],
    needed: frozenset[str],
    at_least: int | None,
) -> None:
    gone = surplus(account, blobs, partials, needed=needed, at_least=at_least)
    stays = needed.union(*(account.releases[name].blobs for name in kept(account)))
    assert not stays & (gone.blobs.keys() | gone.partials.keys())
    assert gone.blobs.items() <= blobs.items()
    assert gone.partials.items() <= partials.items()
    left = blobs.keys() - gone.blobs.keys()
    assert not set(gone.releases) & kept(account)
    assert all(not account.releases[name].blobs <= left for name in gone.releases)
    held = [name for name, known in account.releases.items() if known.blobs <= left]
    assert not set(held) & set(gone.releases)


@given(accounts())
def test_each_group_keeps_its_own_way_back(account: Account) -> None:
    """What another group did changes nothing of what a group keeps."""
    stays = kept(account)
    for group in {known.manifest for known in account.releases.values()}:
        own = {name: known for name, known in account.releases.items() if known.manifest == group}
        alone = Account(
            own,
            tuple(name for name in account.committed if name in own),
            account.active if account.active in own else None,
            account.staged & own.keys(),
            account.barred,
        )
        assert stays & own.keys() == kept(alone)
        good = {name for name in alone.committed if name not in account.barred or name == alone.active}
        assert len(stays & good) >= min(len(good), 2)
    if account.active:
        assert account.active in stays
    assert account.staged <= stays


@given(accounts(), sizes, sizes, st.integers(1, 4000))
def test_no_more_goes_than_is_needed(
    account: Account, blobs: dict[str, int], partials: dict[str, int], at_least: int
) -> None:
    everything = surplus(account, blobs, partials)
    gone = surplus(account, blobs, partials, at_least=at_least)
    assert gone.bytes >= min(at_least, everything.bytes)
    assert gone.blobs.items() <= everything.blobs.items()
    # Without the last of them it would not have done.
    for last in [*list(gone.blobs.values())[-1:], *list(gone.partials.values())[-1:]]:
        if gone.bytes - last < at_least:
            break
    else:
        assert not gone.blobs
        assert not gone.partials
