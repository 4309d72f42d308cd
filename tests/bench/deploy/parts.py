"""The parts that time deploys on four machines: programs by turns, another one first in every round."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.deploy import events
from tests.bench.deploy.figures import Bound, Found, Row, beyond, ratio
from tests.bench.deploy.processes import Ran
from tests.bench.deploy.stage import Stage
from tests.support.models import quantized, quickstart_model

STAGING, COLD, AGAIN, ROLLBACK = 1.25, 1.0, 1.0, 0.5
"""Most times of the peer's time that ours may take; for a rollback seconds beyond what its own parts take."""
_LARGE = "F16"
"""The quickstart model unquantized: 258 MiB."""


def staging(stage: Stage, rounds: int) -> Found:
    """From the first byte to the last verified blob, against as many `scp` side by side."""
    sizes = [_staging(stage, quantized(name), rounds) for name in ("Q4_1", _LARGE)]
    return Found(tuple(row for rows, _ in sizes for row in rows), tuple(bound for _, bound in sizes))


def _staging(stage: Stage, model: Path, rounds: int) -> tuple[tuple[Row, ...], Bound]:
    manifest, peers = stage.manifest("staging", model), stage.peers(model)
    programs = {"scp": peers.scp(), "edgectl": [stage.deploy(manifest)]}
    runs = _by_turns(stage, programs, rounds, before=stage.fresh)
    staged = tuple(round(events.staging(ran.lines, stage.names).seconds, 3) for ran in runs["edgectl"])
    size = f"{model.stat().st_size / 2**20:.0f} MiB"
    rows = (
        Row(f"{size}: 4 scp", _seconds(runs["scp"]), *_cost(runs["scp"])),
        Row(f"{size}: edgectl, staging", staged),
        Row(f"{size}: edgectl, all of it", _seconds(runs["edgectl"]), *_cost(runs["edgectl"])),
    )
    return rows, Bound(f"staging {size}, to 4 scp", ratio(staged, _seconds(runs["scp"])), STAGING)


def cold(stage: Stage, rounds: int) -> Found:
    """A whole first deploy, models loaded and probed, against tools that only bring the file, a unit and a restart."""
    peers, manifest = stage.peers(quickstart_model()), stage.manifest("cold", quickstart_model())
    programs = {
        "edgectl": [stage.deploy(manifest)],
        "pyinfra": [peers.pyinfra()],
        "pyinfra, by scp": [peers.pyinfra("scp")],
        "ansible": [peers.ansible()],
    }
    runs = _by_turns(stage, programs, rounds, before=stage.fresh)
    for ran in runs["edgectl"]:
        assert events.summary(ran.lines)["outcomes"] == {"succeeded": len(stage.names)}
    return Found(
        _rows(runs), (_against(runs, "pyinfra", "cold deploy, to its bare copy", COLD),), _others(runs)
    )


def again(stage: Stage, rounds: int) -> Found:
    """The same commands once more, with nothing to do."""
    peers, manifest = stage.peers(quickstart_model()), stage.manifest("cold", quickstart_model())
    programs = {
        "edgectl": [stage.deploy(manifest)],
        "pyinfra": [peers.pyinfra()],
        "pyinfra, by scp": [peers.pyinfra("scp")],
        "ansible": [peers.ansible()],
    }
    stage.fresh()
    for name in ("edgectl", "pyinfra", "ansible"):
        stage.run(*programs[name])
    runs = _by_turns(stage, programs, rounds)
    for ran in runs["edgectl"]:
        assert events.summary(ran.lines)["outcomes"] == {"unchanged": len(stage.names)}
    return Found(
        _rows(runs), (_against(runs, "pyinfra", "nothing to do, to its nothing to do", AGAIN),), _others(runs)
    )


def rollback(stage: Stage, rounds: int) -> Found:
    """To a release that is on the devices, beyond a deploy with nothing to do and the load of the model."""
    first = stage.manifest("rollback", quickstart_model())
    stage.fresh()
    stage.run(stage.deploy(first))
    second = stage.manifest("rollback", quantized("Q2_K"))
    stage.run(stage.deploy(second))
    nothing, back, loads = [], [], []
    for number in range(rounds):
        # By turns to the first and the second: both are there.
        target = "r1" if number % 2 == 0 else "r2"
        back.append(stage.run(stage.rollback(target)))
        outcomes = events.summary(back[-1].lines)["outcomes"]
        assert outcomes == {"succeeded": len(stage.names)}, outcomes
        # The device that took longest is the one that was waited for.
        loads.append(max(stage.loaded_in().values()))
        manifest = stage.manifest("rollback", quickstart_model() if target == "r1" else quantized("Q2_K"))
        nothing.append(stage.run(stage.deploy(manifest)))
    allowed = [idle.seconds + load for idle, load in zip(nothing, loads, strict=True)]
    rows = (
        Row("edgectl rollback", _seconds(back), *_cost(back)),
        Row("edgectl deploy, nothing to do", _seconds(nothing), *_cost(nothing)),
        Row("load of the model, slowest device", tuple(loads)),
    )
    what = "rollback, beyond nothing to do and the load"
    return Found(rows, (Bound(what, beyond(_seconds(back), allowed), ROLLBACK, "s"),))


def _by_turns(
    stage: Stage,
    programs: Mapping[str, Sequence[list[str]]],
    rounds: int,
    before: Callable[[], None] = lambda: None,
) -> dict[str, list[Ran]]:
    runs: dict[str, list[Ran]] = {name: [] for name in programs}
    names = list(programs)
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            before()
            runs[name].append(stage.run(*programs[name]))
    return runs


def _rows(runs: Mapping[str, Sequence[Ran]]) -> tuple[Row, ...]:
    return tuple(Row(name, _seconds(each), *_cost(each)) for name, each in runs.items())


def _against(runs: Mapping[str, Sequence[Ran]], peer: str, what: str, most: float) -> Bound:
    return Bound(f"{what} ({peer})", ratio(_seconds(runs["edgectl"]), _seconds(runs[peer])), most)


def _others(runs: Mapping[str, Sequence[Ran]]) -> dict[str, float]:
    """Ratios that no bound is about."""
    ours = _seconds(runs["edgectl"])
    return {f"edgectl to {name}": round(ratio(ours, _seconds(each)), 2) for name, each in runs.items()
            if name not in ("edgectl", "pyinfra")}  # fmt: skip


def _seconds(runs: Sequence[Ran]) -> tuple[float, ...]:
    return tuple(round(ran.seconds, 3) for ran in runs)


def _cost(runs: Sequence[Ran]) -> tuple[float, int]:
    """The median of processor seconds, and the largest process."""
    cpu = sorted(ran.cpu_seconds for ran in runs)
    return round(cpu[len(cpu) // 2], 2), max(ran.peak_bytes for ran in runs)
