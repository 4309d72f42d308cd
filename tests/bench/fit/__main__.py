"""`make bench-fit`: what edgectl predicts, beside what llama.cpp takes and what others would say.

    python -m tests.bench.fit [--quick] [--only NAMES] [--parts grid,devices] [--json FILE]

    grid        every model x context x KV type x flash attention x parallel, in RAM, and the formulas of others
    devices     whole, half and divided over two devices, for six models
    decisions   each configuration of these two in rooms just too small and just large enough
    chosen      placements of random devices, measured
    fleet       how long placing takes
    loaded      the quickstart model in all its quantizations, really loaded

It ends with 1 when a bound of ours does not hold.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent_daemon.contract.need import Share
from agent_daemon.contract.serve_options import ServeOptions
from tests.bench.fit import chosen, decisions, fleet, loaded
from tests.bench.fit.figures import Spread, figures, spread
from tests.bench.fit.grid import CONTEXTS, OFFLOADED, Pair, grid, pairs
from tests.bench.fit.peers import PEERS
from tests.bench.fit.report import Found, text
from tests.bench.fit.shapes import MODELS
from tests.support.models import QUANTIZATIONS
from tests.support.rpc_devices import devices

PARTS = ("grid", "devices", "decisions", "chosen", "fleet", "loaded")
QUICK_LADDER = ("Q8_0", "Q4_K_M", "Q4_1")
LOADED = ServeOptions(2048, 2)


@dataclass
class Run:
    """What is gathered, part by part."""

    names: Sequence[str]
    contexts: Sequence[int]
    folder: Path
    quick: bool
    seen: list[Pair] = field(default_factory=list)
    found: Found = field(default_factory=lambda: Found(_machine()))

    def grid(self) -> None:
        """In RAM, and once more as llama.cpp's own server would make the contexts, for the peers."""
        ours: list[Pair] = []
        plain: list[Pair] = []
        for name in self.names:
            _say(f"{name}, in RAM")
            settings = grid(name, contexts=self.contexts)
            if not MODELS[name].embeds:
                settings += tuple(replace(each, plain=True) for each in settings)
            for pair in pairs(name, self.folder, settings):
                if pair.truth.refused is None:
                    (plain if pair.setting.plain else ours).append(pair)
        judged = figures(ours)
        self.seen += ours
        peers = {"edgectl": spread((pair.predicted.host, pair.truth.host) for pair in ours)} | _said(ours)
        self.found = replace(self.found, ram=judged, peers=peers, served=_said(plain) if plain else {})
        self._breaks("in RAM", judged.broken())

    def devices(self) -> None:
        """Split over two devices and in part in RAM."""
        split: list[Pair] = []
        with devices(2) as attached:
            for name in self.names:
                if name in OFFLOADED:
                    _say(f"{name}, on devices")
                    split += pairs(name, self.folder, attached=attached)
        if split:
            judged = figures(split)
            self.seen += split
            self.found = replace(self.found, devices=judged)
            self._breaks("on devices", judged.broken())

    def decisions(self) -> None:
        self._more("decisions", lambda: decisions.run(self.seen))

    def chosen(self) -> None:
        self._more("chosen", lambda: chosen.run(40) if self.quick else chosen.run())

    def fleet(self) -> None:
        self._more("fleet", fleet.run)

    def loaded(self) -> None:
        self._more("loaded", lambda: _loaded(QUICK_LADDER if self.quick else QUANTIZATIONS, self.folder))

    def _more(self, name: str, part: Callable[[], tuple[dict[str, object], list[str]]]) -> None:
        _say(name)
        result, broken = part()
        self.found = replace(self.found, more={**self.found.more, name: result})
        self._breaks(name, broken)

    def _breaks(self, what: str, broken: Sequence[str]) -> None:
        self.found = replace(self.found, broken=(*self.found.broken, *(f"{what}: {each}" for each in broken)))


def main() -> int:
    """Measure, print, and say by the exit status whether every bound holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="one context, fewer of everything: whether it works"
    )
    parser.add_argument("--only", default="", help="parts of models' names, by commas")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to do, by commas")
    parser.add_argument("--json", type=Path, help="where everything is kept, each configuration too")
    asked = parser.parse_args()
    parts = asked.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
    names = [name for name in MODELS if any(part in name for part in asked.only.split(","))]
    if not names:
        parser.error(f"no model {asked.only}: expected a part of one of {', '.join(MODELS)}")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(names, CONTEXTS[1:2] if asked.quick else CONTEXTS, Path(folder), asked.quick)
        for part in PARTS:
            if part in parts:
                getattr(run, part)()
    print(text(run.found))
    if asked.json:
        kept = {**run.found.as_dict(), "pairs": [_row(pair) for pair in run.seen]}
        asked.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 1 if run.found.broken else 0


def _said(seen: Sequence[Pair]) -> dict[str, Spread]:
    return {
        name: spread((formula(MODELS[pair.model], pair.setting), pair.truth.host) for pair in seen)
        for name, formula in PEERS.items()
    }


def _loaded(names: Sequence[str], folder: Path) -> tuple[dict[str, object], list[str]]:
    rows = [loaded.row(name, LOADED, folder) for name in names]
    broken = [f"{each.name} off by {each.off:+.2%}" for each in rows if abs(each.off) > loaded.BOUND]
    found = {each.name: asdict(each) | {"measured": each.measured, "off": each.off} for each in rows}
    return {"said": "\n" + loaded.table(rows), "rows": found}, broken


def _machine() -> dict[str, str]:
    import llama_cpp

    return {
        "system": platform.platform(),
        "processors": f"{os.cpu_count()} x {platform.machine()}",
        "engine": f"llama-cpp-python {llama_cpp.__version__}",
    }


def _row(pair: Pair) -> dict[str, Any]:
    """Predicted and true bytes of each part of each memory."""

    def both(one: Share, other: Share) -> dict[str, list[int]]:
        return {
            part: [getattr(one, part), getattr(other, part)] for part in ("weights", "kv_cache", "compute")
        }

    memories = {place: both(one, other) for place, one, other in pair.places()}
    return {"model": pair.model, "setting": str(pair.setting), "memories": memories}


def _say(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
