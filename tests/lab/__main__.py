"""`python -m tests.lab up --count N` and `down`: what `make lab-up` and `make lab-down` run."""

import argparse
import sys

from tests.lab import host, standing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="boot a fleet of machines that stays until `down`")
    up.add_argument("--count", type=int, default=3, choices=range(1, 101), metavar="1..100")
    commands.add_parser("down", help="end it")
    given = parser.parse_args()
    try:
        if obstacle := host.obstacle():
            raise host.LabError(obstacle)
        if given.command == "up":
            print(standing.up(given.count))
        else:
            print("The lab is down." if standing.down() else "There was no lab.")
    except host.LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
