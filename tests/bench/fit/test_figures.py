"""How errors become figures, and figures a verdict."""

from dataclasses import replace

import pytest

from agent_daemon.contract.need import Need, Share
from tests.bench.fit.figures import MIB, figures, off, spread
from tests.bench.fit.grid import Pair
from tests.bench.fit.report import Found, text
from tests.bench.fit.truth import Setting, Truth
from tests.support.ladders import facts

TRUE = Share(weights=4000 * MIB, kv_cache=1000 * MIB, compute=100 * MIB)


def pair(predicted: Share, true: Share = TRUE) -> Pair:
    return Pair("m", Setting(2048), facts("llama-1b:Q4_K_M"), Need(predicted), Truth(true))


def test_an_exact_prediction_breaks_nothing() -> None:
    found = figures([pair(TRUE)])
    assert found.broken() == ()
    assert (found.memories, found.within, found.largest) == (1, 1, 0.0)


@pytest.mark.parametrize(
    ("predicted", "told"),
    [
        (replace(TRUE, weights=4005 * MIB), ["weights off by 0.125%, allowed is 0.1%"]),
        (replace(TRUE, kv_cache=998 * MIB), ["cache off by 0.200%, allowed is 0.1%"]),
        (replace(TRUE, compute=108 * MIB), []),
        (replace(TRUE, compute=109 * MIB), ["compute beyond 5% and 8 MiB 1 times: m 2048x1 f16 fa RAM"]),
    ],
)
def test_each_bound_is_told_by_itself(predicted: Share, told: list[str]) -> None:
    assert list(figures([pair(predicted)]).broken()) == told


def test_of_a_large_buffer_five_percent_are_allowed() -> None:
    large = replace(TRUE, compute=1000 * MIB)
    assert figures([pair(replace(large, compute=1050 * MIB), large)]).beyond == ()
    assert figures([pair(replace(large, compute=1051 * MIB), large)]).beyond == ("m 2048x1 f16 fa RAM",)


def test_totals_are_judged_at_the_median_and_at_the_worst() -> None:
    small, true = Share(compute=108 * MIB), Share(compute=100 * MIB)
    found = figures([pair(small, true), pair(TRUE), pair(TRUE)])
    assert found.median == 0.0
    assert found.broken() == ("a total off by 8.00% (m 2048x1 f16 fa RAM), allowed is 2%",)
    assert "totals off by 8.00% at the median, allowed is 1%" in figures([pair(small, true)] * 2).broken()


def test_each_memory_is_judged_by_itself() -> None:
    predicted, true = Need(TRUE, (Share(weights=110),)), Truth(TRUE, (Share(weights=100),))
    found = figures([Pair("m", Setting(2048, split=(3,)), facts("llama-1b:Q4_K_M"), predicted, true)])
    assert (found.memories, found.worst) == (2, "m 2048x1 f16 fa on 3 GPU 0")
    assert found.largest == pytest.approx(0.1)


def test_what_is_said_to_be_uncertain_may_be_off_by_its_margin() -> None:
    predicted = Need(replace(TRUE, compute=140 * MIB), uncertain="never seen before", margin=40 * MIB)
    doubtful = replace(pair(TRUE), predicted=predicted)
    assert figures([doubtful]).broken() == ()
    assert figures([doubtful]).uncertain == ("m",)
    assert figures([replace(doubtful, predicted=replace(predicted, margin=39 * MIB))]).beyond != ()
    assert figures([replace(doubtful, predicted=replace(predicted, uncertain=None))]).beyond != ()


def test_something_predicted_where_there_is_nothing_is_all_wrong() -> None:
    assert (off(0, 0), off(1, 0), off(0, 5), off(5, 4)) == (0.0, 1.0, 1.0, 0.25)


def test_no_configuration_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="no configuration"):
        figures([])


def test_a_spread_tells_too_little_from_too_much() -> None:
    said = [(Share(50), Share(100)), (Share(125), Share(100)), (Share(101, 1), Share(100, 2))]
    found = spread(said)
    assert (found.count, found.below, found.above, found.within) == (3, -0.5, 0.25, 1)
    assert (found.median, found.cache) == (0.25, 0.5)


def test_the_text_ends_with_the_verdict() -> None:
    found = Found({}, ram=figures([pair(TRUE)]), peers={"other": spread([(Share(50), Share(100))])})
    assert text(found).endswith("all bounds hold")
    assert "compute  within 5% or 8 MiB 1 of 1 times" in text(found)
    assert text(replace(found, broken=("in RAM: weights",))).endswith("BROKEN: in RAM: weights")
