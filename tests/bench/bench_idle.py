"""What an agent without a model costs a device: `python tests/bench/bench_idle.py [--seconds 60] [--json FILE]`.

The figures are those of the whole agent process and of everything that it started. Ends with 1 when either limit
is exceeded: 80 MB (10**6 bytes) of resident memory, 0.5 % of one core.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.agent import running_agent

RSS_LIMIT = 80_000_000
CPU_LIMIT = 0.5
_SETTLE_SECONDS = 5.0
"""The agent asks its runtime what it can do once, right after it has started."""


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu_seconds(process: psutil.Process) -> float:
    # Children that have ended are counted in their parent.
    times = process.cpu_times()
    ended = times.children_user + times.children_system
    living = sum(sum(each.cpu_times()[:2]) for each in process.children(recursive=True))
    return times.user + times.system + ended + living


def _rss(process: psutil.Process) -> int:
    return sum(each.memory_info().rss for each in _family(process))


def measure(seconds: float) -> dict[str, float]:
    """Highest resident memory in bytes, and CPU in percent of one core, over `seconds`."""
    with tempfile.TemporaryDirectory() as folder, running_agent(Path(folder) / "state") as agent:
        assert agent.process is not None
        process = psutil.Process(agent.process.pid)
        time.sleep(_SETTLE_SECONDS)
        while len(_family(process)) > 1:
            time.sleep(0.1)
        before, began, highest = _cpu_seconds(process), time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            highest = max(highest, _rss(process))
            time.sleep(min(1.0, seconds - passed))
        used = _cpu_seconds(process) - before
        return {
            "seconds": round(time.monotonic() - began, 1),
            "rss_bytes": highest,
            "rss_limit_bytes": RSS_LIMIT,
            "cpu_percent": round(100 * used / (time.monotonic() - began), 3),
            "cpu_limit_percent": CPU_LIMIT,
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to look (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    found = measure(arguments.seconds)
    print(f"idle agent, no model, over {found['seconds']:g} s")
    print(f"  resident memory  {found['rss_bytes'] / 1e6:7.1f} MB   limit {RSS_LIMIT / 1e6:.0f} MB")
    print(f"  CPU              {found['cpu_percent']:7.3f} %    limit {CPU_LIMIT} % of one core")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if found["rss_bytes"] <= RSS_LIMIT and found["cpu_percent"] <= CPU_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
