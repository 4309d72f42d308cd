"""Conducts a rollout from its record to its end: leases, hooks, the engine, and every outcome into the inventory.

A rollout is a record, not a process: whatever ends this one, `resume` in another goes on from the inventory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from agent_daemon.contract.wire import Outcome
from edgectl.errors import EdgectlError
from edgectl.inventory.values import PENDING, Rollout, RolloutKind, RolloutPart, RolloutState
from edgectl.plan import Action, Plan, Step
from edgectl.rollout import Control, parts
from edgectl.rollouts import hooks
from edgectl.rollouts.events import Event, Halted, Paused, Result
from edgectl.rollouts.execute import Effects, Run
from edgectl.rollouts.lease import Lease
from edgectl.rollouts.owner import current
from edgectl.rollouts.policy import Part
from edgectl.rollouts.undertaking import Undertaking

if TYPE_CHECKING:
    from edgectl.inventory.repository import Repository


class Teller(Protocol):
    """Is told what happens, as it happens."""

    def begin(self, rollout: int, document: dict[str, Any]) -> None: ...

    def tell(self, event: Event) -> None: ...


class EffectsOf(Protocol):
    """Makes the effects for a rollout's steps; `reverts` are where devices return to."""

    def __call__(self, steps: Mapping[str, Step], reverts: Mapping[str, Step]) -> Effects: ...


@dataclass
class Conducted:
    """How a rollout stands when its process leaves it."""

    rollout: int
    kind: RolloutKind
    release: int | None
    state: RolloutState = "running"
    reason: str | None = None
    results: dict[str, Result] = field(default_factory=dict)


def begin(
    repository: "Repository",
    plan: Plan,
    labels: Mapping[str, Mapping[str, str]],
    undertaking: Undertaking,
    *,
    kind: RolloutKind,
    release: int | None,
    manifest_digest: str | None,
    force: bool,
    effects_of: EffectsOf,
    teller: Teller,
) -> Conducted:
    """Records a rollout and carries it out. Raises Busy when somebody else is at work on one of its devices, and
    EdgectlError when the hook before it fails; then nothing has changed."""
    places = _places(plan, labels, undertaking)
    rollout = repository.open_rollout(
        kind,
        release,
        manifest=plan.manifest,
        manifest_digest=manifest_digest,
        policy=undertaking.to_json(),
        parts=places,
        owner=current(),
        force=force,
    )
    return _Conductor(repository, rollout, plan, places, undertaking, effects_of, teller).conduct(
        begun=False, seen=False
    )


def take_up(
    repository: "Repository",
    rollout: Rollout,
    places: Sequence[RolloutPart],
    plan: Plan,
    *,
    seen: bool,
    effects_of: EffectsOf,
    teller: Teller,
) -> Conducted:
    """Goes on with a rollout whose leases this process has taken (`Repository.take_up`); `plan` has a step for each
    device that is still to get its release. `seen`: it was paused or halted, and somebody says to go on all the same."""
    undertaking = Undertaking.from_json(rollout.policy)
    return _Conductor(repository, rollout, plan, places, undertaking, effects_of, teller).conduct(
        begun=True, seen=seen
    )


def _places(
    plan: Plan, labels: Mapping[str, Mapping[str, str]], undertaking: Undertaking
) -> tuple[RolloutPart, ...]:
    """Waves are made of the devices that are to change. Those that cannot be reached now come after the last one."""
    changing = [(step.device, labels.get(step.device, {})) for step in plan.having(Action.DEPLOY)]
    waves = {part.device: part.wave for part in parts(changing, undertaking.policy)}
    later = max(waves.values(), default=-1) + 1
    return tuple(
        RolloutPart(
            step.device,
            waves.get(step.device, later if step.action is Action.UNREACHABLE else 0),
            step.release.number if step.release else None,
            step.current,
            step.outcome,
            step.reason,
        )
        for step in plan.steps
    )


