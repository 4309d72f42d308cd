"""Whatever way the bytes of an answer arrive, the text that is shown is the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.worker.text import TextStream


def streamed(pieces: list[bytes], stops: list[str]) -> tuple[str, bool, list[str]]:
    stream = TextStream(stops)
    shown = []
    for piece in pieces:
        shown.append(stream.push(piece))
    shown.append(stream.finish())
    return "".join(shown), stream.stopped, shown


def naive(data: bytes, stops: list[str]) -> tuple[str, bool]:
    """The whole text, cut before the stop string that was complete first."""
    text = data.decode(errors="replace")
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if stop and text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@st.composite
def split_bytes(draw: st.DrawFn) -> list[bytes]:
    data = draw(st.one_of(st.binary(max_size=40), st.text("abé😀", max_size=30).map(str.encode)))
    cuts = sorted(draw(st.sets(st.integers(0, len(data)))))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


stop_strings = st.lists(st.text("abé😀�", max_size=5), max_size=4)


@given(split_bytes(), stop_strings)
def test_any_split_of_the_bytes_gives_the_naive_text(pieces: list[bytes], stops: list[str]) -> None:
    text, stopped, _shown = streamed(pieces, stops)
    assert (text, stopped) == naive(b"".join(pieces), stops)


@given(split_bytes(), stop_strings)
def test_what_has_been_shown_is_never_taken_back(pieces: list[bytes], stops: list[str]) -> None:
    final, _ = naive(b"".join(pieces), stops)
    _text, _stopped, shown = streamed(pieces, stops)
    for count in range(len(shown)):
        assert final.startswith("".join(shown[:count]))


def test_half_a_character_waits_for_its_other_half() -> None:
    stream = TextStream()
    assert [stream.push(bytes([byte])) for byte in "é😀".encode()] == ["", "é", "", "", "", "😀"]


def test_text_that_cannot_begin_a_stop_string_is_shown_at_once() -> None:
    stream = TextStream(["\n\nUser"])
    assert [stream.push(piece) for piece in (b"Hello", b"\n", b"\nYou", b"\n\nUse", b"r", b"more")] == [
        "Hello",
        "",
        "\n\nYou",
        "",
        "",
        "",
    ]
    assert stream.stopped
    assert stream.finish() == ""


def test_the_stop_string_that_is_complete_first_counts_also_within_one_piece() -> None:
    assert (
        streamed([b"abcd"], ["abcd", "bc"])[0] == streamed([b"a", b"b", b"c", b"d"], ["abcd", "bc"])[0] == "a"
    )


@pytest.mark.parametrize("stops", [[], [""], ["", ""]])
def test_empty_stop_strings_stop_nothing(stops: list[str]) -> None:
    assert streamed([b"all ", b"of it"], stops)[:2] == ("all of it", False)
