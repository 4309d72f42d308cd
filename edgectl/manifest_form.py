"""The manifest as people write it: which keys there are, and what each may hold.

This is the form only; `edgectl.manifest` turns it into the values that the rest works with. Its JSON Schema
is the one that `edgectl manifest schema` prints, so every rule that a schema can state stands here as one.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
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
    Task,
)
from edgectl import selector
from edgectl.errors import UsageError
from edgectl.form_values import Duration, Form, duration_schema, expects
from edgectl.rollout_form import BudgetForm, BudgetsForm, HooksForm, RolloutForm

MIN_CONTEXT = 256
MAX_CONTEXT = 16 * 1024 * 1024
DEFAULT_MIN_CONTEXT = 2048
DEFAULT_CONTEXT = 8192
MAX_ADAPTERS = 32
MAX_SPEED = 10_000

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
SOURCE_PATTERN = r"^(hf://[^/\s]+/[^/\s]+(/.+)?|file:.+|pkg:[A-Za-z_][A-Za-z0-9_]*/.+)$"


def _selector(text: str) -> str:
    try:
        return str(selector.parse(text))
    except UsageError as error:
        raise PydanticCustomError("stated", "{what}", {"what": error.message}) from None


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
        duration_schema({"exclusiveMinimum": 0, "maximum": 86400}),
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
        Field(max_length=MAX_ADAPTERS, default_factory=dict),
    ]
    limits: LimitsForm = LimitsForm()
    pinned: bool = False
    idle_ttl: (
        Annotated[
            Duration,
            Field(gt=0, le=30 * 86400),
            expects("a duration of more than 0 and at most 720h, in seconds or as text such as 10m"),
            duration_schema({"exclusiveMinimum": 0, "maximum": 30 * 86400}),
        ]
        | None
    ) = None


class ProbeForm(Probe):
    """The device's own check before it commits; durations in seconds or as text such as 90s or 2m."""

    min_healthy: Annotated[
        Duration,
        Field(ge=0, le=3600),
        expects("a duration from 0 to 1h, in seconds or as text such as 10s"),
        duration_schema({"minimum": 0, "maximum": 3600}),
    ] = 3.0
    timeout: Annotated[
        Duration,
        Field(gt=0, le=3600),
        expects("a duration of more than 0 and at most 1h, in seconds or as text such as 2m"),
        duration_schema({"exclusiveMinimum": 0, "maximum": 3600}),
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
    hooks: HooksForm = HooksForm()
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
        "rollout.budgets": BudgetsForm,
        "rollout.budgets.*": BudgetForm,
        "hooks": HooksForm,
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
