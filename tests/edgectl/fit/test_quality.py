"""The order in which candidates are tried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.gguf import GgufFacts
from edgectl.fit.quality import GOOD_KLD, KLD, divergence, good, rank
from tests.support.ladders import facts


def of_type(file_type: str | None, bits: float = 5.0, blocks: int = 1_000_000) -> GgufFacts:
    return facts("llama-1b:Q4_K_M").model_copy(
        update={
            "file_type": file_type,
            "block_parameters": blocks,
            "parameter_count": 1_000_000_000,
            "tensor_bytes": int(bits * 125_000_000),
        }
    )


def best_first(*names: str) -> list[str]:
    return sorted(names, key=lambda name: rank(facts(name)))


def test_one_model_is_ordered_by_divergence() -> None:
    ladder = [
        "llama-8b:Q8_0",
        "llama-8b:Q6_K",
        "llama-8b:Q5_K_M",
        "llama-8b:Q4_K_M",
        "llama-8b:Q3_K_M",
        "llama-8b:Q2_K",
    ]
    assert best_first(*reversed(ladder)) == ladder


def test_a_larger_model_at_four_bits_beats_a_smaller_one_at_eight() -> None:
    assert best_first("llama-1b:Q8_0", "llama-8b:Q4_K_M") == ["llama-8b:Q4_K_M", "llama-1b:Q8_0"]


def test_a_smaller_model_at_four_bits_beats_a_larger_one_at_two() -> None:
    names = ["llama-8b:Q2_K", "llama-1b:Q2_K", "qwen3-4b:Q4_K_M", "llama-1b:Q4_K_M"]
    assert best_first(*names) == ["qwen3-4b:Q4_K_M", "llama-1b:Q4_K_M", "llama-8b:Q2_K", "llama-1b:Q2_K"]


def test_types_of_the_table() -> None:
    assert divergence(of_type("Q4_K_M", bits=2.0)) == 0.0313
    assert divergence(of_type("IQ2_XXS", bits=16.0)) == 0.812


@pytest.mark.parametrize(
    ("bits", "low", "high"),
    [(5.0, KLD["Q5_K_S"], KLD["Q4_K_S"]), (3.5, KLD["Q3_K_M"], KLD["Q2_K"]), (1.6, KLD["IQ2_XXS"], 10.0)],
)
def test_unknown_types_lie_between_their_neighbours(bits: float, low: float, high: float) -> None:
    assert low < divergence(of_type(None, bits)) < high
    assert divergence(of_type("Q4_1", bits)) == divergence(of_type(None, bits))


def test_points_of_the_curve_and_beyond_its_end() -> None:
    assert divergence(of_type(None, 8.5)) == pytest.approx(KLD["Q8_0"])
    assert divergence(of_type(None, 32.0)) == KLD["F16"]


@given(st.floats(0.5, 40), st.floats(0.5, 40))
def test_more_bits_never_diverge_more(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert divergence(of_type(None, low)) >= divergence(of_type(None, high)) > 0


def test_tensors_outside_the_blocks_do_not_make_a_model_larger() -> None:
    plain = facts("llama-8b:Q8_0")
    padded = facts("llama-8b:Q4_K_M").model_copy(update={"parameter_count": plain.parameter_count * 2})
    assert rank(plain) < rank(padded)


def test_good_files_end_at_about_three_and_a_half_bits() -> None:
    assert [name for name, kld in KLD.items() if kld <= GOOD_KLD][-1] == "Q3_K_M"
    assert good(of_type("Q3_K_M", bits=2.0))
    assert not good(of_type("IQ3_M", bits=16.0))
    assert good(of_type(None, bits=4.0))
    assert not good(of_type(None, bits=3.4))
