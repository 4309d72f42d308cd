"""`/v1/completions`: a text that is gone on with. PURE."""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from agent_daemon.contract.release import ServedModel
from agent_daemon.gateway.requests import answer_format
from agent_daemon.gateway.requests.answer_format import ResponseFormat
from agent_daemon.gateway.requests.body import TokenId, never, refuse
from agent_daemon.gateway.requests.sampling_fields import GenerationFields
from agent_daemon.worker_messages import Constraint, Generate

_LENGTH = 16
"""Tokens of an answer where neither the request nor the manifest says: OpenAI's own default here."""

Ids = Annotated[list[TokenId], Field(min_length=1)]


def _one(prompt: Any) -> Any:
    if isinstance(prompt, list) and len(prompt) != 1 and not (prompt and isinstance(prompt[0], int)):
        refuse("it has to be one prompt: a text, a list of one text, or token ids")
    return prompt


class CompletionBody(GenerationFields):
    prompt: Annotated[
        str
        | Annotated[list[str], Field(min_length=1, max_length=1)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=1)],
        BeforeValidator(_one),
    ]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    response_format: ResponseFormat | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Annotated[None, never("answers that are filled in before a suffix are not served")] = None

    def check(self) -> None:
        _ = self.constraint

    @cached_property
    def constraint(self) -> Constraint | None:
        return answer_format.of_chat(self.response_format, self.grammar)

    def generate(self, model: ServedModel) -> Generate:
        """The worker's request."""
        return Generate(
            id=0,
            prompt=self._prompt(),
            constraint=self.constraint,
            sampling=self.sampling(model.sampling),
            logit_bias=self.bias(),
            logprobs=self.logprobs,
            max_tokens=self.max_tokens or model.sampling.max_tokens or _LENGTH,
            stop=self.stops(),
        )

    def _prompt(self) -> str | tuple[int, ...]:
        prompt: Any = self.prompt
        if isinstance(prompt, list) and not isinstance(prompt[0], int):
            prompt = prompt[0]
        return prompt if isinstance(prompt, str) else tuple(prompt)
