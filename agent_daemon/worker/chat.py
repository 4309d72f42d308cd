"""Messages to prompt text, by the template that the model file carries, in a sandbox.

The template is a program from an untrusted file: it runs in Jinja's immutable sandbox, without access to
Python's internals and within limits of time and memory, and a failure is the request's error, never the
worker's.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agent_daemon.worker.bounds import bounded

TIME_LIMIT = 2.0
"""Seconds for one rendering, during which no other request goes on; real templates take milliseconds."""
MEMORY_LIMIT = 512 * 1024 * 1024
"""Bytes: a request may have 16 MiB of text, which a template copies a few times at most."""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Used for a model that carries no template: the most widely trained format."""


class ChatTemplateError(Exception):
    """The template does not compile, or refuses these messages; the message says why."""


class ChatTemplate:
    """A compiled template. Raises ChatTemplateError when the source is not valid Jinja."""

    def __init__(self, source: str | None, bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
        try:
            with bounded(TIME_LIMIT, MEMORY_LIMIT):
                self._template = environment.from_string(source or CHATML)
        except Exception as error:
            raise ChatTemplateError(f"the model's chat template is not valid Jinja: {_say(error)}") from error
        self._special = {"bos_token": bos, "eos_token": eos}

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt for these messages, ending where the assistant's answer begins."""
        try:
            with bounded(TIME_LIMIT, MEMORY_LIMIT):
                return self._template.render(messages=messages, add_generation_prompt=True, **self._special)
        except Exception as error:
            raise ChatTemplateError(
                f"the model's chat template refused these messages: {_say(error)}"
            ) from error


def _say(error: Exception) -> str:
    return str(error) or (
        "it takes too much memory" if isinstance(error, MemoryError) else type(error).__name__
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
