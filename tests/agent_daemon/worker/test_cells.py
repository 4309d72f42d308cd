"""Cells in use, counted from what sequences share."""

from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.worker.cells import Run, Spans, grown, prefix, used


def test_a_sequence_uses_as_many_cells_as_it_has_tokens() -> None:
    assert used([grown((), Run(0), 7)]) == 7
    assert used([grown((), Run(0), 0)]) == 0
    assert used([]) == 0


def test_a_copied_prefix_costs_nothing_until_the_copy_grows() -> None:
    original = grown((), Run(0), 100)
    copy = prefix(original, 60)
    assert used([original, copy]) == 100
    assert used([copy]) == 60
    longer = grown(copy, Run(60), 75)
    assert used([original, longer]) == 115
    assert used([longer]) == 75


def test_a_copy_of_a_copy_shares_with_both() -> None:
    first = grown((), Run(0), 50)
    second = grown(prefix(first, 30), Run(30), 80)
    third = grown(prefix(second, 60), Run(60), 61)
    assert used([first, second, third]) == 50 + 50 + 1
    assert used([third]) == 61
    assert used([first, third]) == 50 + 30 + 1


def test_growing_twice_in_the_same_run_is_one_span() -> None:
    run = Run(10)
    base = prefix(grown((), Run(0), 10), 10)
    assert grown(grown(base, run, 15), run, 20) == grown(base, run, 20)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.integers(0, 5), st.integers(0, 40)),
        st.tuples(st.just("drop"), st.integers(0, 5), st.just(0)),
    ),
    max_size=25,
)


@given(STEPS)
def test_the_count_is_that_of_a_cache_which_keeps_every_cell(steps: list[tuple[str, int, int]]) -> None:
    """Against sets of cells, each an object of its own, as the real cache has them."""
    spans: list[Spans] = []
    cells: list[list[object]] = []
    for what, index, length in steps:
        if what == "drop":
            if index < len(spans):
                del spans[index], cells[index]
            continue
        source = spans[index] if index < len(spans) else ()
        old = cells[index] if index < len(cells) else []
        kept = min(length, len(old))
        spans.append(grown(prefix(source, kept), Run(kept), kept + 5))
        cells.append(old[:kept] + [object() for _ in range(5)])
    assert used(spans) == len({id(cell) for each in cells for cell in each})
