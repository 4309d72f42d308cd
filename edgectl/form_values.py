"""What the keys of a manifest have in common: how a form refuses, and how durations are written."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

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


def seconds(value: Any) -> Any:
    """`90`, `90s`, `1m30s`, `500ms` in seconds; anything else is left for the field's type to refuse."""
    if not isinstance(value, str) or len(value) > 40 or not re.fullmatch(DURATION_PATTERN, value):
        return value
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(value))


def duration_schema(limit: dict[str, float]) -> WithJsonSchema:
    text = {"type": "string", "pattern": DURATION_PATTERN, "maxLength": 40}
    return WithJsonSchema({"anyOf": [{"type": "number", **limit}, text]})


class Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Duration = Annotated[float, BeforeValidator(seconds)]
"""Seconds; what a field allows of them is the field's own."""
