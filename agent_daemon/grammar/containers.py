"""Objects and arrays of JSON, whose members are rules already, as GBNF. PURE."""

from collections.abc import Sequence

from agent_daemon.grammar.json_text import RuleSet


def object_body(rules: RuleSet, members: Sequence[tuple[str, bool]], extra: str | None) -> str:
    """An object with these members (a rule for key and value, and whether it has to be there) in this order, and
    behind them any number of `extra` ones."""
    # From the last member to the first: what may follow when something is there already, and what may come first.
    then, first = "", ""
    if extra is not None:
        then = rules.name(f'("," ws {extra})*')
        first = f"{extra} {then}"
    for member, needed in reversed(members):
        alone = f"{member} {then}".rstrip()
        first = alone if needed or not first else f"{alone} | {rules.name(first)}"
        follows = f'"," ws {member}' if needed else f'("," ws {member})?'
        then = rules.name(f"{follows} {then}".rstrip())
    if not first:
        return '"{" ws "}"'
    optional = "" if any(needed for _member, needed in members) else "?"
    return f'"{{" ws (({first}) ws){optional} "}}"'


def array_body(
    rules: RuleSet, heads: Sequence[str], more: str | None, least: int, most: int | None
) -> str | None:
    """An array that begins with all of `heads` and goes on with `more`, or None when it cannot have at least `least`
    and at most `most` items."""
    least, most = max(0, least - len(heads)), None if most is None else most - len(heads)
    if more is None:
        if least:
            return None
        most = 0
    if most is not None and most < least:
        return None
    if heads:
        rest = _rest(rules, more, least, most)
        inside = ' "," ws '.join(heads)
        return f'"[" ws {inside} {rest} ws "]"'
    if most == 0:
        return '"[" ws "]"'
    rest = _rest(rules, more, max(0, least - 1), None if most is None else most - 1)
    return f'"[" ws ({more} {rest} ws){"" if least else "?"} "]"'


def _rest(rules: RuleSet, item: str | None, least: int, most: int | None) -> str:
    return "" if most == 0 else rules.repeat(f'"," ws {item}', least, most)
