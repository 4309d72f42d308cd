"""From the body of an OpenAI request to what a worker understands. Unknown fields are ignored, as OpenAI's
clients add new ones; a known one that would change the answer and cannot be honoured is refused. PURE."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_daemon.contract.release import Sampling, ServedModel
from agent_daemon.gateway.errors import ApiError, invalid
from agent_daemon.worker_messages import Generate


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Generation(_Body):
    stream: bool = False
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.5, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False, 0] | None = None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, defaults: Sampling) -> Sampling:
        """The served model's defaults with what this request says instead."""
        said = {
            name: value
            for name in ("temperature", "top_p", "top_k", "min_p", "repeat_penalty")
            if (value := getattr(self, name)) is not None
        }
        if self.seed is not None:
            # OpenAI allows any integer; the sampler takes 32 bits.
            said["seed"] = self.seed % 2**32
        return defaults.model_copy(update=said)

    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class _TextPart(BaseModel):
    type: Literal["text"]
    text: str


class _ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: str | list[_TextPart] | None = None

    def plain(self) -> dict[str, Any]:
        """Content as one text: what chat templates expect."""
        parts = self.content
        text = "".join(part.text for part in parts) if isinstance(parts, list) else parts
        return {"role": self.role, "content": text or ""}


class ChatBody(_Generation):
    messages: Annotated[list[_ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None

    def generate(self, model: ServedModel) -> Generate:
        """The worker's request, with the manifest's system prompt where the client sent none."""
        if self.response_format and self.response_format.get("type", "text") != "text":
            raise invalid("this version answers in free text only; remove response_format", "response_format")
        if self.tools:
            raise invalid("this version does not call tools; remove tools", "tools")
        messages = [message.plain() for message in self.messages]
        if model.system_prompt and not any(message["role"] == "system" for message in messages):
            messages.insert(0, {"role": "system", "content": model.system_prompt})
        return Generate(
            id=0,
            messages=tuple(messages),
            sampling=self.sampling(model.sampling),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            stop=self.stops(),
        )


class CompletionBody(_Generation):
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]

    def generate(self, model: ServedModel) -> Generate:
        prompt = self.prompt if isinstance(self.prompt, str) else self.prompt[0]
        return Generate(
            id=0,
            prompt=prompt,
            sampling=self.sampling(model.sampling),
            # OpenAI's own default for this older endpoint.
            max_tokens=self.max_tokens or model.sampling.max_tokens or 16,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            stop=self.stops(),
        )


class EmbeddingsBody(_Body):
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"

    def inputs(self) -> tuple[str, ...]:
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)


Form = TypeVar("Form", bound=_Body)


def parse(form: type[Form], data: bytes) -> Form:
    """The body as a form. Raises ApiError 400 naming the first field that is wrong and what was expected."""
    try:
        return form.model_validate_json(data)
    except ValidationError as error:
        raise _explain(error) from None


def _explain(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    return invalid(
        f"{path}: {first['msg']}" if path else f"the body is not a request: {first['msg']}", path or None
    )
