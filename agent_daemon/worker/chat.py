"""Messages to prompt text, by the template that the model file carries, in a sandbox.

The template is a program from an untrusted file: it runs in Jinja's immutable sandbox, without access to
Python's internals, and a failure is the request's error, never the worker's.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

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
            self._template = environment.from_string(source or CHATML)
        except (TemplateError, RecursionError) as error:
            raise ChatTemplateError(f"the model's chat template is not valid Jinja: {error}") from error
        self._special = {"bos_token": bos, "eos_token": eos}

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt for these messages, ending where the assistant's answer begins."""
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._special)
        except Exception as error:
            raise ChatTemplateError(f"the model's chat template refused these messages: {error}") from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
