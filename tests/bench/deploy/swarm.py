"""One blob to machines of one site: by their swarm, and directly, one after the other on the same machines.

`python -m tests.bench.deploy.swarm [--machines 8] [--size BYTES] [--json FILE]`, as root. What the control side sends is
counted at its own network device. Times are of this machine, whose processors do the work of all machines: they travel
less than the copies do.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.lab.control import Control, make_bundle
from tests.lab.fleet import ROOT, Lab
from tests.lab.spec import Spec

QUICKSTART = 98_362_432
"""Bytes of the quickstart model."""


def measure(machines: int = 8, size: int = QUICKSTART) -> dict[str, Any]:
    """`copies`: what the control side sent by the swarm, as a multiple of `size`; `direct_copies` beside it, and seconds
    from the first connection to the last verified blob."""
    make_bundle(ROOT, "--swarm")
    names = [f"dev{number:02}" for number in range(1, machines + 1)]
    with Lab([Spec(name) for name in names]) as lab:
        control = Control(lab)
        control.ok("device", "add", "--from-ssh-config", "dev*", "--label", "site=lab")
        control.bootstrap("-l", "site=lab", "--swarm", "--ram-limit", "1GiB")
        swarm = _brought(lab, "swarm", size, names)
        direct = _brought(lab, "direct", size, names)
    assert set(swarm["arrived"]) == set(names), swarm["fell_back"]
    return {
        "machines": machines,
        "size": size,
        "copies": round(swarm["left"] / size, 3),
        "direct_copies": round(direct["left"] / size, 3),
        "seconds": swarm["seconds"],
        "direct_seconds": direct["seconds"],
        "arrived": swarm["arrived"],
    }


def _brought(lab: Lab, way: str, size: int, names: list[str]) -> dict[str, Any]:
    """A new file each time, so that nobody has any of it."""
    path = lab.home / f"{way}.bin"
    path.write_bytes(os.urandom(size))
    before = lab.network.control_counters().sent
    done = lab.run([sys.executable, "-m", "tests.support.bring", way, str(path), *names], timeout=1800)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "left": lab.network.control_counters().sent - before}


def table(found: dict[str, Any]) -> str:
    size = found["size"] / 2**20
    return "\n".join(
        [
            f"{found['machines']} machines on a site, {size:.0f} MiB",
            f"{'':<10} {'copies sent':>12} {'seconds':>9}",
            f"{'swarm':<10} {found['copies']:>12.2f} {found['seconds']:>9.1f}",
            f"{'directly':<10} {found['direct_copies']:>12.2f} {found['direct_seconds']:>9.1f}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--machines", type=int, default=8)
    parser.add_argument("--size", type=int, default=QUICKSTART)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    found = measure(arguments.machines, arguments.size)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
