"""Margins from measured loads: cases as JSON, in tests/cases/margins."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.fit import VRAM_RESERVE
from edgectl.fit.margins import LEAST_VRAM, MOST_RAM, MOST_VRAM, NEWEST, Margin, Pair, margin

CASES = json.loads((Path(__file__).parents[2] / "cases/margins/cases.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case: dict[str, Any]) -> None:
    pair, times = case.get("repeat", ([0, 0], 0))
    pairs = [Pair(*pair)] * times + [Pair(*pair) for pair in case["pairs"]]
    found = margin(case["memory"], pairs)
    assert found == Margin(case["bytes"], min(len(pairs), NEWEST), case["learned"])


def test_the_default_is_the_constant_of_the_fit() -> None:
    assert margin("vram") == Margin(VRAM_RESERVE, 0, learned=False)
    assert margin("ram") == Margin(0, 0, learned=False)


SIZES = st.integers(0, 2**50)


@given(st.lists(st.builds(Pair, SIZES, SIZES, st.integers(0, 16)), max_size=40))
def test_whatever_devices_report_the_margin_stays_within_its_bounds(pairs: list[Pair]) -> None:
    assert LEAST_VRAM <= margin("vram", pairs).bytes <= MOST_VRAM
    assert 0 <= margin("ram", pairs).bytes <= MOST_RAM
