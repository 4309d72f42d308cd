"""Delivery, held against the tools that people use, in the lab. As root, with nothing else running.

    python -m tests.bench.deploy [--quick] [--parts staging,cold] [--rounds 5] [--json FILE]

Parts: {parts}.
Ends with 1 when a bound is missed, and says which. The table goes to stdout, progress to stderr.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.bench.deploy import flapping, others, parts, report
from tests.bench.deploy.figures import Found
from tests.bench.deploy.stage import Stage, stage
from tests.bench.serve import outfit
from tests.lab import host
from tests.support.models import quantized, quickstart_model

_ON_FOUR: dict[str, Callable[[Stage, int, bool], Found]] = {
    "staging": lambda scene, rounds, _quick: parts.staging(scene, rounds),
    "cold": lambda scene, rounds, _quick: parts.cold(scene, rounds),
    "again": lambda scene, rounds, _quick: parts.again(scene, rounds),
    "rollback": lambda scene, rounds, _quick: parts.rollback(scene, rounds),
    "flapping": lambda scene, _rounds, quick: flapping.flapping(
        scene, quickstart_model() if quick else quantized("F16")
    ),
}
"""Parts that share four machines."""
_ALONE: dict[str, Callable[[bool], Found]] = {
    "swarm": others.copies,
    "simulate": others.decisions,
    "requests": others.requests,
}
_NEEDS_NO_LAB = frozenset({"simulate", "requests"})
PARTS = (*_ON_FOUR, *_ALONE)


def measure(names: list[str], rounds: int, quick: bool) -> dict[str, Found]:
    """The parts that were asked for, in their own order."""
    found: dict[str, Found] = {}
    with ExitStack() as stack:
        scene: Stage | None = None
        for name in names:
            began = time.monotonic()
            if name in _ON_FOUR:
                scene = scene or stack.enter_context(stage(patient=not quick))
                found[name] = _ON_FOUR[name](scene, rounds, quick)
            else:
                stack.close()
                scene = None
                found[name] = _ALONE[name](quick)
            print(
                f"bench: {name} took {time.monotonic() - began:.0f} s",
                *(f"\n  {line}" for line in report.table({name: found[name]}).splitlines()),
                sep="",
                file=sys.stderr,
                flush=True,
            )
    return found


def _names(text: str) -> list[str]:
    given = {each.strip() for each in text.split(",") if each.strip()}
    if wrong := given - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(wrong))}: not one of {', '.join(PARTS)}")
    return [name for name in PARTS if name in given]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.bench.deploy",
        description=(__doc__ or "").format(parts=", ".join(PARTS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", type=_names, default=list(PARTS), metavar="NAMES", help="only these")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one round: whether it works, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    return parser.parse_args()


def main() -> int:
    arguments = options()
    rounds = 1 if arguments.quick else max(1, arguments.rounds)
    if set(arguments.parts) - _NEEDS_NO_LAB and (obstacle := host.obstacle()):
        print(f"bench: {obstacle}", file=sys.stderr)
        return 2
    if set(arguments.parts) & {"cold", "again"}:
        outfit.ensure()
    found = measure(arguments.parts, rounds, arguments.quick)
    print(report.table(found))
    if arguments.json:
        machine = {
            "processors": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": sys.version.split()[0],
        }
        document = report.as_json(found, rounds, arguments.quick, machine)
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    for line in report.missed(found):
        print(f"bench: {line}", file=sys.stderr)
    return 1 if report.missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
