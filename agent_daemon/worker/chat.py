"""Messages to prompt text, by the template that the model file carries, in a sandbox.

The template is a program from an untrusted file: it runs in Jinja's immutable sandbox, without access to
Python's internals and within limits of time and memory, and a failure is the request's error, never the
worker's.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agent_daemon.worker.bounds import OutOfTime, bounded

TIME_LIMIT = 2.0
"""Seconds for one rendering, during which no other request goes on; real templates take milliseconds."""
MEMORY_LIMIT = 512 * 1024 * 1024
"""Bytes: a request may have 16 MiB of text, which a template copies a few times at most."""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Used for a model that carries no template: the most widely trained format."""

_ASKS_FOR_NONE = re.compile(r"""content['"]?\]?\s+is\s+(not\s+)?none""", re.IGNORECASE)
Messages = Sequence[Mapping[str, Any]]


class ChatTemplateError(Exception):
    """The template does not compile, or refuses these messages; the message says why."""


class ChatTemplate:
    """A compiled template. Raises ChatTemplateError when the source is not valid Jinja."""

    def __init__(self, source: str | None, bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
        environment.filters["tojson"] = _to_json
        self.source = source or CHATML
        try:
            with bounded(TIME_LIMIT, MEMORY_LIMIT):
                self._template = environment.from_string(self.source)
                read = meta.find_undeclared_variables(environment.parse(self.source))
        except Exception as error:
            raise ChatTemplateError(f"the model's chat template is not valid Jinja: {_say(error)}") from error
        self.declares_tools = "tools" in read
        """Whether the template does anything with tools."""
        self._special = {"bos_token": bos, "eos_token": eos}

    def render(
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]] = (),
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for these messages, ending where the assistant's answer begins. `arguments` are more variables
        of the template's own. Raises ChatTemplateError."""
        variables = {
            **(arguments or {}),
            **self._special,
            "tools": list(tools) or None,
            "add_generation_prompt": True,
        }
        try:
            with bounded(TIME_LIMIT, MEMORY_LIMIT):
                return self._render(messages, variables)
        except Exception as error:
            raise ChatTemplateError(
                f"the model's chat template refused these messages: {_say(error)}"
            ) from error

    def _render(self, messages: Messages, variables: Mapping[str, Any]) -> str:
        refused: Exception | None = None
        for attempt in _readings(messages, variables, keep_none=bool(_ASKS_FOR_NONE.search(self.source))):
            try:
                return self._template.render(attempt)
            except (OutOfTime, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a template may raise
                refused = refused or error
        assert refused is not None
        raise refused


def _readings(
    messages: Messages, variables: Mapping[str, Any], keep_none: bool
) -> Iterator[Mapping[str, Any]]:
    """Templates disagree about three things: whether the arguments of earlier calls are an object or text, whether
    a message that only calls has no content or an empty one, and whether no tools are none or undefined. The most
    likely reading comes first."""
    calling = any(message.get("tool_calls") for message in messages)
    objects = [_with_objects(message) for message in messages] if calling else messages
    yield {**variables, "messages": objects if keep_none else _without_none(objects)}
    if calling:
        yield {**variables, "messages": _without_none(objects) if keep_none else objects}
        yield {**variables, "messages": _without_none(messages)}
    if variables["tools"] is None:
        yield {**{name: variables[name] for name in variables if name != "tools"}, "messages": messages}


def _without_none(messages: Messages) -> Messages:
    return [{**each, "content": ""} if each.get("content", "") is None else each for each in messages]


def _with_objects(message: Mapping[str, Any]) -> Mapping[str, Any]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list | tuple):
        return message
    return {**message, "tool_calls": [_with_object(call) for call in calls]}


def _with_object(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call


class _Generation(Extension):
    """`{% generation %}` marks what training learns from; for rendering it is nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter writes for HTML, which no model was trained on.
    return json.dumps(
        value, indent=indent, ensure_ascii=ensure_ascii, separators=separators, sort_keys=sort_keys
    )


def _say(error: Exception) -> str:
    return str(error) or (
        "it takes too much memory" if isinstance(error, MemoryError) else type(error).__name__
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
