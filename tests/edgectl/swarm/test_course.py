"""Whom the control machine sends to, and who is better served directly: decisions, without a swarm."""

import pytest

from edgectl.swarm.course import (
    NEIGHBOURS,
    Advanced,
    Completed,
    Course,
    Decision,
    Dropped,
    FallBack,
    Finished,
    Happening,
    Joined,
    Limits,
    SendDirectly,
    Serve,
    Tick,
    neighbours,
    trusted,
)

SIZE = 1000
LIMITS = Limits(gather=10, patience=10, give_up=45)
BEHIND = "nothing came from the other devices of its site for 45 s"
NOBODY = "no device of its site can be reached by this machine's swarm"


class Played:
    """A course, and a clock that the test sets."""

    def __init__(self, *devices: str, directly: bool = False) -> None:
        self.course = Course(devices, SIZE, LIMITS, directly=directly, now=0.0)

    def at(self, now: float, *happenings: Happening) -> tuple[Decision, ...]:
        decided: list[Decision] = []
        for happening in happenings or (Tick(),):
            decided += self.course.on(happening, now)
        return tuple(decided)


def test_one_device_is_sent_to_and_the_rest_have_it_from_that_one() -> None:
    site = Played("a", "b", "c")
    assert site.at(1, Joined("b", 0), Joined("a", 0)) == ()
    assert site.at(2, Joined("c", 0)) == (Serve("a"),)
    assert site.at(3, Advanced("a", 400), Advanced("b", 300), Advanced("c", 200)) == ()
    assert site.at(4, Advanced("a", SIZE)) == (Serve(None),)
    assert site.at(5, Completed("a"), Completed("b"), Completed("c")) == (Finished(),)
    assert site.at(6) == ()


def test_those_who_join_late_are_not_waited_for_beyond_the_limit() -> None:
    site = Played("a", "b")
    assert site.at(1, Joined("b", 0)) == ()
    assert site.at(9.9) == ()
    assert site.at(10) == (Serve("b"),)
    assert site.at(11, Joined("a", 0)) == ()


def test_whoever_holds_most_is_sent_to_and_nobody_when_one_has_it_all() -> None:
    site = Played("a", "b")
    assert site.at(1, Joined("a", 10), Joined("b", 700)) == (Serve("b"),)
    holding = Played("a", "b")
    assert holding.at(1, Joined("a", SIZE), Completed("a"), Joined("b", 0)) == ()
    assert holding.at(30, Advanced("b", 10)) == ()


def test_another_is_tried_where_the_first_gets_nothing() -> None:
    site = Played("a", "b")
    assert site.at(0, Joined("a", 0), Joined("b", 0)) == (Serve("a"),)
    assert site.at(10) == ()
    assert site.at(10.1) == (Serve("b"),)
    assert site.at(15, Advanced("b", 1)) == ()
    assert site.at(25) == ()
    # Now the first gets pieces from the second, and may be tried again when that one stops.
    assert site.at(25.1, Advanced("a", 1)) == (Serve("a"),)


def test_a_device_that_gets_nothing_while_others_have_more_falls_back() -> None:
    site = Played("a", "b")
    site.at(0, Joined("a", 0), Joined("b", 0))
    for now in range(1, 46):
        assert site.at(now, Advanced("a", now)) == ()
    assert site.at(46.5, Advanced("a", 46)) == (FallBack("b", BEHIND),)
    assert site.at(50, Advanced("b", 5)) == ()
    assert site.at(60, Completed("a")) == (Serve(None), Finished())


def test_waiting_for_what_nobody_has_is_not_being_behind() -> None:
    site = Played("a", "b")
    site.at(0, Joined("a", 0), Joined("b", 0))
    site.at(1, Advanced("a", 100), Advanced("b", 100))
    # Nothing moves at all: the other one is tried, then both are left to the direct way.
    assert site.at(11.5) == (Serve("b"),)
    assert site.at(21.6) == (Serve(None), FallBack("a", NOBODY), FallBack("b", NOBODY), Finished())


