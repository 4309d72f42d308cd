"""Runs a plan in front of a person: bars while bytes move, a line for what devices say, the results at the end."""

from collections.abc import Sequence
from contextlib import closing

from edgectl.cli.output import Form, bars, emit_json, talk
from edgectl.cli.plan_report import outcomes, result_document, show_results
from edgectl.collect import collect
from edgectl.delivery import Delivery, WeightSource
from edgectl.execute import Halted, Moved, Noted, Result, run
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import RolloutKind
from edgectl.observe import Sighting
from edgectl.plan import Plan
from edgectl.rollout import Policy, exit_code
from edgectl.transport import Transports


def run_rollout(
    repository: Repository,
    plan: Plan,
    sightings: Sequence[Sighting],
    policy: Policy,
    transports: Transports,
    *,
    kind: RolloutKind,
    release: int | None,
    retry: bool,
    form: Form,
) -> int:
    """Returns the command's exit code. Interrupted, it says so in the inventory and leaves the devices to finish
    what they have begun."""
    rollout = repository.start_rollout(kind, release)
    results: list[Result] = []
    state = "interrupted"
    try:
        _watch(repository, rollout.id, plan, sightings, policy, transports, retry, results)
        state = "finished"
    except KeyboardInterrupt:
        talk("interrupted: no lock is held; a device that is activating goes on by itself")
        talk("  see how it ended with: edgectl status --refresh; the same command goes on from here")
        raise
    finally:
        repository.finish_rollout(rollout.id, "finished" if state == "finished" else "interrupted")
    reached = [sighting.device.name for sighting in sightings if sighting.state is not None]
    for name, problem in collect(repository, reached, transports).items():
        talk(f"{name}: its reports could not be collected: {problem.message}")
    if form is Form.JSON:
        emit_json(
            {
                "rollout": rollout.id,
                "kind": kind,
                "release": f"r{release}" if release else None,
                "outcomes": outcomes(results),
                "devices": [result_document(result) for result in results],
            }
        )
    else:
        show_results(results)
    return exit_code(result.outcome for result in results)


def _watch(
    repository: Repository,
    rollout: int,
    plan: Plan,
    sightings: Sequence[Sighting],
    policy: Policy,
    transports: Transports,
    retry: bool,
    results: list[Result],
) -> None:
    """Everything that happens, shown and recorded as it happens."""
    reached = {s.device.name: transports.open(s.device.transport) for s in sightings}
    with bars() as progress:
        effects = Delivery(reached, WeightSource(progress.update), retry=retry)
        with closing(run(plan, policy, effects)) as events:
            for event in events:
                match event:
                    case Moved():
                        progress.update(f"{event.device}: {event.what}", event.done, event.total)
                    case Noted():
                        progress.say(f"{event.device}: {event.text}")
                    case Halted():
                        progress.say(f"halted: {len(event.devices)} devices are left as they were")
                    case Result():
                        results.append(event)
                        repository.record_outcome(
                            rollout,
                            event.device,
                            event.outcome,
                            event.reason,
                            event.bytes_moved,
                            event.seconds,
                            event.number,
                        )
