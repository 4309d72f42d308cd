"""What in a log nobody should ever see. PURE."""

import re

_FORBIDDEN = re.compile(
    r"Traceback \(most recent call last\)|internal error|the agent made a mistake|never retrieved"
    r"|never awaited|Fatal Python error|Segmentation fault|Exception ignored in|Exception in|AssertionError"
)
_AROUND = 12
"""Lines that are shown before the place, and three times as many after it."""


def exceptions(text: str) -> list[str]:
    """Each place in a log where an error came through that nobody foresaw, with the lines around it. Places that
    lie close together are told once."""
    lines, found, told = text.splitlines(), [], -1
    for number, line in enumerate(lines):
        if number > told and _FORBIDDEN.search(line):
            told = number + 3 * _AROUND
            found.append("\n".join(lines[max(0, number - _AROUND) : told + 1]))
    return found
