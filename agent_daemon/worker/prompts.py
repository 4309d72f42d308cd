"""From a request to the tokens of its prompt, and to what its answer has to look like."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from agent_daemon.worker.chat import ChatTemplate, ChatTemplateError
from agent_daemon.worker.form import Structure, StructureError
from agent_daemon.worker.model import Model
from agent_daemon.worker_messages import Generate, RefusalCode, Refused, Tokenize, Tool


class RequestRefused(Exception):
    """The request cannot be answered; `code`, the message and `param` are for its client."""

    def __init__(self, code: RefusalCode, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param

    def event(self, request: int) -> Refused:
        return Refused(id=request, code=self.code, message=str(self), param=self.param)


class Prompts:
    """Reads requests for `model`. Every method raises RequestRefused."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @cached_property
    def template(self) -> ChatTemplate:
        """Compiled at the first chat; raises ChatTemplateError when the file's own is not valid."""
        return ChatTemplate(self._model.chat_template, self._model.bos_text, self._model.eos_text)

    @property
    def declares_tools(self) -> bool:
        """Whether the model's template knows tools; a broken one knows nothing."""
        try:
            return self.template.declares_tools
        except ChatTemplateError:
            return False

    def structure(self, request: Generate) -> Structure:
        """What the answer has to look like, and how its text is read."""
        if not request.tools and request.constraint is None:
            return Structure()
        # Grammars are imported by those who ask for one.
        from agent_daemon.worker.structure import structure

        try:
            return structure(request, self.template if request.tools else None)
        except StructureError as error:
            raise RequestRefused("invalid_request", str(error), error.param) from None
        except ChatTemplateError as error:
            raise RequestRefused("invalid_prompt", str(error), "messages") from None

    def tokens(self, request: Generate) -> list[int]:
        """The prompt; it leaves room for at least one token of an answer."""
        if isinstance(request.prompt, tuple):
            tokens = self._known(request.prompt)
        else:
            text = self._text(request)
            # Splitting megabytes into tokens takes seconds, in which no running answer would go on.
            least = self._model.fewest_tokens(text)
            if least >= self._model.context_limit:
                raise self._too_long(f"at least {least}")
            tokens = self._model.tokenize(text)
        if not tokens:
            raise RequestRefused("invalid_prompt", "the prompt has no tokens")
        if len(tokens) >= self._model.context_limit:
            raise self._too_long(str(len(tokens)))
        return tokens

    def split(self, request: Tokenize) -> list[int]:
        """Token ids of a text or a chat, however many."""
        if request.messages is not None:
            text = self._render(request.messages, request.tools, {})
            return self._model.tokenize(text)
        return self._model.tokenize(request.text or "", request.add_special)

    def _text(self, request: Generate) -> str:
        if request.messages is None:
            assert not isinstance(request.prompt, tuple)
            return request.prompt or ""
        tools = () if request.tool_choice == "none" else request.tools
        return self._render(request.messages, tools, request.template_arguments)

    def _render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool], arguments: Mapping[str, Any]
    ) -> str:
        try:
            text = self.template.render(messages, tuple(tool.raw for tool in tools), arguments)
        except ChatTemplateError as error:
            raise RequestRefused("invalid_prompt", str(error), "messages") from None
        if self._model.begins_with_bos and self._model.bos_text:
            # The tokenizer adds it as well, and two of them make answers worse without any error.
            text = text.removeprefix(self._model.bos_text)
        return text

    def _known(self, tokens: tuple[int, ...]) -> list[int]:
        if wrong := [each for each in tokens if not 0 <= each < self._model.vocab_size]:
            message = f"there is no token {wrong[0]}; this model has {self._model.vocab_size}, counted from 0"
            raise RequestRefused("invalid_prompt", message, "prompt")
        return list(tokens)

    def _too_long(self, tokens: str) -> RequestRefused:
        return RequestRefused(
            "context_length_exceeded",
            f"the prompt has {tokens} tokens; this model serves a context of "
            f"{self._model.context_limit} tokens, and at least one has to be left for the answer",
        )
