"""Prometheus' text format: what it looks like, and that nothing in a label breaks it."""

from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.histogram import EMPTY, Histogram
from agent_daemon.exposition import Family, HistogramFamily, page
from tests.support.prometheus import scrape


def test_a_page_to_the_letter() -> None:
    samples = (({"model": "chat", "finish": "stop"}, 3), ({"model": "chat", "finish": "error"}, None))
    assert page([Family("edgectl_requests_total", "counter", 'Back\\slash,\nnext "line".', samples)]) == (
        '# HELP edgectl_requests_total Back\\\\slash,\\nnext "line".\n'
        "# TYPE edgectl_requests_total counter\n"
        'edgectl_requests_total{model="chat",finish="stop"} 3\n'
    )
    assert page([Family("up", "gauge", "Up.", (({}, 0.5),))]).splitlines()[-1] == "up 0.5"


def test_buckets_count_everything_up_to_their_bound() -> None:
    histogram = Histogram.of([0.002, 0.3, 0.3, 1000.0])
    text = page(
        [HistogramFamily("edgectl_queue_seconds", "Waiting.", (({"model": "chat"}, histogram, 1000.602),))]
    )
    lines = text.splitlines()
    assert lines[1] == "# TYPE edgectl_queue_seconds histogram"
    assert lines[2] == 'edgectl_queue_seconds_bucket{model="chat",le="0.002"} 1'
    assert lines[9:11] == [
        'edgectl_queue_seconds_bucket{model="chat",le="0.5"} 3',
        'edgectl_queue_seconds_bucket{model="chat",le="1"} 3',
    ]
    assert lines[17:] == [
        'edgectl_queue_seconds_bucket{model="chat",le="300"} 3',
        'edgectl_queue_seconds_bucket{model="chat",le="+Inf"} 4',
        'edgectl_queue_seconds_sum{model="chat"} 1000.602',
        'edgectl_queue_seconds_count{model="chat"} 4',
    ]


def test_a_name_that_has_nothing_to_say_is_not_on_the_page() -> None:
    assert page([Family("a", "gauge", "A.", ()), HistogramFamily("b", "B.", ())]) == ""
    assert page([Family("a", "gauge", "A.", (({}, None),))]) == ""
    assert scrape(page([HistogramFamily("b", "B.", (({}, EMPTY, 0.0),))]))["b"].value("_count") == 0


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_any_label_and_number_comes_back_as_it_was(text: str, number: float) -> None:
    families = scrape(page([Family("edgectl_a", "gauge", "A.", (({"model": text, "other": "x"}, number),))]))
    assert families["edgectl_a"].value(model=text, other="x") == number
