"""The manifest as people write it: which keys there are, and what each may hold.

This is the form only; `edgectl.manifest` turns it into the values that the rest works with. Its JSON Schema
is the one that `edgectl manifest schema` prints, so every rule that a schema can state stands here as one.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from agent_daemon.contract.release import (
    Access,
    AdapterName,
    KvType,
    Limits,
    ModelName,
    Probe,
    Sampling,
    Strategy,
    Task,
)
from edgectl import selector
from edgectl.errors import UsageError

MIN_CONTEXT = 256
MAX_CONTEXT = 16 * 1024 * 1024
DEFAULT_MIN_CONTEXT = 2048
DEFAULT_CONTEXT = 8192
MAX_ADAPTERS = 32
MAX_SPEED = 10_000

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
SOURCE_PATTERN = r"^(hf://[^/\s]+/[^/\s]+(/.+)?|file:.+|pkg:[A-Za-z_][A-Za-z0-9_]*/.+)$"
DURATION_PATTERN = r"^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$"

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")


def expects(what: str) -> WrapValidator:
    """Say in one phrase what a field holds, whichever of its rules was broken."""

    def check(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("expected", "expected {what}", {"what": what}) from None

    return WrapValidator(check)


def _selector(text: str) -> str:
    try:
        return str(selector.parse(text))
    except UsageError as error:
        raise PydanticCustomError("stated", "{what}", {"what": error.message}) from None


def seconds(value: Any) -> Any:
    """`90`, `90s`, `1m30s`, `500ms` in seconds; anything else is left for the field's type to refuse."""
    if not isinstance(value, str) or len(value) > 40 or not re.fullmatch(DURATION_PATTERN, value):
        return value
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(value))


def _duration_schema(limit: dict[str, float]) -> WithJsonSchema:
    text = {"type": "string", "pattern": DURATION_PATTERN, "maxLength": 40}
    return WithJsonSchema({"anyOf": [{"type": "number", **limit}, text]})


def _one_value(value: Any) -> Any:
    """A context written as one number asks for exactly that."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"min": value, "want": value}
    if not isinstance(value, dict):
        what = "a whole number of tokens, or a mapping with min and want"
        raise PydanticCustomError("expected", "expected {what}", {"what": what})
    return value


def _one_source(value: Any) -> Any:
    if isinstance(value, str):
        return {"source": value}
    if not isinstance(value, dict):
        what = "a model reference, or a mapping with source"
        raise PydanticCustomError("expected", "expected {what}", {"what": what})
    return value


class Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Tokens = Annotated[
    int,
    Field(ge=MIN_CONTEXT, le=MAX_CONTEXT),
    expects(f"a whole number of tokens of at least {MIN_CONTEXT}"),
]
Source = Annotated[
    str,
    Field(pattern=SOURCE_PATTERN, max_length=1024),
    expects("a model reference: hf://org/repo[@revision][/file or glob], file:PATH or pkg:import_name/path"),
]
Duration = Annotated[float, BeforeValidator(seconds)]
"""Seconds; what a field allows of them is the field's own."""
KvChoice = Literal[KvType, "auto"]
"""A type of the KV cache; `auto` is f16, and q8_0 where that does not fit."""
GpuLayers = Literal["auto", "all", "partial"] | Annotated[int, Field(ge=0, le=10_000)]


class ContextForm(Form):
    """Tokens of each sequence: the least that is of use, and what is wanted where it fits."""

    min: Tokens | None = None
    want: Tokens | None = None


class CandidateForm(Form):
    """One rung of a ladder."""

    source: Source


class AdapterForm(Form):
    """A LoRA adapter of a model; `scale` is its strength, 1 as trained."""

    source: Source
    scale: Annotated[float, Field(gt=0, le=10), expects("a number of more than 0 and at most 10")] = 1.0


class LimitsForm(Limits):
    """What may wait for a model, and for how long; a duration in seconds or as text such as 90s or 2m."""

    request_timeout: Annotated[
        Duration,
        Field(gt=0, le=86400),
        expects("a duration of more than 0 and at most 24h, in seconds or as text such as 2m"),
        _duration_schema({"exclusiveMinimum": 0, "maximum": 86400}),
    ] = 600.0


