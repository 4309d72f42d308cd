"""The keys of a manifest about how a release spreads: `rollout` and `hooks`, as people write them."""

import re
import shlex
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from agent_daemon.contract import sizes
from agent_daemon.contract.release import Strategy
from edgectl import selector
from edgectl.form_values import Duration, Form, duration_schema, expects
from edgectl.rollouts.policy import DEFAULT_DEADLINE, Amount, OnHalt

MAX_DEVICES = 1_000_000
MIN_RATE = 1024
PERCENT_PATTERN = r"^(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)%$"
SOME_PERCENT_PATTERN = rf"^(?!0+(\.0+)?%){PERCENT_PATTERN[1:]}"
SIZE_PATTERN = r"^\s*[0-9]{1,18}(\.[0-9]{1,9})?\s*([kKmMgGtT]([iI]?[bB])?|[bB])?\s*$"
SOME_RULE = "a number of devices of at least 1, or a percent above 0 such as 5%"
BOUND_RULE = "a number of devices, a percent such as 5%, or any"


def _amount_schema(least: int, percent: str) -> dict[str, Any]:
    count = {"type": "integer", "minimum": least, "maximum": MAX_DEVICES}
    return {"anyOf": [count, {"type": "string", "pattern": percent, "maxLength": 20}]}


def _amount(value: Any) -> Amount | None:
    """`8` and `5%`; None for anything else."""
    if isinstance(value, Amount):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_DEVICES:
        return Amount(count=value)
    if isinstance(value, str) and len(value) <= 20 and re.fullmatch(PERCENT_PATTERN, value):
        return Amount.from_json(value)
    return None


def _some(value: Any) -> Amount:
    amount = _amount(value)
    if amount is None or amount.of(1) == 0:
        raise PydanticCustomError("expected", "expected {what}", {"what": SOME_RULE})
    return amount


def _bound(value: Any) -> Amount | None:
    amount = _amount(value)
    if amount is None and value != "any":
        raise PydanticCustomError("expected", "expected {what}", {"what": BOUND_RULE})
    return amount


def _one_budget(value: Any) -> Any:
    """A budget written as one amount is the bound, judged from the first device on."""
    if isinstance(value, dict | BudgetForm):
        return value
    if _amount(value) is None and value != "any":
        what = f"{BOUND_RULE}, or a mapping with most and after"
        raise PydanticCustomError("expected", "expected {what}", {"what": what})
    return {"most": value}


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _bytes(value: Any) -> Any:
    try:
        return sizes.parse_size(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _arguments(value: Any) -> Any:
    """A command written as text, as a shell would split it (and nothing else that a shell does)."""
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return tuple(words) if isinstance(words, list) else words


def _written(amount: Amount | None) -> int | str:
    return "any" if amount is None else amount.to_json()


_SOME_SCHEMA = _amount_schema(1, SOME_PERCENT_PATTERN)
_BOUND_SCHEMA = {"anyOf": [{"const": "any"}, *_amount_schema(0, PERCENT_PATTERN)["anyOf"]]}
_AS_WRITTEN = PlainSerializer(_written, return_type=int | str)
Some = Annotated[Amount, PlainValidator(_some), _AS_WRITTEN, WithJsonSchema(_SOME_SCHEMA)]
Bounded = Annotated[Amount | None, PlainValidator(_bound), _AS_WRITTEN, WithJsonSchema(_BOUND_SCHEMA)]
LabelKey = Annotated[str, Field(pattern=f"^{selector.KEY_PATTERN}$")]
Command = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...],
    Field(min_length=1, max_length=100),
    BeforeValidator(_arguments, json_schema_input_type=str | tuple[str, ...]),
    expects("a command: text with closed quotes, or a list of arguments that is not empty"),
]


class BudgetForm(Form):
    """More devices of an outcome than `most` halt a rollout, once `after` devices have ended."""

    most: Bounded = Amount(count=0)
    after: Annotated[int, Field(ge=1, le=MAX_DEVICES), expects("a number of devices of at least 1")] = 1


BudgetChoice = Annotated[
    BudgetForm, BeforeValidator(_one_budget, json_schema_input_type=Bounded | BudgetForm)
]


ANY_NUMBER = BudgetForm.model_validate({"most": "any"})


class BudgetsForm(Form):
    """How much of each outcome a rollout bears."""

    reverted: BudgetChoice = BudgetForm()
    failed_unchanged: BudgetChoice = BudgetForm()
    refused: BudgetChoice = ANY_NUMBER
    unreachable: BudgetChoice = ANY_NUMBER


class RolloutForm(Form):
    """How a release spreads: in which order, how many devices at once, and what makes it stop."""

    strategy: Strategy = Strategy.AUTO
    canary: Some | None = None
    max_unavailable: Some = Amount(count=8)
    order_by: Annotated[
        tuple[LabelKey, ...],
        Field(max_length=8),
        BeforeValidator(_listed, json_schema_input_type=LabelKey | tuple[LabelKey, ...]),
        expects("a label such as ring, or a list of at most 8 of them"),
    ] = ()
    pause_after_canary: bool = False
    budgets: BudgetsForm = BudgetsForm()
    on_halt: OnHalt = OnHalt.HOLD
    progress_deadline: Annotated[
        Duration,
        Field(gt=0, le=7 * 86400),
        expects("a duration of more than 0 and at most 168h, in seconds or as text such as 10m"),
        duration_schema({"exclusiveMinimum": 0, "maximum": 7 * 86400}),
    ] = DEFAULT_DEADLINE
    min_healthy: Annotated[
        Duration,
        Field(ge=0, le=7 * 86400),
        expects("a duration from 0 to 168h, in seconds or as text such as 5m"),
        duration_schema({"minimum": 0, "maximum": 7 * 86400}),
    ] = 0.0
    limit_rate: (
        Annotated[
            int,
            BeforeValidator(_bytes),
            Field(ge=MIN_RATE),
            expects("bytes a second of at least 1KiB, as a number or a size such as 20MiB"),
            WithJsonSchema(
                {
                    "anyOf": [
                        {"type": "integer", "minimum": MIN_RATE},
                        {"type": "string", "pattern": SIZE_PATTERN},
                    ]
                }
            ),
        ]
        | None
    ) = None
    prune: bool = False
    swarm: Annotated[LabelKey, expects("the name of a label, such as site")] | None = None


class HooksForm(Form):
    """Commands on the control machine, each as text or as a list of arguments."""

    pre_deploy: Command | None = None
    post_deploy: Command | None = None
    on_failure: Command | None = None
