"""`edgectl status`: what every device serves and how it is doing."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from edgectl.cli.fleet_report import needing_attention, note, spoken, state_words, summary
from edgectl.cli.options import Output, Select, at_work, form_of, settings_of
from edgectl.cli.output import Column, Form, emit_encoded, say, show_table, talk
from edgectl.errors import Unreachable, UsageError

LARGE_FLEET = 30
"""Rows up to which a table lists every device."""

SHOWN_ATTENTION = 20

COLUMNS = (
    Column("name", "DEVICE"),
    Column("state", "STATE"),
    Column("release", "RELEASE"),
    Column("release_digest", "DIGEST", "digest", wide=True),
    Column("models", "MODELS"),
    Column("memory", "MEMORY"),
    Column("predicted_bytes", "PREDICTED", "bytes", wide=True),
    Column("measured_bytes", "USED", "bytes"),
    Column("requests", "REQUESTS", "count"),
    Column("failures", "FAILED", "count", wide=True),
    Column("prompt_tokens", "TOKENS IN", "count", wide=True),
    Column("completion_tokens", "TOKENS OUT", "count"),
    Column("last_seen", "SEEN", "age"),
    Column("outcome", "LAST OUTCOME", wide=True),
    Column("pending_release", "TO COME", wide=True),
    Column("agent_version", "AGENT", wide=True),
    Column("gpus", "GPU", wide=True),
    Column("note", "NOTE"),
)


def status(
    ctx: typer.Context,
    devices: Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Only these.")] = None,
    output: Output = None,
    selector: Select = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the devices first.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="List every device, however many.")] = False,
) -> None:
    """Show what every device serves and how it is doing.

    A device that did not answer when it was last asked is unreachable, since then; what is shown of it is what it
    said last. With --refresh, ends with 3 when a device could not be reached; without, always with 0.
    """
    from edgectl.inventory import queries

    settings, form = settings_of(ctx), form_of(ctx, output)
    read = queries.device_documents if form is Form.JSON else queries.device_status
    with queries.reading(settings.database) as connection:
        rows = _chosen(read(connection), devices or [], selector)
    unreachable = False
    if refresh and rows:
        names = [row["name"] for row in rows]
        with at_work(ctx) as (couriers, repository):
            from edgectl.collect import collect
            from edgectl.foresight import registered

            chosen = [device for device in registered(settings.database) if device.name in set(names)]
            problems = collect(repository, chosen, couriers)
        for name, problem in problems.items():
            talk(f"{name}: {problem.message}")
            if problem.hint:
                talk(f"  hint: {problem.hint}")
        unreachable = any(isinstance(problem, Unreachable) for problem in problems.values())
        with queries.reading(settings.database) as connection:
            rows = _chosen(read(connection), names, None)
    if form is Form.JSON:
        documents = ",\n".join(row["document"] for row in rows)
        emit_encoded(f'{{"summary": {json.dumps(summary(rows))}, "devices": [{documents}]}}')
    elif len(rows) > LARGE_FLEET and not everything:
        _report(rows, wide=form is Form.WIDE)
    elif rows:
        _list(rows, wide=form is Form.WIDE)
    else:
        say("no devices" if not (devices or selector) else "no device is like that")
    if unreachable:
        raise typer.Exit(Unreachable.exit_code)


def _chosen(rows: list[dict[str, Any]], names: Sequence[str], selector: str | None) -> list[dict[str, Any]]:
    wanted = set(names)
    unknown = sorted(wanted - {row["name"] for row in rows})
    if unknown:
        raise UsageError(
            f"there is no device {unknown[0]!r} in the inventory", "see them with: edgectl status --all"
        )
    if names:
        rows = [row for row in rows if row["name"] in wanted]
    if selector is not None:
        from edgectl.selector import parse

        query = parse(selector)
        rows = [row for row in rows if query.matches(_labels(row), row["name"])]
    return rows


def _labels(row: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = row["labels"] if "labels" in row else json.loads(row["document"])["labels"]
    return labels


def _report(rows: Sequence[Mapping[str, Any]], *, wide: bool) -> None:
    counts = summary(rows)
    say(f"{counts['devices']:,} devices, {counts['attention']:,} need attention")
    say()
    for key, title in (("by_state", "STATE"), ("by_release", "RELEASE")):
        table = [{"what": spoken(what), "devices": count} for what, count in counts[key].items()]
        show_table(table, (Column("what", title), Column("devices", "DEVICES", "count")))
        say()
    urgent = needing_attention(rows)
    if urgent:
        _list(urgent[:SHOWN_ATTENTION], wide=wide)
        left = len(urgent) - SHOWN_ATTENTION
        say(f"… and {left:,} more that need attention" if left > 0 else "")
    say('all of them: --all; some: -l role=desk; any question: edgectl query "select … from device_status"')


def _list(rows: Sequence[Mapping[str, Any]], *, wide: bool) -> None:
    now = time.time()
    shown = [
        {
            **row,
            "state": state_words(row, now),
            "outcome": spoken(row["outcome"]) if row["outcome"] else None,
            "note": note(row),
        }
        for row in rows
    ]
    show_table(shown, COLUMNS, wide=wide)
