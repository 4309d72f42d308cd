"""From what a request asks of its answer to a grammar for the sampler and a reader for tool calls. PURE."""

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from agent_daemon.grammar import gbnf
from agent_daemon.grammar.json_text import RuleSet, constant
from agent_daemon.grammar.keywords import SchemaError
from agent_daemon.grammar.schema import SchemaRules
from agent_daemon.worker.chat import ChatTemplate
from agent_daemon.worker.form import Structure, StructureError
from agent_daemon.worker.tool_calls import PYTHON_TAG, ToolFormat, ToolParser, tool_format
from agent_daemon.worker_messages import Constraint, Generate, Tool

_MOST_CALLS = 16
"""Calls in one answer. A small model that may go on calling does."""


def structure(request: Generate, template: ChatTemplate | None) -> Structure:
    """The form of one answer. `template` is needed for tools only. Raises StructureError."""
    tools = request.tools if request.tool_choice != "none" else ()
    constraint = request.constraint
    if not tools:
        return Structure() if constraint is None else Structure(_grammar(_Wish(answer=constraint).key, None))
    if template is None or not template.declares_tools:
        raise StructureError("this model's chat template has no place for tools", "tools")
    if constraint is not None and constraint.kind == "grammar":
        raise StructureError("a grammar of your own and tools do not go together", "grammar")
    form = tool_format(template.source)
    free = request.tool_choice == "auto"
    wish = _Wish(tools=tools, several=request.parallel_tool_calls, answer=constraint if free else None)
    return Structure(
        grammar=_grammar(wish.key, form),
        triggers=_triggers(form) if free and constraint is None else (),
        markers=form.markers,
        parser=ToolParser(form, [tool.name for tool in tools]),
    )


class _Wish(msgspec.Struct, frozen=True):
    """What a grammar is made from."""

    tools: tuple[Tool, ...] = ()
    several: bool = True
    answer: Constraint | None = None

    @property
    def key(self) -> bytes:
        return msgspec.json.encode(self)


@lru_cache(maxsize=32)
def _grammar(key: bytes, form: ToolFormat | None) -> str:
    """Agents send the same tools with every turn; twenty of them take 50 ms, in which no other answer goes on."""
    wish, rules = msgspec.json.decode(key, type=_Wish), RuleSet()
    if wish.answer is not None and wish.answer.kind == "grammar":
        return _checked(wish.answer.grammar or "", "grammar")
    choices = [_calls(form, wish.tools, rules, wish.several)] if form else []
    choices += [_answer(wish.answer, rules)] if wish.answer else []
    return _checked(rules.text(" | ".join(choices)), "tools" if form else "response_format")


def _answer(constraint: Constraint, rules: RuleSet) -> str:
    if constraint.kind == "json_object":
        return "object"
    try:
        return SchemaRules(constraint.json_schema, rules, strict=True).symbol()
    except SchemaError as error:
        raise StructureError(str(error), "response_format") from error


def _checked(grammar: str, param: str) -> str:
    try:
        grammar.encode()
        gbnf.check(grammar)
    except UnicodeEncodeError as error:
        raise StructureError("it has half of a surrogate pair, which is no text", param) from error
    except gbnf.GrammarError as error:
        raise StructureError(str(error), param) from error
    return grammar


def _calls(form: ToolFormat, tools: Sequence[Tool], rules: RuleSet, several: bool) -> str:
    """The alternatives of an answer that consists of calls."""
    heads = [_call(form, tool, rules) for tool in tools]
    call = rules.name(" | ".join(heads))
    if not form.named:
        call = rules.name(f'"{{" ws ({call}) ws "}}"')
    if not form.opening:
        return f"({gbnf.literal(PYTHON_TAG)} ws)? {call}"
    opening, closing = gbnf.literal(form.opening), gbnf.literal(form.closing)
    one = (
        call
        if form.listed
        else rules.name(f"{opening} ws {call} ws {closing}" if form.closing else f"{opening} {call}")
    )
    between = '"," ws' if form.listed else "ws"
    calls = f"{one} {rules.repeat(f'{between} {one}', 0, _MOST_CALLS - 1)}" if several else one
    return f'{opening} ws "[" ws {calls} ws "]"' if form.listed else calls


def _call(form: ToolFormat, tool: Tool, rules: RuleSet) -> str:
    place = f"the parameters of {tool.name}"
    function = tool.raw.get("function", tool.raw)
    strict = isinstance(function, dict) and function.get("strict") is True
    schema = {"type": "object", **tool.schema_}
    try:
        arguments = SchemaRules(schema, rules, strict, place).symbol()
    except SchemaError as error:
        raise StructureError(str(error), "tools") from error
    if form.named:
        return f'{gbnf.literal(tool.name)} "[ARGS]" ws {arguments}'
    keys = [f'{gbnf.literal(key)} ":" ws' for key in ('"name"', f'"{form.arguments}"')]
    return f'{keys[0]} {constant(tool.name)} "," ws {keys[1]} {arguments}'


def _triggers(form: ToolFormat) -> tuple[str, ...]:
    """Patterns that match where calls begin, up to the end of the text so far.

    llama.cpp reads what is matched again by the grammar, and ends the process when that does not let it through. So
    behind the opening nothing may have come yet that the grammar would not begin with: a call of which more came at
    once is not constrained, but still read.
    """
    head = "" if form.named else _begun('{"name":')
    if form.listed:
        head = rf"(?:\[[ \n]?{head})?"
    if form.opening:
        return (rf"{_escaped(form.opening)}[ \n]?{head}$",)
    return (r'^\s*(\{[ \n]?"name":[ \n]?"?)$', rf"^\s*({_escaped(PYTHON_TAG)}[ \n]?{head})$")


def _begun(text: str) -> str:
    """A pattern for every beginning of `text`, the empty one too."""
    pattern = ""
    for char in reversed(text):
        pattern = f"(?:{_escaped(char)}{pattern})?"
    return pattern


def _escaped(text: str) -> str:
    return re.sub(r"([][{}()|.*+?^$\\])", r"\\\1", text)
