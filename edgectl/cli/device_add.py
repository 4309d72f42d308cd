"""`edgectl device add`: this machine, a machine reached over SSH, or many of them from the SSH configuration."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgectl.cli.options import Output, form_of, settings_of, transports_of
from edgectl.cli.output import Form, emit_json, talk
from edgectl.errors import UsageError

Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be said several times.")
]


def add(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The device; not with --from-ssh-config.")
    ] = None,
    ssh: Annotated[
        str | None, typer.Option(metavar="[USER@]HOST[:PORT]", help="The device is reached over SSH.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The private key to log in with, for --ssh.")
    ] = None,
    accept_new_host_key: Annotated[
        bool,
        typer.Option(
            "--accept-new-host-key", help="Trust a host key that nobody knew, and keep it in the inventory."
        ),
    ] = False,
    from_ssh_config: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Add every host of the SSH configuration with such a name."),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="The device is this machine.")] = False,
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The state directory of its agent, for --local.")
    ] = None,
    label: Labels = None,
    output: Output = None,
) -> None:
    """Add a device. Over SSH somebody must answer with a known host key and let us in; an agent may come later,
    with `edgectl device bootstrap`. This machine is added by the agent that runs on it.
    """
    from edgectl.fleet import add_local_device, add_ssh_devices
    from edgectl.inventory.repository import Repository
    from edgectl.selector import parse_label
    from edgectl.transport.target import ssh_spec

    ways = [way for way in (ssh, from_ssh_config, local or None) if way is not None]
    if len(ways) != 1 or (name is None) != (from_ssh_config is not None) or local != (state_dir is not None):
        raise UsageError(
            "say which device, and one way to reach it",
            "NAME --ssh user@host, or --from-ssh-config 'lab-*', or for this machine NAME --local --state-dir DIR",
        )
    labels = dict(parse_label(text) for text in label or [])
    key = str(identity.expanduser().absolute()) if identity else None
    with Repository(settings_of(ctx).database) as repository, transports_of(ctx) as transports:
        if state_dir is not None and name is not None:
            device = add_local_device(repository, name, state_dir.expanduser().absolute(), labels)
            _show(ctx, [{"name": name, "labels": labels, "agent_id": device.agent_id}], output)
            return
        if from_ssh_config is not None:
            hosts = transports.ssh.hosts(from_ssh_config)
            if not hosts:
                raise UsageError(
                    f"no host in the SSH configuration is named like {from_ssh_config!r}",
                    "hosts that are patterns themselves do not count; see the Host lines in ~/.ssh/config",
                )
            specs = {host: ssh_spec(host, key) for host in hosts}
        else:
            assert name is not None
            assert ssh is not None
            specs = {name: ssh_spec(ssh, key)}
        rows, worst = [], 0
        for added in add_ssh_devices(repository, specs, labels, transports, accept_new_host_key):
            if isinstance(added.problem, Exception) and len(specs) == 1:
                raise added.problem
            if added.problem is not None:
                talk(f"{added.name}: {added.problem.message}")
                worst = added.problem.exit_code if worst in (0, added.problem.exit_code) else 1
                continue
            rows.append({"name": added.name, "labels": labels, "agent_id": added.agent_id})
    _show(ctx, rows, output)
    raise typer.Exit(worst)


def _show(ctx: typer.Context, rows: list[dict[str, Any]], output: Form | None) -> None:
    if form_of(ctx, output) is Form.JSON:
        emit_json(rows[0] if len(rows) == 1 else rows)
        return
    for row in rows:
        talk(f"added {row['name']}")
    bare = [row["name"] for row in rows if row["agent_id"] is None]
    if bare:
        talk(f"  without an agent yet; install it with: edgectl device bootstrap {' '.join(bare)}")
