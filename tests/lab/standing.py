"""A lab that stays: for a person who wants to try edgectl on a fleet without owning one."""

import shlex
import shutil
import sys
from pathlib import Path

from tests.lab import ownership
from tests.lab.fleet import ROOT, Lab
from tests.lab.spec import LAPTOP, WORKSTATION, Spec

FOLDER = ROOT / "build" / "lab"
_KINDS: tuple[tuple[str, tuple[str, ...] | None], ...] = (
    ("a workstation's GPU, 24 GiB", (WORKSTATION,)),
    ("a small laptop's GPU, 4 GiB", (LAPTOP,)),
    ("no GPU", None),
)
_LINKS = {"ssh_config": "config", "key": "id_ed25519", "known_hosts": "known_hosts"}


def up(count: int) -> str:
    """Makes the standing lab with machines lab-1 to lab-COUNT; what to do next. Raises LabError when there is one."""
    ownership.sweep()
    specs = [Spec(f"lab-{number + 1}", gpus=_KINDS[number % len(_KINDS)][1]) for number in range(count)]
    lab = Lab(specs, ownership.STANDING)
    with lab:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        for name, target in _LINKS.items():
            (FOLDER / name).symlink_to(lab.ssh_config.with_name(target))
        _program(FOLDER / "edgectl", lab, [sys.executable, "-m", "edgectl"])
        _program(FOLDER / "ssh", lab, ["ssh", "-F", str(lab.ssh_config)])
        lab.leave_standing()
    return _next_steps(lab)


def down() -> bool:
    """Ends the standing lab, with its inventory; False when there is none."""
    stood = ownership.tear_down(ownership.STANDING)
    shutil.rmtree(FOLDER, ignore_errors=True)
    return stood


def _program(path: Path, lab: Lab, argv: list[str]) -> None:
    """An executable that runs `argv` and what the person adds on the lab's control side, in the person's folder."""
    own = {name: lab.environment()[name] for name in ("HOME", "EDGECTL_CACHE_DIR", "PYTHONPATH")}
    lines = [
        "#!/bin/sh",
        "unset XDG_CONFIG_HOME XDG_STATE_HOME XDG_CACHE_HOME XDG_DATA_HOME EDGECTL_DATABASE_URL SSH_AUTH_SOCK",
        *(f"export {name}={shlex.quote(value)}" for name, value in own.items()),
        f'exec {shlex.join(lab.control(argv))} "$@"',
    ]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)


def _next_steps(lab: Lab) -> str:
    tool = (FOLDER / "edgectl").relative_to(ROOT)
    kinds = [
        f"  {name:<8} {machine.address:<14} {_KINDS[number % len(_KINDS)][0]}"
        for number, (name, machine) in enumerate(lab.machines.items())
    ]
    first = next(iter(lab.machines.values()))
    return "\n".join(
        [
            "The lab is up:",
            *kinds,
            "",
            "Next, one after the other:",
            "  .venv/bin/edgectl agent bundle     (once, outside: the lab has no way to a package index)",
            f"  {tool} device add --from-ssh-config 'lab-*' --label site=lab",
            f"  {tool} device bootstrap -l site=lab",
            f"  {tool} deploy -f manifests/quickstart.yaml --yes",
            f"  {tool} status",
            "",
            f"Log in to one:     {FOLDER.relative_to(ROOT)}/ssh {first.name}",
            f"Cut its cable:     ip -n {first.link.control} link set {first.link.port} down     (and up again)",
            "End the lab:       make lab-down     (its machines and its inventory are gone then)",
        ]
    )