class ModelForm(Form):
    """One served model. Exactly one of `source` and `candidates`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["source"], "properties": {"source": {"type": "string"}}},
                {"required": ["candidates"], "properties": {"candidates": {"type": "array"}}},
            ]
        }
    )

    source: Source | None = None
    candidates: (
        Annotated[
            tuple[
                Annotated[
                    CandidateForm,
                    BeforeValidator(_one_source, json_schema_input_type=Source | CandidateForm),
                ],
                ...,
            ],
            Field(min_length=1, max_length=100),
        ]
        | None
    ) = None
    task: Task = "chat"
    order: Literal["quality", "listed"] = "quality"
    context: Annotated[
        ContextForm,
        BeforeValidator(_one_value, json_schema_input_type=Tokens | ContextForm),
    ] = ContextForm()
    parallel: Annotated[int, Field(ge=1, le=256), expects("a whole number of sequences from 1 to 256")] = 1
    cache: Tokens | None = None
    kv_type: KvChoice = "f16"
    gpu_layers: Annotated[GpuLayers, expects("auto, all, partial or a whole number of layers")] = "auto"
    min_tokens_per_second: (
        Annotated[
            float,
            Field(gt=0, le=MAX_SPEED),
            expects(f"a number of tokens a second of more than 0 and at most {MAX_SPEED}"),
        ]
        | None
    ) = None
    sampling: Sampling = Sampling()
    system_prompt: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None
    adapters: Annotated[
        dict[
            AdapterName,
            Annotated[AdapterForm, BeforeValidator(_one_source, json_schema_input_type=Source | AdapterForm)],
        ],
        Field(max_length=MAX_ADAPTERS),
    ] = {}
    limits: LimitsForm = LimitsForm()
    pinned: bool = False
    idle_ttl: (
        Annotated[
            Duration,
            Field(gt=0, le=30 * 86400),
            expects("a duration of more than 0 and at most 720h, in seconds or as text such as 10m"),
            _duration_schema({"exclusiveMinimum": 0, "maximum": 30 * 86400}),
        ]
        | None
    ) = None


class RolloutForm(Form):
    """How a release spreads: devices at once, and after how many failed ones it stops."""

    strategy: Strategy = Strategy.AUTO
    max_parallel: Annotated[int, Field(ge=1, le=1000), expects("a number of devices from 1 to 1000")] = 8
    max_failures: Annotated[int, Field(ge=0), expects("a number of devices, 0 or more")] = 0


class ProbeForm(Probe):
    """The device's own check before it commits; durations in seconds or as text such as 90s or 2m."""

    min_healthy: Annotated[
        Duration,
        Field(ge=0, le=3600),
        expects("a duration from 0 to 1h, in seconds or as text such as 10s"),
        _duration_schema({"minimum": 0, "maximum": 3600}),
    ] = 3.0
    timeout: Annotated[
        Duration,
        Field(gt=0, le=3600),
        expects("a duration of more than 0 and at most 1h, in seconds or as text such as 2m"),
        _duration_schema({"exclusiveMinimum": 0, "maximum": 3600}),
    ] = 120.0


class ManifestForm(Form):
    """Which models a group of devices serves."""

    version: Annotated[Literal[1], expects("1")]
    name: Annotated[
        str,
        Field(pattern=NAME_PATTERN),
        expects("a name of up to 63 lower-case letters, digits and hyphens, such as office-chat"),
    ]
    devices: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_selector)]
    models: Annotated[dict[ModelName, ModelForm], Field(min_length=1, max_length=64)]
    rollout: RolloutForm = RolloutForm()
    probe: ProbeForm = ProbeForm()
    access: Access = Access()


def known_keys(path: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys that the form has at a path; none where people choose them."""
    forms: dict[str, type[BaseModel]] = {
        "": ManifestForm,
        "models.*": ModelForm,
        "models.*.context": ContextForm,
        "models.*.candidates.*": CandidateForm,
        "models.*.adapters.*": AdapterForm,
        "models.*.limits": LimitsForm,
        "models.*.sampling": Sampling,
        "rollout": RolloutForm,
        "probe": ProbeForm,
        "access": Access,
    }
    for shape, form in forms.items():
        parts = shape.split(".") if shape else []
        if len(parts) == len(path) and all(part in ("*", key) for part, key in zip(parts, path, strict=True)):
            return tuple(form.model_fields)
    return ()


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a manifest."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= ManifestForm.model_json_schema()
    schema["title"] = "edgectl manifest"
    schema["patternProperties"] = {"^x-": {}}
    named = (schema["properties"]["models"], schema["$defs"]["ModelForm"]["properties"]["adapters"])
    for mapping in named:
        mapping["additionalProperties"] = False
    return schema
