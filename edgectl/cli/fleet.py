"""`edgectl fleet`: what would be, for all devices at once."""

from pathlib import Path
from typing import Any

import typer

from edgectl.cli.options import ManifestFile, Output, Select, form_of, settings_of
from edgectl.cli.output import Column, Form, bars, emit_json, say, show_table, talk

app = typer.Typer(no_args_is_help=True, help="See what a manifest comes to for the whole fleet.")

SHOWN = 20
_GROUPS = (
    Column("model", "MODEL"),
    Column("file", "FILE"),
    Column("quantization", "QUANTIZATION"),
    Column("place", "PLACED IN"),
    Column("context", "CONTEXT"),
    Column("kv_type", "KV TYPE"),
    Column("devices", "DEVICES", "count"),
    Column("digest", "DIGEST", "digest", wide=True),
)
_REFUSED = (
    Column("device", "DEVICE"),
    Column("model", "MODEL"),
    Column("missing", "MISSING"),
    Column("context", "OR CONTEXT"),
    Column("quantization", "OR QUANTIZATION"),
    Column("reason", "REASON", wide=True),
)
_PLACES = {"gpu": "GPU", "gpus": "several GPUs", "split": "GPU and RAM", "ram": "RAM"}


@app.callback()
def fleet() -> None:
    """See what a manifest comes to for the whole fleet."""


@app.command()
def fit(ctx: typer.Context, file: ManifestFile, selector: Select = None, output: Output = None) -> None:
    """Say how many devices would get which candidate of a manifest, and what each refused one lacks.

    Goes by what the inventory knows, and asks no device: free memory is as it was last told. A device that is
    refused is told the least that would change it: less context than the manifest's least, a smaller quantization
    of the same models, or the memory that is missing. Twenty of them are listed, with -o wide all.

    Ends with 0 when every device can have what the manifest says, 1 when some are refused, 3 when of some nothing
    is known and none is refused.
    """
    from edgectl import ladders
    from edgectl.cli.counting import counted
    from edgectl.fit.fleet_fit import fleet_fit
    from edgectl.inventory.repository import Repository
    from edgectl.manifest import load
    from edgectl.planning import requested, selected

    path = Path(file)
    manifest = load(path)
    with Repository(settings_of(ctx).database) as repository:
        devices = selected(repository.devices(), manifest.devices)
        if selector is not None:
            devices = selected(devices, selector)
        holding, margins = repository.holding(), repository.margins()
    with bars() as progress:
        resolved = ladders.resolve(manifest, path.parent, progress.update)
    found = fleet_fit(
        counted(devices, "placing devices"),
        requested(manifest, resolved),
        holding=holding,
        margins=margins,
        strategy=manifest.rollout.strategy,
    )
    names = [model.name for model in manifest.models]
    form = form_of(ctx, output)
    if form is Form.JSON:
        emit_json(
            {
                "manifest": manifest.name,
                "devices": found.devices,
                "placed": found.placed,
                "refused": found.refused_devices,
                "unknown": len(found.unknown),
                "models": [
                    {
                        "name": name,
                        "candidates": [
                            group.as_dict() for group in found.groups if group.choice.model == name
                        ],
                        "refused": sum(refused.model == name for refused in found.refused),
                    }
                    for name in names
                ],
                "refusals": [refused.as_dict() for refused in found.refused],
                "unknown_devices": list(found.unknown),
                "warnings": list(resolved.warnings),
            }
        )
    else:
        _show(manifest.name, found, wide=form is Form.WIDE)
        for warning in resolved.warnings:
            talk(f"warning: {warning}")
    raise typer.Exit(1 if found.refused else 3 if found.unknown else 0)


def _show(name: str, found: Any, *, wide: bool) -> None:
    say(
        f"{name}: {found.placed:,} of {found.devices:,} devices can have it, {found.refused_devices:,} refused, "
        f"{len(found.unknown):,} unknown"
    )
    if found.groups:
        show_table([_group_row(group) for group in found.groups], _GROUPS, wide=wide)
    if found.refused:
        shown = found.refused if wide else found.refused[:SHOWN]
        say("refused, and what would be enough instead:")
        show_table([_refused_row(refused) for refused in shown], _REFUSED, wide=wide)
        if len(found.refused) > len(shown):
            say(f"and {len(found.refused) - len(shown):,} more: -o wide lists all")
        if not wide:
            first = found.refused[0]
            say(f"{first.device}: {f'{first.model}: ' if first.model else ''}{first.reason}")
    if found.unknown:
        listed = ", ".join(found.unknown[:SHOWN])
        more = f" and {len(found.unknown) - SHOWN:,} more" if len(found.unknown) > SHOWN else ""
        say(f"nothing is known of: {listed}{more}; ask them with: edgectl status --refresh")


def _group_row(group: Any) -> dict[str, Any]:
    choice = group.choice
    return {
        "model": choice.model,
        "file": choice.file,
        "quantization": choice.quantization,
        "place": _PLACES[choice.stage] + (", on demand" if choice.on_demand else ""),
        "context": f"{group.least}" if group.least == group.most else f"{group.least} to {group.most}",
        "kv_type": choice.kv_type,
        "devices": group.devices,
        "digest": choice.digest,
    }


def _refused_row(refused: Any) -> dict[str, Any]:
    from edgectl.sizes import format_size

    upgrade = refused.upgrade
    less, smaller, missing = upgrade.context, upgrade.quantization, upgrade.missing
    return {
        "device": refused.device,
        "model": refused.model,
        "missing": missing
        and f"{format_size(missing.size)} of {missing.memory.upper()} ({missing.candidate})",
        "context": less and f"{less.context} ({less.candidate})",
        "quantization": smaller
        and f"{smaller.file_type}, {smaller.bits_per_weight:.1f} bits ({smaller.candidate})",
        "reason": refused.reason,
    }
