"""Which devices go together, and in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.rollouts.policy import Amount, Policy
from edgectl.rollouts.waves import natural, parts


def made(names: dict[str, str | None], policy: Policy) -> list[list[str]]:
    """Names by wave; each device has the label `ring` or not."""
    found = parts([(name, {"ring": ring} if ring else {}) for name, ring in names.items()], policy)
    waves: list[list[str]] = [[] for _ in range(max((part.wave for part in found), default=-1) + 1)]
    for part in found:
        waves[part.wave].append(part.device)
    return waves


PLAIN = dict.fromkeys("abcdefg")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(), ["abcdefg"]),
        (Policy(max_unavailable=Amount(count=3)), ["abc", "def", "g"]),
        (Policy(canary=Amount(count=1), max_unavailable=Amount(count=3)), ["a", "bcd", "efg"]),
        # 1 % of seven devices is none, and a rollout has to begin somewhere
        (Policy(canary=Amount(percent=1), max_unavailable=Amount(percent=1)), [*"abcdefg"]),
        (Policy(max_unavailable=Amount(percent=50)), ["abc", "def", "g"]),
        (Policy(canary=Amount(count=99)), ["abcdefg"]),
        (Policy(canary=Amount(percent=100)), ["abcdefg"]),
    ],
)
def test_the_canary_goes_first_and_then_batches(policy: Policy, expected: list[str]) -> None:
    assert ["".join(wave) for wave in made(PLAIN, policy)] == expected


def test_waves_follow_the_label_in_natural_order_and_hold_one_ring_each() -> None:
    rings = {"a": None, "b": "ring10", "c": "ring2", "d": "ring2", "e": "ring1", "f": "ring2", "g": None}
    policy = Policy(max_unavailable=Amount(count=2), order_by=("ring",))
    assert made(rings, policy) == [["e"], ["c", "d"], ["f"], ["b"], ["a", "g"]]
    first = Policy(canary=Amount(count=2), max_unavailable=Amount(count=2), order_by=("ring",))
    assert made(rings, first) == [["e", "c"], ["d", "f"], ["b"], ["a", "g"]]


def test_further_labels_and_names_order_without_dividing() -> None:
    devices = [
        ("desk-10", {"ring": "1", "site": "b"}),
        ("desk-9", {"ring": "1", "site": "b"}),
        ("desk-3", {"ring": "1", "site": "a"}),
        ("desk-4", {"ring": "1"}),
    ]
    by_both = parts(devices, Policy(order_by=("ring", "site", "name")))
    assert [(part.device, part.wave) for part in by_both] == [
        ("desk-3", 0),
        ("desk-9", 0),
        ("desk-10", 0),
        ("desk-4", 0),
    ]
    by_name = parts(devices, Policy(max_unavailable=Amount(count=3), order_by=("name",)))
    assert [(part.device, part.wave) for part in by_name] == [
        ("desk-3", 0),
        ("desk-4", 0),
        ("desk-9", 0),
        ("desk-10", 1),
    ]


def test_no_devices_make_no_waves() -> None:
    assert parts([], Policy(canary=Amount(percent=5), max_unavailable=Amount(percent=5))) == ()


@pytest.mark.parametrize(
    "texts",
    [
        ["ring1", "ring2", "ring10"],
        ["2", "10", "a", "a1", "a1b", "a2", "b"],
        ["1.9.2", "1.10.0", "2.0"],
        ["", "0", "a"],
        # superscript two is a digit to Python and no number
        ["a1", "a²"],
    ],
)
def test_natural_order(texts: list[str]) -> None:
    backwards = texts[::-1]
    assert sorted(backwards, key=natural) == texts


AMOUNTS = st.one_of(
    st.integers(1, 9).map(lambda count: Amount(count=count)),
    st.floats(0.1, 100).map(lambda percent: Amount(percent=percent)),
)


@given(
    st.lists(st.sampled_from(["1", "2", "10", None]), max_size=40),
    st.none() | AMOUNTS,
    AMOUNTS,
    st.booleans(),
)
def test_every_device_is_in_one_wave_and_no_wave_is_too_large(
    rings: list[str | None], canary: Amount | None, at_once: Amount, ordered: bool
) -> None:
    policy = Policy(canary=canary, max_unavailable=at_once, order_by=("ring",) if ordered else ())
    devices = [(f"d{place}", {"ring": ring} if ring else {}) for place, ring in enumerate(rings)]
    found = parts(devices, policy)
    assert sorted(part.device for part in found) == sorted(name for name, _ in devices)
    assert all(part.outcome is None for part in found)
    numbers = [part.wave for part in found]
    assert sorted(set(numbers)) == list(range(len(set(numbers))))
    for wave in set(numbers):
        if wave or canary is None:
            assert 1 <= numbers.count(wave) <= max(1, at_once.of(len(devices)))
    if ordered:
        of = dict(devices)
        order = [natural(of[part.device].get("ring", "99")) for part in found]
        assert order == sorted(order)
