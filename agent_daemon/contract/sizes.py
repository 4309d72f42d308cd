"""Sizes of memory as people write and read them. PURE."""

import re

_UNITS: dict[str, int] = {"": 1, "b": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for ending, base in (("ib", 1024), ("b", 1000), ("", 1024))
}
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([a-z]{0,3})\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of a size such as `8GiB`, `512 MiB`, `1.5 GB` (decimal), `8G` (binary, like GiB) or `1048576`.

    Raises ValueError for anything else. A fraction of a byte is dropped."""
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(
            f"{text[:40]!r} is not a size; expected a number with a unit, such as 8GiB or 512MiB"
        )
    whole, _, fraction = match[1].partition(".")
    return int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def format_size(size: int) -> str:
    """A size in the largest binary unit that leaves at least 1, with one digit: `4.4 GiB`, `512.0 MiB`, `17
    B`."""
    if abs(size) < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        # 1023.96 would be printed as 1024.0 of a unit that has a larger one
        if abs(value) < 1023.95 or unit == "TiB":
            break
    return f"{value:.1f} {unit}"
