"""`edgectl usage`: requests, tokens and times by model, adapter, API key, device, release or day."""

import re
import time
from enum import StrEnum
from typing import Annotated

import typer

from edgectl.cli.options import Output, form_of, settings_of
from edgectl.cli.output import Column, Form, emit, say
from edgectl.errors import UsageError

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class By(StrEnum):
    """What usage is added up by."""

    MODEL = "model"
    ADAPTER = "adapter"
    KEY = "key"
    DEVICE = "device"
    RELEASE = "release"
    DAY = "day"


def usage(
    ctx: typer.Context,
    by: Annotated[By, typer.Option("--by", help="What to add up by; a day is a day in UTC.")] = By.MODEL,
    since: Annotated[
        str | None, typer.Option(metavar="AGE", help="Only the last 90m, 24h, 7d or 4w.")
    ] = None,
    output: Output = None,
) -> None:
    """Show requests, tokens and times by model, key, device and more.

    P50 and P99 are estimates over all devices: half of the requests, and all but one in a hundred, got their first
    token within that time."""
    from edgectl.inventory import queries

    settings, form = settings_of(ctx), form_of(ctx, output)
    start = None if since is None else time.time() - age_seconds(since)
    with queries.reading(settings.database) as connection:
        rows = queries.usage(connection, by.value, start)
    if not rows and form is not Form.JSON:
        say("no usage reported" + (f" in the last {since}" if since else ""))
        return
    columns = (
        Column(by.value, by.value.upper()),
        Column("requests", "REQUESTS", "count"),
        Column("failures", "FAILED", "count"),
        Column("prompt_tokens", "TOKENS IN", "count"),
        Column("cached_tokens", "CACHED", "count"),
        Column("completion_tokens", "TOKENS OUT", "count"),
        Column("mean_ttft_ms", "FIRST TOKEN", "milliseconds"),
        Column("p50_ttft_ms", "P50", "milliseconds"),
        Column("p99_ttft_ms", "P99", "milliseconds"),
        Column("mean_duration_ms", "DURATION", "milliseconds"),
        Column("mean_queue_ms", "QUEUED", "milliseconds", wide=True),
        Column("p99_queue_ms", "QUEUED P99", "milliseconds", wide=True),
        Column("p50_inter_token_ms", "TOKEN TO TOKEN", "milliseconds", wide=True),
    )
    emit(rows, columns, form)


def age_seconds(text: str) -> int:
    """Seconds of an age such as `90m`, `24h`, `7d`, `4w`. Raises UsageError."""
    match = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if match is None:
        raise UsageError(f"--since {text!r}: expected a number and a unit, such as 90m, 24h, 7d or 4w")
    return int(match[1]) * _UNITS[match[2]]
