"""How an answer is sampled, cut and streamed: the fields that all generating endpoints share. PURE."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator

from agent_daemon.contract.release import Sampling
from agent_daemon.gateway.requests.body import Body, Form, refuse
from agent_daemon.worker_messages import Choosing

_TOKEN_ID = re.compile(r"^(0|[1-9][0-9]{0,9})$")
_STOP_LENGTH = 1000
_SAMPLED = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty"),
    *("frequency_penalty", "presence_penalty"),
)


def _token_ids(value: Any) -> Any:
    if isinstance(value, dict) and not all(
        isinstance(key, str) and _TOKEN_ID.fullmatch(key) and int(key) < 2**31 for key in value
    ):
        refuse("its keys have to be token ids: whole numbers, as text")
    return value


Bias = Annotated[float, Field(ge=-100, le=100)]
TokenIdText = Annotated[str, StringConstraints(pattern=_TOKEN_ID.pattern)]
LogitBias = Annotated[dict[TokenIdText, Bias], Field(max_length=4096), BeforeValidator(_token_ids)]


def _off(value: Any) -> Any:
    return False if value is None else value


Switch = Annotated[bool, BeforeValidator(_off)]
"""Off where nothing is said, which some clients write as null."""


class StreamOptions(Form):
    include_usage: Switch = False


class SamplingFields(Body):
    """The fields that decide which token is next."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.5, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    logit_bias: LogitBias | None = None

    def sampling(self, defaults: Sampling) -> Choosing:
        """The served model's defaults with what this request says instead."""
        said = {name: value for name in _SAMPLED if (value := getattr(self, name)) is not None}
        if self.seed is not None:
            # OpenAI allows any integer; the sampler takes 32 bits.
            said["seed"] = self.seed % 2**32
        return Choosing(**{**dict(defaults), **said})

    def bias(self) -> dict[int, float]:
        """What is added to the logits of single tokens, by their ids."""
        return {int(token): value for token, value in (self.logit_bias or {}).items()}


class GenerationFields(SamplingFields):
    """The rest that chat and text completions share."""

    stream: Switch = False
    stream_options: StreamOptions | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Literal[1] | None = None
    grammar: str | None = None

    @field_validator("stop")
    @classmethod
    def _short_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if any(len(each) > _STOP_LENGTH for each in ((stop,) if isinstance(stop, str) else stop or ())):
            refuse(f"a stop string may have {_STOP_LENGTH} characters at most")
        return stop

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def stops(self) -> tuple[str, ...]:
        """The texts that end the answer; an empty one ends nothing."""
        given = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return tuple(each for each in given if each)