def test_a_large_site_that_is_out_of_reach_is_given_up_soon() -> None:
    names = [f"d{number}" for number in range(9)]
    site = Played(*names)
    assert site.at(0, *(Joined(name, 0) for name in names)) == (Serve("d0"),)
    assert site.at(10.1) == (Serve("d1"),)
    assert site.at(20.2) == (Serve("d2"),)
    fallen = tuple(FallBack(name, NOBODY) for name in names)
    assert site.at(30.3) == (Serve(None), *fallen, Finished())


def test_one_device_is_served_directly_where_the_swarm_reaches_none() -> None:
    site = Played("a", "b", directly=True)
    site.at(0, Joined("a", 0), Joined("b", 40))
    assert site.at(10.1) == (Serve("a"),)
    assert site.at(20.2) == (Serve(None), SendDirectly("b"))
    # However long that takes, nobody is behind meanwhile.
    assert site.at(500) == ()
    assert site.at(501, Completed("b")) == ()
    assert site.at(540) == ()
    assert site.at(547) == (FallBack("a", BEHIND), Finished())


def test_where_the_direct_way_fails_too_everybody_falls_back() -> None:
    site = Played("a", "b", directly=True)
    site.at(0, Joined("a", 0), Joined("b", 0))
    site.at(10.1)
    assert site.at(20.2) == (Serve(None), SendDirectly("a"))
    assert site.at(30, Dropped("a", "the disk is full")) == (FallBack("a", "the disk is full"), Serve("b"))
    assert site.at(40.1) == (Serve(None), FallBack("b", NOBODY), Finished())


def test_one_that_takes_no_part_falls_back_at_once() -> None:
    site = Played("a", "b")
    assert site.at(1, Dropped("a", "no libtorrent")) == (FallBack("a", "no libtorrent"),)
    assert site.at(2, Joined("b", 0)) == (Serve("b"),)
    assert site.at(3, Dropped("b", "gone")) == (FallBack("b", "gone"), Serve(None), Finished())


def test_one_that_is_lost_after_it_had_everything_has_it_all_the_same() -> None:
    site = Played("a", "b")
    site.at(1, Joined("a", 0), Joined("b", 0))
    assert site.at(2, Completed("a")) == (Serve(None),)
    assert site.at(3, Dropped("a", "switched off")) == ()
    assert site.at(50) == (FallBack("b", BEHIND), Finished())


def test_hashing_the_whole_takes_as_long_as_it_takes() -> None:
    site = Played("a", "b")
    site.at(0, Joined("a", 0), Joined("b", 0))
    site.at(1, Completed("b"), Advanced("a", SIZE))
    assert site.at(600) == ()
    assert site.at(601, Completed("a")) == (Finished(),)


def test_on_a_small_site_everybody_knows_everybody() -> None:
    assert neighbours(["a", "b", "c"]) == {"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")}
    assert neighbours(["a"]) == {"a": ()}


@pytest.mark.parametrize("count", [14, 50, 1000])
def test_on_a_large_site_a_few_steps_lead_everywhere(count: int) -> None:
    devices = [f"d{number}" for number in range(count)]
    known = neighbours(devices)
    assert all(1 < len(others) <= NEIGHBOURS for others in known.values())
    assert all(name not in others for name, others in known.items())
    assert all(name in known[other] for name, others in known.items() for other in others)
    reached, edge, steps = {devices[0]}, {devices[0]}, 0
    while len(reached) < count:
        edge = {other for name in edge for other in known[name]} - reached
        reached |= edge
        steps += 1
    assert steps <= {14: 3, 50: 4, 1000: 20}[count]


def test_an_address_that_two_devices_have_leads_to_neither() -> None:
    assert trusted({"a": ["10.0.0.1", "172.17.0.1"], "b": ["10.0.0.2", "172.17.0.1"]}) == {
        "a": ("10.0.0.1",),
        "b": ("10.0.0.2",),
    }
