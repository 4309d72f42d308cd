"""The figures, from answers whose times are known."""

import pytest

from tests.bench.serve.answers import Answer, Scene, figures, medians, percentile, ratio, worst_gap


def answer(asked: float, *pieces: float, finish: str = "length") -> Answer:
    return Answer(asked, pieces, pieces[-1], "", finish, 90, 30, len(pieces))


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(n) for n in range(1, 11)]
    assert [percentile(values, part) for part in (0.0, 0.5, 0.9, 0.99, 1.0)] == [1, 5, 9, 10, 10]
    with pytest.raises(ValueError, match="no percentile"):
        percentile([], 0.5)


def test_figures_of_a_scene() -> None:
    scene = Scene("4", (answer(0, 1, 2, 3), answer(1, 4, 5, finish="stop")), seconds=5.0)
    found = figures(scene, {"rss": 7, "pss": 5})
    assert found.tokens_per_second == 1.0
    assert (found.ttft_p50, found.ttft_p99) == (1, 3)
    assert (found.prompt_tokens, found.cached_tokens, found.completion_tokens) == (180, 60, 5)
    assert found.whole == 0.5
    assert (found.rss, found.pss, found.worst_gap) == (7, 5, None)


def test_an_answer_without_text_is_as_late_as_its_end() -> None:
    assert Answer(2.0, (), 5.5, "", "stop", 1, 0, 0).first == 3.5


def test_streams_that_ran_beside_count_for_speed_and_not_for_time_to_first_token() -> None:
    found = figures(Scene("4", (answer(0, 9),), 10.0, worst_gap=2.5, beside=(answer(0, 1, 2, 3, 4),)))
    assert (found.tokens_per_second, found.ttft_p50, found.worst_gap) == (0.5, 9, 2.5)


def test_the_worst_gap_is_of_one_stream_and_of_the_time_in_question() -> None:
    streams = [answer(0, 1, 4, 5, 7), answer(0, 2, 3, 11, 30)]
    assert worst_gap(streams, 4.5, 6) == 8  # from 3 to 11: it touches the time, and goes on after it
    assert worst_gap(streams[:1], 4.5, 6) == 2
    assert worst_gap(streams[:1], 0, 2) == 3
    with pytest.raises(ValueError):
        worst_gap(streams, 31, 40)


def test_medians_and_ratios_say_how_many_times_as_good() -> None:
    slow, fast, other = (figures(Scene("1", (answer(0, n, n + 1),), n + 1.0)) for n in (3, 1, 2))
    middle = medians([slow, fast, other])
    assert (middle.seconds, middle.ttft_p50, middle.rss) == (3, 2, None)
    assert ratio(fast, slow) == {"tokens_per_second": 2, "ttft_p50": 3, "ttft_p99": 3, "seconds": 2}
