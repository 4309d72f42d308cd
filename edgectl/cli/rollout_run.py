"""Runs a rollout in front of a person or a program, and says at its end what it came to."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgectl.cli.output import Form, talk
from edgectl.cli.plan_report import outcomes, result_document, show_results
from edgectl.cli.rollout_show import Show, line, showing
from edgectl.collect import collect
from edgectl.couriers.delivery import Terms
from edgectl.couriers.effects import CourierEffects
from edgectl.couriers.office import Couriers
from edgectl.couriers.weights import WeightSource
from edgectl.errors import LeaseLost
from edgectl.inventory.values import PENDING, Device, RolloutKind
from edgectl.observe import record
from edgectl.plan import Desired, Plan, Step, diff
from edgectl.planning import observed
from edgectl.rollout import exit_code
from edgectl.rollouts.conduct import Conducted, EffectsOf, begin, take_up
from edgectl.rollouts.execute import Effects
from edgectl.rollouts.owner import current
from edgectl.rollouts.undertaking import Undertaking

if TYPE_CHECKING:
    from edgectl.inventory.repository import Repository


def run_rollout(
    repository: "Repository",
    plan: Plan,
    devices: Sequence[Device],
    undertaking: Undertaking,
    couriers: Couriers,
    *,
    kind: RolloutKind,
    release: int | None,
    manifest_digest: str | None,
    force: bool,
    form: Form,
) -> int:
    """Returns the command's exit code."""
    labels = {device.name: device.labels for device in devices}
    with _told(form, plan) as show:
        done = begin(
            repository,
            plan,
            labels,
            undertaking,
            kind=kind,
            release=release,
            manifest_digest=manifest_digest,
            force=force,
            effects_of=_effects(couriers, devices, undertaking, show),
            teller=show,
        )
    return _end(repository, done, devices, plan, couriers, form)


def resume(
    repository: "Repository", rollout: int, couriers: Couriers, *, form: Form, force: bool, retry: bool
) -> int:
    """Goes on with a rollout for every device that is still to get its release. Returns the command's exit code."""
    # Whoever resumes after one of these has seen why it stopped; after a crash nobody has.
    seen = repository.rollout(rollout).state in ("paused", "halted")
    record_, places = repository.take_up(rollout, current(), force)
    undertaking = Undertaking.from_json(record_.policy)
    waiting = [place for place in places if place.outcome is None or place.outcome in PENDING]
    try:
        registered = {device.name: device for device in repository.devices()}
        devices = [registered[place.device] for place in waiting if place.device in registered]
        sightings = couriers.observe(devices)
        record(repository, sightings)
        numbers = {place.device: place.release_number for place in waiting if place.release_number}
        targets = repository.device_releases(numbers)
        desired: dict[str, Desired] = {}
        for place in waiting:
            target = targets.get(place.device)
            desired[place.device] = Desired(
                target,
                None if target else "it has no release: what it is was not known; deploy again",
            )
        retry = retry or undertaking.retry
        plan = diff(
            record_.manifest or f"rollout {rollout}",
            desired,
            observed(sightings),
            retry=retry,
            prune=undertaking.prune,
        )
    except BaseException:
        with contextlib.suppress(LeaseLost):
            reason = "it was to be resumed, and that failed"
            repository.set_state(rollout, "interrupted", reason, owner=record_.owner)
        raise
    with _told(form, plan) as show:
        effects_of = _effects(couriers, devices, undertaking, show, retry=retry)
        done = take_up(repository, record_, places, plan, seen=seen, effects_of=effects_of, teller=show)
    return _end(repository, done, devices, plan, couriers, form)


@contextmanager
def _told(form: Form, plan: Plan) -> Iterator[Show]:
    with showing(form, plan.bytes_to_move) as show:
        try:
            yield show
        except KeyboardInterrupt:
            talk("interrupted: no lock is held; a device that is activating goes on by itself")
            talk("  see how it ended with: edgectl status --refresh; go on with: edgectl rollout resume")
            raise


def _effects(
    couriers: Couriers,
    devices: Sequence[Device],
    undertaking: Undertaking,
    show: Show,
    *,
    retry: bool | None = None,
) -> EffectsOf:
    couriers.supply(WeightSource(show.fetch).path)
    terms = Terms(undertaking.retry if retry is None else retry, undertaking.prune)
    by_name = {device.name: device for device in devices}

    def made(steps: Mapping[str, Step], reverts: Mapping[str, Step]) -> Effects:
        return CourierEffects(
            couriers, by_name, steps, reverts, terms, undertaking.limit_rate, undertaking.swarm
        )

    return made


def _end(
    repository: "Repository",
    done: Conducted,
    devices: Sequence[Device],
    plan: Plan,
    couriers: Couriers,
    form: Form,
) -> int:
    reached = [device for device in devices if device.name in _answering(plan)]
    for name, problem in collect(repository, reached, couriers).items():
        talk(f"{name}: its reports could not be collected: {problem.message}")
    results = list(done.results.values())
    if form is Form.JSON:
        line(
            "finished",
            rollout=done.rollout,
            kind=done.kind,
            release=f"r{done.release}" if done.release else None,
            state=done.state,
            reason=done.reason,
            outcomes=outcomes(results),
            devices=[result_document(result) for result in results],
        )
    elif results:
        show_results(results)
        _next_steps(done)
    else:
        talk(f"rollout {done.rollout} has nothing left to do; others are in: edgectl rollout list")
    if done.state == "paused":
        done.results = {name: each for name, each in done.results.items() if each.outcome not in PENDING}
    return exit_code(result.outcome for result in done.results.values())


def _answering(plan: Plan) -> frozenset[str]:
    return frozenset(step.device for step in plan.steps if step.action != "unreachable")


def _next_steps(done: Conducted) -> None:
    """What a person can do about a rollout that is not over."""
    waiting = sum(result.outcome in PENDING for result in done.results.values())
    if done.state in ("paused", "halted"):
        talk(f"{done.state}: {done.reason}")
        talk(
            f"  go on with: edgectl rollout resume {done.rollout}; give it up with: edgectl rollout abort {done.rollout}"
        )
    elif done.state == "waiting":
        talk(
            f"{waiting} devices get it when they can be reached: through the hub, or with: edgectl rollout resume"
            f" {done.rollout}"
        )
