"""`python -m tests.lab.faults`, what `make faults` runs: breaks devices, and sees whether they get over it.

Ends with 1 when something did not hold. One step of a campaign again: the same --seed, and --steps with its number.
"""

import argparse
import json
import math
import shutil
import sys
from pathlib import Path

from tests.lab import host
from tests.lab.faults import campaign, report
from tests.lab.faults.fault import Fault
from tests.lab.faults.ground import prepared
from tests.lab.faults.registry import faults_for
from tests.lab.fleet import ROOT

KEPT = ROOT / "build" / "faults"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.lab.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--machines", type=int, default=3, choices=range(2, 9), metavar="2..8")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after these no further fault begins")
    parser.add_argument(
        "--only", action="append", metavar="WORDS", help="kinds of fault whose names have these words"
    )
    parser.add_argument("--steps", metavar="N,N", help="of the same campaign, only these steps")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report there, as JSON")
    parser.add_argument(
        "--keep", type=Path, default=KEPT, metavar="DIR", help="what failures leave (build/faults)"
    )
    return parser.parse_args()


def main() -> int:
    asked = parsed()
    try:
        if problem := host.obstacle():
            raise host.LabError(problem)
        shutil.rmtree(asked.keep, ignore_errors=True)
        with prepared(asked.machines, asked.keep, say) as ground:
            kinds = [fault for fault in faults_for(ground.devices) if _wanted(fault, asked.only)]
            planned = list(enumerate(campaign.schedule(kinds, asked.faults, asked.seed), start=1))
            if asked.steps:
                chosen = {int(step) for step in asked.steps.split(",")}
                planned = [(step, fault) for step, fault in planned if step in chosen]
            done = campaign.run(ground, planned, asked.seed, say, asked.minutes * 60)
    except host.LabError as error:
        say(f"faults: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    print(report.table(done))
    if asked.report:
        asked.report.write_text(json.dumps(report.document(done), indent=1) + "\n")
    return 0 if done.passed else 1


def _wanted(fault: Fault, words: list[str] | None) -> bool:
    return words is None or any(word in fault.name for word in words)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