class _Conductor:
    """One rollout in one process."""

    def __init__(
        self,
        repository: "Repository",
        rollout: Rollout,
        plan: Plan,
        places: Sequence[RolloutPart],
        undertaking: Undertaking,
        effects_of: EffectsOf,
        teller: Teller,
    ) -> None:
        self._repository = repository
        self._rollout = rollout
        self._plan = plan
        self._places = places
        self._undertaking = undertaking
        self._effects_of = effects_of
        self._teller = teller
        self._done = Conducted(rollout.id, rollout.kind, rollout.release_number)

    def conduct(self, *, begun: bool, seen: bool) -> Conducted:
        busy = bool(self._plan.having(Action.DEPLOY))
        assert self._rollout.owner is not None, "it was opened or taken up by this process"
        with Lease(self._repository, self._rollout.id, self._rollout.owner) as lease:
            self._teller.begin(self._rollout.id, self._document())
            for step in self._plan.steps:
                if step.outcome is not None:
                    # One that was not recorded with the rollout's beginning.
                    self._keep(_settled(step), record=begun)
            if busy:
                self._before(lease)
                self._run(lease, seen=seen)
            else:
                self._done.state = "finished"
            self._settle(lease)
        if busy:
            self._hook("post_deploy" if self._well() else "on_failure", must=False)
        return self._done

    def _before(self, lease: Lease) -> None:
        """The hook that may say no; then nothing has changed."""
        try:
            self._hook("pre_deploy", must=True)
        except EdgectlError as error:
            lease.end("aborted", error.message)
            raise

    def _run(self, lease: Lease, *, seen: bool) -> None:
        steps = {step.device: step for step in self._plan.having(Action.DEPLOY)}
        control = Control(self._parts(), self._undertaking.policy, resumed=seen)
        run = Run(control, self._effects_of(steps, self._returns()), lease.check)
        try:
            for event in run.events():
                self._teller.tell(event)
                self._take(event)
        except KeyboardInterrupt:
            # Devices finish alone what they have begun; the others are as they were, and get it from `resume`.
            self._defer(steps, "interrupted; what has arrived is kept")
            raise
        self._done.state = run.stopped
        if run.stopped == "paused":
            self._defer(steps, "it is for a later wave")

    def _parts(self) -> tuple[Part, ...]:
        """What is known of each device now: a step's own word before what was recorded."""
        steps = {step.device: step for step in self._plan.steps}
        return tuple(
            Part(
                place.device,
                place.wave,
                steps[place.device].outcome if place.device in steps else place.outcome,
                place.previous_number,
            )
            for place in self._places
        )

    def _take(self, event: Event) -> None:
        match event:
            case Result():
                self._keep(event)
            case Paused():
                self._done.reason = event.reason
            case Halted():
                self._done.reason = event.reason
                for device in event.devices:
                    self._keep(Result(device, Outcome.DEFERRED, "the rollout was halted before its turn"))

    def _defer(self, steps: Mapping[str, Step], reason: str) -> None:
        """For every device whose turn has not come, or has not ended."""
        for device in steps:
            if device not in self._done.results:
                self._keep(Result(device, Outcome.DEFERRED, reason))

    def _returns(self) -> dict[str, Step]:
        """Where devices go when they are to return: what each served before this rollout."""
        served = {place.device: place.previous_number for place in self._places if place.previous_number}
        before = self._repository.device_releases(served)
        return {
            place.device: Step(place.device, Action.DEPLOY, before[place.device], place.release_number)
            for place in self._places
            if place.device in before
        }

    # -- the record ------------------------------------------------------------------------------------

    def _keep(self, result: Result, *, record: bool = True) -> None:
        self._done.results[result.device] = result
        if record:
            self._repository.record_outcome(
                self._rollout.id,
                result.device,
                result.outcome,
                result.reason,
                result.bytes_moved,
                result.seconds,
                result.number,
            )

    def _settle(self, lease: Lease) -> None:
        done = self._done
        if done.state == "finished" and any(outcome in PENDING for outcome in self._outcomes().values()):
            done.state = "waiting"
        lease.end(done.state, done.reason)

    def _outcomes(self) -> dict[str, Outcome]:
        """Of all devices of the rollout, those of earlier processes too."""
        before = {place.device: place.outcome for place in self._places if place.outcome is not None}
        return before | {device: result.outcome for device, result in self._done.results.items()}

    def _well(self) -> bool:
        good = (Outcome.SUCCEEDED, Outcome.UNCHANGED, Outcome.UNREACHABLE, Outcome.DEFERRED)
        return self._done.state != "halted" and all(outcome in good for outcome in self._outcomes().values())

    # -- around it -------------------------------------------------------------------------------------

    def _document(self) -> dict[str, Any]:
        """What hooks and programs are told of the rollout."""
        results = self._done.results
        return {
            "kind": self._rollout.kind,
            "release": f"r{self._rollout.release_number}" if self._rollout.release_number else None,
            "manifest": self._rollout.manifest,
            "manifest_digest": self._rollout.manifest_digest,
            "state": self._done.state,
            "reason": self._done.reason,
            "waves": max((place.wave for place in self._places), default=-1) + 1,
            "bytes_to_move": self._plan.bytes_to_move,
            "devices": [
                {
                    "device": place.device,
                    "wave": place.wave,
                    "release": f"r{place.release_number}" if place.release_number else None,
                    **_ended(results.get(place.device), place),
                }
                for place in self._places
            ],
        }

    def _hook(self, name: str, *, must: bool) -> None:
        command = self._undertaking.hooks.get(name)
        if command is not None:
            document = {"rollout": self._rollout.id, **self._document()}
            hooks.run(name, command, document, self._undertaking.folder, must=must)


def _settled(step: Step) -> Result:
    assert step.outcome is not None
    return Result(
        step.device, step.outcome, step.reason, number=step.release.number if step.release else None
    )


def _ended(result: Result | None, place: RolloutPart) -> dict[str, Any]:
    outcome = result.outcome if result is not None else place.outcome
    return {
        "outcome": outcome.value if outcome else None,
        "reason": result.reason if result is not None else place.reason,
    }
