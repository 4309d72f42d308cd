"""Gathers everything that a plan is made from: the manifest's models, the devices' answers, the placements.

Reads from everywhere, writes to the inventory only what the devices said of themselves; no device is changed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import DeviceRelease, ServedModel
from agent_daemon.contract.wire import DeviceState, Outcome, WorkerStatus
from edgectl import catalog, ladders, selector
from edgectl.errors import EdgectlError, Unreachable, UsageError
from edgectl.fit.device_memory import device_memory
from edgectl.fit.margins import Margin
from edgectl.fit.placement import ModelRequest, Placed, Refusal
from edgectl.fit.together import Wanted, place_all
from edgectl.inventory.values import Device, Release
from edgectl.ladders import Ladder, Ladders
from edgectl.manifest import Manifest, ModelSpec
from edgectl.observe import Look, Sighting, record
from edgectl.plan import Desired, Observed, Plan, diff

if TYPE_CHECKING:
    from edgectl.inventory.repository import Repository


@dataclass(frozen=True)
class Prepared:
    """A plan with what is needed to record and execute it. `content` identifies the release."""

    plan: Plan
    content: Mapping[str, Any]
    known: Release | None
    """The release in the inventory that has this content already."""
    sightings: tuple[Sighting, ...]
    warnings: tuple[str, ...]


def prepare(
    repository: "Repository",
    manifest: Manifest,
    base: Path,
    progress: catalog.Progress,
    look: Look,
    *,
    retry: bool = False,
    replan: bool = False,
    prune: bool = False,
) -> Prepared:
    """The plan of a deploy. A device that got its part of the same content before keeps its placement, so that a
    deploy repeated on a busier day does not shuffle models; `replan` places all anew. Raises EdgectlError."""
    devices = selected(repository.devices(), manifest.devices)
    resolved = ladders.resolve(manifest, base, progress)
    content = _content(manifest, resolved)
    known = _known(repository, manifest.name, content)
    sightings = look(devices)
    record(repository, sightings)
    margins = repository.margins()
    holding = repository.holding() if any(sighting.state is None for sighting in sightings) else {}
    desired: dict[str, Desired] = {}
    for sighting in sightings:
        name = sighting.device.name
        kept = _kept(repository, known, sighting) if known and not replan else None
        if known and kept:
            desired[name] = Desired(kept, notes=_gpu_notes(sighting), kept=known.number)
        else:
            workers = holding.get(name, ())
            desired[name] = desired_on(manifest, resolved, _remembered(sighting, workers), margins)
    plan = diff(manifest.name, desired, observed(sightings), retry=retry, prune=prune)
    return Prepared(plan, content, known, sightings, resolved.warnings)


def _remembered(sighting: Sighting, workers: Sequence[WorkerStatus]) -> Sighting:
    """A device that cannot be asked is placed in the memory that it last said it has: it will get that when it is back,
    and measures before it changes anything. Without facts there is nothing to place in."""
    facts = sighting.device.facts
    if sighting.state is not None or facts is None or not isinstance(sighting.error, Unreachable):
        return sighting
    state = DeviceState(agent_id=facts.agent_id, workers=tuple(workers))
    return replace(sighting, facts=facts, state=state)


def _kept(repository: "Repository", known: Release, sighting: Sighting) -> DeviceRelease | None:
    """What the device was to serve under a release before. Not what it refused when it measured: that is placed anew,
    in the memory that there is now, unless it came to serve it all the same or will not have it again anyway."""
    name, state = sighting.device.name, sighting.state
    before = repository.device_release(known.number, name)
    if before is None or repository.outcome_of(known.number, name) is not Outcome.REFUSED:
        return before
    if state is None:
        return None
    digest = before.digest()
    settled = digest == state.active or any(barred.release == digest for barred in state.quarantine)
    return before if settled else None


def prepare_rollback(
    repository: "Repository",
    devices: Sequence[Device],
    number: int | None,
    look: Look,
    *,
    retry: bool = False,
) -> Prepared:
    """The plan of a rollback to release `number`, or of each device to the one before its current one."""
    if number is not None:
        repository.release(number)  # a number that never was is an error, not a refusal on every device
    sightings = look(devices)
    record(repository, sightings)
    before: Mapping[str, DeviceRelease | None]
    if number is None:
        before = {each.device.name: _release_before(repository, each) for each in sightings}
        why = "no release was committed here before the current one"
    else:
        before = repository.device_releases({device.name: number for device in devices})
        why = f"r{number} was never made for this device"
    desired: dict[str, Desired] = {}
    for device in devices:
        target = before.get(device.name)
        desired[device.name] = Desired(target, refusal=None if target else why)
    label = f"r{number}" if number is not None else "the previous release"
    return Prepared(diff(label, desired, observed(sightings), retry=retry), {}, None, sightings, ())


def _release_before(repository: "Repository", sighting: Sighting) -> DeviceRelease | None:
    """What the device served before its current release. That one may be missing from the inventory's rollouts:
    a device finishes by itself what was interrupted here, and then the last one known is the one before."""
    name = sighting.device.name
    last = repository.current_release(name)
    active = sighting.state.active if sighting.state else None
    if last is not None and active is not None and active != last.digest():
        return last
    return repository.previous_release(name)


def number(repository: "Repository", prepared: Prepared) -> tuple[Plan, int]:
    """Records the release that a prepared deploy makes, and returns the plan with its number in every part."""
    parts = {step.device: step.release for step in prepared.plan.steps if step.release is not None}
    release = repository.record_release(prepared.plan.manifest, prepared.content, parts)
    steps = tuple(
        replace(step, release=step.release.model_copy(update={"number": release.number}))
        if step.release
        else step
        for step in prepared.plan.steps
    )
    return replace(prepared.plan, steps=steps), release.number


def chosen(devices: Sequence[Device], names: Sequence[str], query: str | None) -> tuple[Device, ...]:
    """The devices that a person named, or that a selector matches; all without either. Raises UsageError."""
    known = {device.name for device in devices}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"there is no device {unknown[0]!r}", "see them with: edgectl device list")
    wanted = selector.parse(query) if query else None
    return tuple(
        device
        for device in devices
        if (not names or device.name in names)
        and (wanted is None or wanted.matches(device.labels, device.name))
    )


def observed(sightings: Sequence[Sighting]) -> dict[str, Observed]:
    """What the plan asks about each device."""
    return {sighting.device.name: Observed(sighting.state, sighting.problem) for sighting in sightings}


def selected(devices: Sequence[Device], query: str) -> tuple[Device, ...]:
    """Those that a selector matches. Raises EdgectlError when it matches none."""
    wanted = selector.parse(query)
    found = tuple(device for device in devices if wanted.matches(device.labels, device.name))
    if not found:
        raise EdgectlError(
            f"no device is selected by {query!r}; the inventory has {len(devices)}",
            "add one with: edgectl device add NAME --local --state-dir DIR, or change the manifest's devices",
        )
    return found


def _content(manifest: Manifest, resolved: Ladders) -> dict[str, Any]:
    """What makes two deploys the same release: the manifest's words and the bytes that they meant."""
    return {
        "manifest": manifest.content(),
        "artifacts": resolved.digests(),
    }


