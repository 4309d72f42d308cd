"""Results that share one buffer as ggml's graph allocator places them."""

from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.graph_tape import Result, Tape

ROW = 8
"""f32 elements of 32 bytes: one unit of alignment."""


def rows(count: int) -> tuple[int, int]:
    return ROW, count


def test_a_result_is_given_back_after_its_last_reader() -> None:
    tape = Tape()
    start = tape.input(32)
    first = tape.make(start, rows=rows(4))
    second = tape.make(first, rows=rows(4))
    third = tape.make(second, rows=rows(4))
    tape.keep(tape.make(third, rows=rows(4)))
    # the input, and never more than two results at a time
    assert tape.peak() == 32 + 2 * 4 * 32


def test_an_operation_in_place_takes_no_room_of_its_own() -> None:
    tape = Tape()
    first = tape.make(tape.input(32), rows=rows(4))
    tape.keep(tape.alter(tape.alter(tape.alter(first))))
    assert tape.peak() == 32 + 4 * 32


def test_not_in_place_where_somebody_reads_it_later_or_through_a_view_or_in_another_shape() -> None:
    def peak(later: bool, viewed: bool, shape: tuple[int, ...] | None) -> int:
        tape = Tape()
        first = tape.make(tape.input(32), rows=rows(4))
        altered = tape.alter(first.view() if viewed else first, rows=shape or first.shape)
        if later:
            tape.read(first, altered)
        return tape.peak()

    assert peak(later=False, viewed=False, shape=None) == 32 + 4 * 32
    assert peak(later=True, viewed=False, shape=None) == 32 + 8 * 32
    assert peak(later=False, viewed=True, shape=None) == 32 + 8 * 32
    assert peak(later=False, viewed=False, shape=(ROW * 4, 1)) == 32 + 8 * 32


def test_an_output_is_never_given_back_nor_overwritten() -> None:
    tape = Tape()
    kept = tape.make(tape.input(32), rows=rows(4))
    tape.keep(kept)
    tape.make(tape.alter(kept), rows=rows(4))
    assert tape.peak() == 32 + 3 * 4 * 32


def test_an_input_that_nobody_reads_stays() -> None:
    tape = Tape()
    tape.input(320)
    start = tape.input(32)
    tape.make(tape.make(start, rows=rows(1)), rows=rows(1))
    # the other one's place goes to the second result
    assert tape.peak() == 320 + 32 + 32


def test_the_smallest_hole_that_is_large_enough_is_taken() -> None:
    tape = Tape()
    start = tape.input(32)
    small, between = tape.make(start, rows=rows(2)), tape.make(start, rows=rows(1))
    large, end = tape.make(start, rows=rows(5)), tape.make(start, rows=rows(1))
    tape.read(start, small)
    tape.read(large)
    tape.make(end, between, rows=rows(2))
    tape.make(end, between, rows=rows(5))
    tape.read(end, between)
    # holes of 2 and 5 rows: each is filled by what fits it best, nothing goes to the end
    assert tape.peak() == 32 * (1 + 2 + 1 + 5 + 1)


def test_sizes_are_rounded_up_to_the_alignment() -> None:
    tape = Tape()
    start = tape.input(1)
    tape.make(start, rows=(1, 9))
    assert (tape.peak(), tape.peak(alignment=128)) == (32 + 64, 256)


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    picks=st.lists(
        st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.booleans(), st.booleans()), max_size=60
    ),
)
def test_the_buffer_holds_what_is_alive_and_no_more_than_all(
    sizes: list[int], picks: list[tuple[int, int, bool, bool]]
) -> None:
    tape = Tape()
    made: list[Result] = [tape.input(32 * size) for size in sizes]
    total = 32 * sum(sizes)
    largest = max(sizes) * 32
    for one, other, in_place, viewed in picks:
        first, second = made[one % len(made)], made[other % len(made)]
        size = sizes[(one + other) % len(sizes)]
        shape = first.shape if in_place and first.shape else rows(size)
        reads = (first.view() if viewed else first, second)
        made.append(tape.alter(*reads, rows=shape) if in_place else tape.make(*reads, rows=shape))
        total += 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        largest = max(largest, 4 * shape[0] * (shape[1] if len(shape) > 1 else 1))
    assert max(32 * sum(sizes), largest) <= tape.peak() <= total
