"""Our serving against the servers that people use, side by side on this machine.

    python -m tests.bench.serve [--only a,b] [--servers edgectl,llama.cpp] [--repeat 3] [--quick] [-o json]

Every repetition starts each server afresh, in another order, one at a time. Figures are medians of the repetitions.
The table or JSON goes to stdout, progress to stderr.
"""

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

from tests.bench.serve import outfit, report
from tests.bench.serve.answers import Figures, figures, medians
from tests.bench.serve.memory import Peak
from tests.bench.serve.plays import at_once
from tests.bench.serve.report import Row
from tests.bench.serve.servers import SERVERS
from tests.bench.serve.workloads import QUICK, WORKLOADS, Size, Workload, warm_up

Seen = dict[tuple[str, str], list[Figures]]
"""(scene, server) -> one for every repetition."""


async def once(key: str, workload: Workload, server: str, repetition: int, size: Size, seen: Seen) -> None:
    """One server's turn: started, warmed up, measured, gone."""
    async with SERVERS[server](workload.context) as running:
        await at_once(running.door, "warm-up", warm_up())
        with Peak(running.pid) as peak:
            async for scene in workload.play(running.door, f"{key}/{repetition}", size):
                peak.look()
                found = figures(scene, peak.highest)
                seen[scene.name, server].append(found)
                say(f"{key}/{scene.name} {server:<17} #{repetition + 1} {report.line(found)}")


async def measure(key: str, workload: Workload, servers: list[str], repeat: int, size: Size) -> list[Row]:
    """The rows of one workload: each scene and server with the medians of its repetitions."""
    seen: Seen = defaultdict(list)
    for repetition in range(repeat):
        first = repetition % len(servers)
        for server in (*servers[first:], *servers[:first]):
            await once(key, workload, server, repetition, size, seen)
    return [
        Row(key, scene, server, medians(each), tuple(each)) for (scene, server), each in sorted(seen.items())
    ]


async def measure_all(arguments: argparse.Namespace) -> list[Row]:
    rows = []
    for key in arguments.only:
        workload = WORKLOADS[key]
        servers = [each for each in arguments.servers or workload.servers if each in workload.servers]
        if arguments.servers and len(arguments.only) == 1:
            servers = arguments.servers
        if servers:
            rows += await measure(key, workload, servers, arguments.repeat, arguments.size)
    return rows


def names(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        given = [each.strip() for each in text.split(",") if each.strip()]
        if wrong := [each for each in given if each not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: not one of {', '.join(known)}")
        return given

    return parse


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.bench.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=names(WORKLOADS), default=list(WORKLOADS), metavar="KEYS",
                        help=f"workloads, of: {', '.join(WORKLOADS)}")  # fmt: skip
    parser.add_argument("--servers", type=names(SERVERS), metavar="NAMES",
                        help=f"of: {', '.join(SERVERS)} (with one workload in --only, any of them)")  # fmt: skip
    parser.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="repetitions (default: %(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="once and little: whether it works, not how fast"
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there as well")
    arguments = parser.parse_args()
    arguments.size = QUICK if arguments.quick else Size()
    arguments.repeat = 1 if arguments.quick else max(1, arguments.repeat)
    return arguments


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> int:
    arguments = options()
    outfit.ensure()
    rows = asyncio.run(measure_all(arguments))
    found = report.as_json(rows, arguments.repeat, arguments.quick)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2) if arguments.output == "json" else report.table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
