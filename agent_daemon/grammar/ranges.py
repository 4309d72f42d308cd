"""Numbers between two bounds, as GBNF. PURE.

A grammar cannot compare, so a range becomes the alternatives of its digits. Numbers have at most fifteen digits
before the point and a few behind it: all that a 64-bit float keeps apart, so that what is read back is still within
the bounds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

_DIGITS = 15
_LARGEST = Decimal(10**_DIGITS - 1)
_DECIMALS = 10


@dataclass(frozen=True)
class Range:
    """Bounds of a number; None is none. `open` bounds are not themselves within the range."""

    low: Decimal | None = None
    high: Decimal | None = None
    low_open: bool = False
    high_open: bool = False

    def grammar(self, integer: bool) -> str | None:
        """Alternatives for the numbers of this range, or None when there are none."""
        low = -_LARGEST if self.low is None else max(self.low, -_LARGEST)
        high = _LARGEST if self.high is None else min(self.high, _LARGEST)
        found: list[str] = []
        zero = Decimal(0)
        if high >= 0:
            above = (low, self.low_open) if low >= 0 else (zero, False)
            found += _positive(above[0], high, above[1], self.high_open, integer)
        if low < 0:
            below = (-high, self.high_open) if high < 0 else (zero, True)
            # Minus zero is a number as well, but the one that nobody expects.
            found += [f'"-" {each}' for each in _positive(below[0], -low, below[1], self.low_open, integer)]
        return " | ".join(found) or None


def _positive(low: Decimal, high: Decimal, low_open: bool, high_open: bool, integer: bool) -> list[str]:
    if integer:
        first = int(low.to_integral_value(ROUND_CEILING))
        last = int(high.to_integral_value(ROUND_FLOOR))
        return list(_integers(first + (low_open and first == low), last - (high_open and last == high)))
    if low > high:
        return []
    (first, above), (last, below) = _split(low), _split(high)
    room = max(1, min(_DECIMALS, _DIGITS - len(str(last))))
    if first == last:
        return _with_fraction(first, _Fraction(above, below, low_open, high_open), room)
    return [
        *_with_fraction(first, _Fraction(above, None, low_open, False), room),
        *(f'({each}) ("." [0-9]{{1,{room}}})?' for each in _integers(first + 1, last - 1)),
        *_with_fraction(last, _Fraction(None, below, False, high_open), room),
    ]


def _split(number: Decimal) -> tuple[int, str]:
    whole, _, fraction = format(number, "f").partition(".")
    return int(whole), fraction.rstrip("0")


def _integers(first: int, last: int) -> Iterator[str]:
    """Whole numbers from `first` (at least 0) to `last`, by their number of digits."""
    for digits in range(len(str(first)), len(str(max(last, 0))) + 1):
        least = max(first, 0 if digits == 1 else 10 ** (digits - 1))
        most = min(last, 10**digits - 1)
        if least <= most:
            yield from _same_length(str(least), str(most))


def _same_length(first: str, last: str) -> Iterator[str]:
    size = len(first)
    if first == "0" * size and last == "9" * size:
        yield _any(size)
    elif size == 1:
        yield f"[{first}-{last}]"
    elif first[0] == last[0]:
        yield from (f'"{first[0]}" {rest}' for rest in _same_length(first[1:], last[1:]))
    else:
        nines, zeros = "9" * (size - 1), "0" * (size - 1)
        low, high = int(first[0]), int(last[0])
        if first[1:] != zeros:
            yield from (f'"{low}" {rest}' for rest in _same_length(first[1:], nines))
            low += 1
        if last[1:] != nines:
            yield from (f'"{high}" {rest}' for rest in _same_length(zeros, last[1:]))
            high -= 1
        if low <= high:
            yield f"[{low}-{high}] {_any(size - 1)}"


def _any(digits: int) -> str:
    return f"[0-9]{{{digits}}}"


@dataclass(frozen=True)
class _Fraction:
    """What the digits behind a point have to be, compared with those of a bound; None is unbounded."""

    low: str | None
    high: str | None
    low_open: bool
    high_open: bool

    @property
    def may_end(self) -> bool:
        """Whether nothing but zeros may follow."""
        above = self.low is None or (self.low == "" and not self.low_open)
        return above and (self.high is None or self.high != "" or not self.high_open)

    def after(self, digit: int) -> "_Fraction | None":
        """What has to follow `digit`, or None when it is not within the bounds."""
        low, high = self.low, self.high
        if low is not None:
            first = int(low[:1] or 0)
            if digit < first:
                return None
            low = low[1:] if digit == first else None
        if high is not None:
            first = int(high[:1] or 0)
            if digit > first:
                return None
            high = high[1:] if digit == first else None
        return _Fraction(low, high, self.low_open, self.high_open)

    def digits(self, room: int) -> Iterator[str]:
        """Alternatives of at least one digit."""
        if room and self.low is None and self.high is None:
            yield f"[0-9]{{1,{room}}}"
        elif room:
            for digit in range(10):
                rest = self.after(digit)
                if rest is not None:
                    more = [*rest.digits(room - 1)]
                    if more:
                        yield f'"{digit}" ({" | ".join(more)}){"?" if rest.may_end else ""}'
                    elif rest.may_end:
                        yield f'"{digit}"'


def _with_fraction(whole: int, fraction: _Fraction, room: int) -> list[str]:
    digits = " | ".join(fraction.digits(room))
    behind = [f'"{whole}." ({digits})'] if digits else []
    return [f'"{whole}"', *behind] if fraction.may_end else behind