def _known(repository: "Repository", manifest: str, content: Mapping[str, Any]) -> Release | None:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = digests.of_bytes(text.encode())
    same = [
        release
        for release in repository.releases()
        if release.manifest == manifest and release.digest == digest
    ]
    return same[-1] if same else None


def desired_on(
    manifest: Manifest,
    resolved: Ladders,
    sighting: Sighting,
    margins: Mapping[str, Margin] = MappingProxyType({}),
) -> Desired:
    """What one device should serve, placed in the memory that it said it has. `margins`: what was learned of classes
    of devices (`Repository.margins`)."""
    if sighting.facts is None or sighting.state is None:
        return Desired(None)
    memory = device_memory(
        sighting.facts, sighting.state.workers, strategy=manifest.rollout.strategy, margins=margins
    )
    if sighting.facts.runtime.error:
        return Desired(None, refusal=f"its runtime does not work: {sighting.facts.runtime.error}")
    results = place_all(requested(manifest, resolved), memory)
    refusals = [result for result in results if isinstance(result, Refusal)]
    if refusals:
        return Desired(
            None,
            refusal="; ".join(f"{refusal.model}: {refusal.reason}" for refusal in refusals),
            details=tuple(line for refusal in refusals for line in refusal.attempts),
            notes=memory.notes,
            choices=results,
        )
    placed = [result for result in results if isinstance(result, Placed)]
    release = _device_release(manifest, resolved, placed)
    return Desired(release, notes=_notes(memory.notes, placed), choices=results)


def _notes(memory: Sequence[str], placed: Sequence[Placed]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*memory, *(note for result in placed for note in result.notes))))


def _gpu_notes(sighting: Sighting) -> tuple[str, ...]:
    """For a device that keeps its placement: what would be said of its memory."""
    if sighting.facts is None or sighting.state is None:
        return ()
    return device_memory(sighting.facts, sighting.state.workers).notes


def requested(manifest: Manifest, resolved: Ladders) -> list[Wanted]:
    """What the manifest asks of every device, model by model, in its order."""
    return [
        (_request(model, resolved.models[model.name]), resolved.models[model.name].candidates)
        for model in manifest.models
    ]


def _request(model: ModelSpec, ladder: Ladder) -> ModelRequest:
    return ModelRequest(
        name=model.name,
        task=model.task,
        context_min=model.context.min,
        context_want=model.context.want,
        parallel=model.parallel,
        cache=model.cache,
        kv_types=model.kv_types,
        gpu_layers=model.gpu_layers,
        order=model.order,
        adapters=ladder.adapters,
        pinned=model.residency.pinned,
        min_tokens_per_second=model.min_tokens_per_second,
    )


def _device_release(manifest: Manifest, resolved: Ladders, placed: Sequence[Placed]) -> DeviceRelease:
    """The number is a placeholder: the inventory gives the real one, and the digest does not cover it."""
    return DeviceRelease(
        number=1,
        manifest=manifest.name,
        models=tuple(
            ServedModel(
                name=model.name,
                task=model.task,
                artifact=result.candidate.artifact,
                adapters=tuple(attached.adapter for attached in resolved.models[model.name].adapters),
                placement=result.placement,
                sampling=model.sampling,
                system_prompt=model.system_prompt,
                limits=model.limits,
                residency=model.residency.model_copy(update={"on_demand": result.on_demand}),
            )
            for model, result in zip(manifest.models, placed, strict=True)
        ),
        probe=manifest.probe,
        access=manifest.access,
        strategy=manifest.rollout.strategy,
    )
