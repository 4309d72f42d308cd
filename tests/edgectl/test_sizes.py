import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.errors import UsageError
from edgectl.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("512MiB", 512 * 2**20),
        ("512 mib", 512 * 2**20),
        ("1.5 GB", 1_500_000_000),
        ("1.5GiB", 3 * 2**29),
        ("8G", 8 * 2**30),
        ("8 GB", 8 * 10**9),
        ("8192M", 8 * 2**30),
        ("2T", 2**41),
        ("1KB", 1000),
        ("17B", 17),
        (" 1048576 ", 1_048_576),
        ("0", 0),
        ("0.3 KiB", 307),
    ],
)
def test_sizes_that_people_write(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1GiB", "8 GiB 2", "8Gib/s", "1e9", "8XiB", "nan", "1.GiB", "1,5GiB", "9" * 40]
)
def test_anything_else_is_a_clear_error(text: str) -> None:
    with pytest.raises(
        UsageError, match="is not a size; expected a number with a unit, such as 8GiB or 512MiB"
    ):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (98_362_432, "93.8 MiB"),
        (int(4.4 * 2**30), "4.4 GiB"),
        (2**30 - 1, "1.0 GiB"),
        (5 * 2**50, "5120.0 TiB"),
        (-(2**20), "-1.0 MiB"),
    ],
)
def test_sizes_that_people_read(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 2**50))
def test_what_is_printed_can_be_parsed_back(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= max(1, size * 0.051)


@given(st.text(max_size=30))
def test_no_text_does_worse_than_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_size(text) >= 0
