"""What every body has, and how one is read. Unknown fields are ignored, as OpenAI's clients add new ones; a known
one that would change the answer and cannot be honoured is refused, by name. PURE."""

from collections.abc import Iterator
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from agent_daemon.gateway.errors import ApiError, invalid

LEVELS = 64
"""How deep JSON of the client's own making may be nested: deeper than any schema that people write, and shallow
enough for every parser on its way."""
VALUES = 20_000
"""How many values it may hold."""
_REFUSED = "refused"


def refuse(message: str) -> NoReturn:
    """Ends a validator with a sentence of our own instead of one of pydantic's."""
    raise PydanticCustomError(_REFUSED, "{sentence}", {"sentence": message})


def never(message: str) -> BeforeValidator:
    """For a known field that cannot be honoured: it may be null, and anything else is refused with the sentence."""

    def check(value: Any) -> Any:
        if value is not None:
            refuse(message)
        return value

    return BeforeValidator(check)


def bounded(value: dict[str, Any]) -> dict[str, Any]:
    """The object itself. Raises PydanticCustomError when it is nested too deeply, too big, or has numbers that
    JSON does not know."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    seen = 0
    while waiting:
        each, level = waiting.pop()
        seen += 1
        if seen > VALUES:
            refuse(f"it may hold {VALUES} values at most")
        if isinstance(each, dict | list):
            if level > LEVELS:
                refuse(f"it may be nested {LEVELS} levels deep at most")
            inner = each.values() if isinstance(each, dict) else each
            waiting.extend((one, level + 1) for one in inner)
        elif isinstance(each, float) and not -1e308 <= each <= 1e308:
            refuse("a number in it is not finite")
        elif isinstance(each, int) and abs(each) >= 2**63:
            refuse("a whole number in it has more than 64 bits")
    return value


Json = Annotated[dict[str, Any], AfterValidator(bounded)]
"""A JSON object of the client's own making: a schema, variables for a template."""
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class Form(BaseModel):
    """A body, or a part of one."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    def check(self) -> None:
        """Raises ApiError 400 for what contradicts itself: what no single field is to blame for."""


class Body(Form):
    """A whole body, which names the model that it is for."""

    model: Annotated[str, Field(max_length=256)]


AnyBody = TypeVar("AnyBody", bound=Form)


def parse(form: type[AnyBody], data: bytes) -> AnyBody:
    """The body as a form. Raises ApiError 400 naming the field that is wrong and what was expected."""
    try:
        body = form.model_validate_json(data)
    except ValidationError as error:
        raise _explain(error, data) from None
    body.check()
    return body


def parsed_object(text: str) -> dict[str, Any] | None:
    """The JSON object in a text; None when it is none, or is past the bounds of `bounded`."""
    try:
        value = from_json(text)
        return bounded(value) if isinstance(value, dict) else None
    except ValueError:
        return None


def _explain(error: ValidationError, data: bytes) -> ApiError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return invalid(f"the body is not a request: {found[0]['msg']}")
    body = from_json(data)
    paths = [".".join(_path(one, body)) for one in found]
    # Of a field that may be one thing or another, pydantic tells what is wrong with each. Ours says it best, then
    # whatever got furthest into the body; all that is said of that place is told.
    rank = [(one["type"] == _REFUSED, path.count(".")) for one, path in zip(found, paths, strict=True)]
    best = rank.index(max(rank))
    path = paths[best]
    said = dict.fromkeys(
        one["msg"]
        for one, where, ranked in zip(found, paths, rank, strict=True)
        if where == path and ranked == rank[best]
    )
    message = " or ".join(said)
    return invalid(f"{path}: {message}" if path else f"the body is not a request: {message}", path or None)


def _path(error: ErrorDetails, body: Any) -> Iterator[str]:
    """Where in the body an error is: its location without pydantic's names for the branches that it tried."""
    here = body
    for part in error["loc"]:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            if error["type"] != "missing" or part != error["loc"][-1]:
                continue
        yield str(part)
