"""What edgectl predicts beside what llama.cpp takes, one configuration a line, in bytes.

python -m tests.bench.fit.compare [--only NAME,ARCH] [--context N]... [--flash on] [--split 10 --split 8+9]
"""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from agent_daemon.contract.need import Share
from tests.bench.fit.grid import CONTEXTS, Pair, grid, pairs
from tests.bench.fit.shapes import MODELS
from tests.bench.fit.truth import Unmeasured
from tests.support.rpc_devices import devices

MIB = 1024 * 1024


def line(pair: Pair, place: str, predicted: Share, true: Share) -> str:
    """What is true in MiB, and how far the prediction is off in bytes and percent."""

    def off(one: int, other: int) -> str:
        percent = f"{100 * (one / other - 1):+8.2f}%" if other else f"{'':9}"
        return f"{other / MIB:10.2f} {one - other:+13,} {percent}"

    columns = (
        off(predicted.weights, true.weights),
        off(predicted.kv_cache, true.kv_cache),
        off(predicted.compute, true.compute),
        off(predicted.total, true.total),
    )
    return f"{pair.model:22} {pair.setting!s:26} {place:5} " + " | ".join(columns)


def main() -> int:
    """Print the table; 1 when a model could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="parts of names, or architectures, by commas")
    parser.add_argument("--context", type=int, action="append", help="tokens of one answer")
    parser.add_argument(
        "--split", action="append", default=[], help="layers on each device, such as 10 or 8+9"
    )
    parser.add_argument("--flash", choices=("on", "off", "both"), default="both")
    chosen = parser.parse_args()
    flash = {"on": (True,), "off": (False,), "both": (True, False)}[chosen.flash]
    splits = [tuple(int(part) for part in each.split("+")) for each in chosen.split]
    count = max((len(split) for split in splits), default=0)
    print(f"{'MiB in truth, then bytes and percent that we are off':56}", end="")
    print(" | ".join(f"{name:>34}" for name in ("weights", "cache", "compute", "total")))
    failed = 0
    with tempfile.TemporaryDirectory() as folder, devices(count) if count else nullcontext() as attached:
        for name in MODELS:
            if not any(part in name or part == MODELS[name].arch for part in chosen.only.split(",")):
                continue
            settings = grid(name, contexts=chosen.context or CONTEXTS, flash=flash)
            if splits:
                settings = tuple(replace(each, split=split) for split in splits for each in settings)
            try:
                for pair in pairs(name, Path(folder), settings, attached):
                    if pair.truth.refused is not None:
                        print(f"{name:22} {pair.setting!s:26} llama.cpp refuses: {pair.truth.refused}")
                        continue
                    for place in pair.places():
                        print(line(pair, *place), flush=True)
            except Unmeasured as error:
                failed = 1
                print(error, file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
