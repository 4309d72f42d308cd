"""Which devices a manifest or a command means: a query over labels.

    all                    every device
    role=laptop            the label has this value          role!=lab    it has not, or is missing
    gpu                    the label is there                !gpu         it is not
    role=laptop,site!=lab  all of them

`name` stands for the device's own name: `name=desk-3`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgectl.errors import UsageError

KEY_RULE = "a letter or digit, then up to 62 more of letters, digits, and . _ / -"
VALUE_RULE = "up to 63 of letters, digits, and . _ : -"

KEY_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}"
_VALUE = r"[A-Za-z0-9._:-]{1,63}"
_TERM = re.compile(rf"(?P<absent>!)?(?P<key>{KEY_PATTERN})(?:(?P<op>!=|=)(?P<value>{_VALUE}))?")

Operator = Literal["equals", "differs", "present", "absent"]


@dataclass(frozen=True)
class Term:
    """One condition on one label."""

    key: str
    operator: Operator
    value: str | None = None

    def holds(self, labels: Mapping[str, str]) -> bool:
        if self.operator == "present":
            return self.key in labels
        if self.operator == "absent":
            return self.key not in labels
        return (labels.get(self.key) == self.value) == (self.operator == "equals")


@dataclass(frozen=True)
class Selector:
    """Conditions that must all hold; none means every device."""

    text: str
    terms: tuple[Term, ...]

    def matches(self, labels: Mapping[str, str], name: str) -> bool:
        """Whether a device with these labels and this name is meant."""
        known = {**labels, "name": name}
        return all(term.holds(known) for term in self.terms)

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Selector:
    """Read a selector. Raises UsageError with the position (from 1) and what was expected there."""
    if not text.strip():
        raise UsageError("a selector is empty; expected `all` or conditions such as role=laptop,site!=lab")
    if text.strip() == "all":
        return Selector("all", ())
    terms = []
    position = 0
    for part in text.split(","):
        terms.append(_term(part, position, text))
        position += len(part) + 1
    return Selector(",".join(part.strip() for part in text.split(",")), tuple(terms))


def parse_label(text: str) -> tuple[str, str]:
    """Read `key=value` as given to `device add --label`. Raises UsageError; `name` is the device's own."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"label {_shown(text)}: expected key=value, found no =")
    if not re.fullmatch(KEY_PATTERN, key):
        raise UsageError(f"label {_shown(text)}: expected a key ({KEY_RULE})")
    if not re.fullmatch(_VALUE, value):
        raise UsageError(f"label {_shown(text)}: expected a value ({VALUE_RULE})")
    if key in ("name", "all"):
        raise UsageError(
            f"label {_shown(text)}: the key {key!r} is taken: in selectors it has its own meaning"
        )
    return key, value


def _term(part: str, offset: int, text: str) -> Term:
    start = offset + len(part) - len(part.lstrip()) + 1
    word = part.strip()
    where = f"selector {_shown(text)}, position {start}"
    if not word:
        raise UsageError(f"{where}: expected key, !key, key=value or key!=value")
    if word == "all":
        raise UsageError(f"{where}: `all` stands alone; expected conditions on labels beside others")
    found = _TERM.match(word)
    if found is None:
        raise UsageError(f"{where}: expected key, !key, key=value or key!=value, found {_shown(word)}")
    if found.end() != len(word):
        rest = word[found.end() :]
        expected = f"a value ({VALUE_RULE})" if rest in ("=", "!=") else "a comma or the end"
        where = f"selector {_shown(text)}, position {start + found.end()}"
        raise UsageError(f"{where}: expected {expected}, found {_shown(rest)}")
    if found["absent"]:
        if found["op"]:
            better = f"{found['key']}!={found['value']}"
            raise UsageError(f"{where}: expected !key without a value; write {better}")
        return Term(found["key"], "absent")
    if found["op"]:
        return Term(found["key"], "equals" if found["op"] == "=" else "differs", found["value"])
    return Term(found["key"], "present")


def _shown(text: str) -> str:
    """Text from outside, short and on one line."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
