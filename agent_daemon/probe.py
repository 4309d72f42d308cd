"""Whether a freshly loaded release is healthy: it has to be, without a break, for a minimum time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent_daemon.activation import memory_bound, on_demand, resident
from agent_daemon.contract.health import Health, HealthClock
from agent_daemon.contract.release import DeviceRelease, Probe, ServedModel
from agent_daemon.contract.wire import WorkerStatus
from agent_daemon.errors import WorkerFailure
from agent_daemon.probe_conversations import Messages, conversations
from agent_daemon.residency import LOAD_SECONDS, Residents
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_messages import Choosing, Done, Generate, Refused
from agent_daemon.worker_process import WorkerProcess

_PAUSE, _SHORTEST_PAUSE = 0.5, 0.05
"""Seconds between two rounds of checks."""


class ProbeFailed(Exception):
    """The release is not healthy; the message is the reason that people read."""


class _NotYet(Exception):
    """A check failed that may pass later: the clock starts again."""


async def hold_probe(
    release: DeviceRelease, supervisor: Supervisor, residents: Residents, note: Callable[[str], None]
) -> None:
    """Returns once every check of the resident models has held for `min_healthy` seconds, and each model that is
    loaded on demand has been loaded, by turns, and passed its checks once. Raises ProbeFailed at the first thing
    that time will not mend, or when `timeout` seconds have passed without that; loading does not count."""
    watch = _Watch(release.probe, supervisor, note)
    staying = resident(release)
    await watch.hold(staying, release.probe.min_healthy if staying else 0)
    for model in on_demand(release):
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                await residents.acquire(model.engine_key())
        except WorkerFailure as error:
            raise ProbeFailed(f"{model.name} could not be loaded: {error}") from None
        except TimeoutError:
            raise ProbeFailed(f"{model.name} was not loaded within {LOAD_SECONDS:g} s") from None
        try:
            await watch.hold((model,), 0)
        finally:
            # The next one may have its memory now.
            supervisor.end_request(model.engine_key(), None)
        # What was healthy alone has to be healthy beside each of them.
        await watch.hold(staying, 0)


@dataclass(frozen=True)
class _Watch:
    """Checks models over and over, until they have been healthy for long enough or time is up."""

    probe: Probe
    supervisor: Supervisor
    note: Callable[[str], None]

    async def hold(self, models: Sequence[ServedModel], seconds: float) -> None:
        """Returns once all checks of the loaded `models` have held for `seconds`. Raises ProbeFailed."""
        deadline = time.monotonic() + self.probe.timeout
        healthy = HealthClock(seconds)
        last = ""
        while True:
            try:
                async with asyncio.timeout_at(
                    asyncio.get_running_loop().time() + deadline - time.monotonic()
                ):
                    for model in models:
                        await _check(model, self.probe, self.supervisor)
                if healthy.probed(Health.GOOD, time.monotonic()):
                    return
            except _NotYet as reason:
                if str(reason) != last:
                    self.note(f"{reason}; waiting for it to hold {seconds:g} s")
                last = str(reason)
                healthy.probed(Health.BAD, time.monotonic())
            except TimeoutError:
                last = last or "the model did not answer the probe"
                healthy.probed(Health.UNKNOWN, time.monotonic())
            if time.monotonic() >= deadline:
                raise ProbeFailed(f"not healthy within {self.probe.timeout:g} s: {last or 'too little time'}")
            # What is left of the time that it has to hold may be shorter than a pause.
            left = max(_SHORTEST_PAUSE, seconds - healthy.counted)
            await asyncio.sleep(min(_PAUSE, left, max(0.0, deadline - time.monotonic())))


async def _check(model: ServedModel, probe: Probe, supervisor: Supervisor) -> None:
    key = model.engine_key()
    try:
        process = await supervisor.wait_ready(key)
        status = next(status for status in supervisor.status() if status.engine_key == key)
        _check_offload(model, status)
        if model.task == "chat":
            await _check_answer(model, probe, process)
        else:
            await _check_vector(model, process)
    except WorkerFailure as error:
        raise ProbeFailed(f"{model.name}: {error}") from None
    status = next(status for status in supervisor.status() if status.engine_key == key)
    _check_memory(model, probe, status)


def _check_offload(model: ServedModel, status: WorkerStatus) -> None:
    placed = model.placement
    if placed.gpu_layers and (status.offloaded_layers or 0) < placed.gpu_layers:
        raise ProbeFailed(
            f"{model.name}: {status.offloaded_layers or 0} of {placed.gpu_layers} placed layers are on the GPU"
            " (llama.cpp's own count)"
        )


async def _check_answer(model: ServedModel, probe: Probe, process: WorkerProcess) -> None:
    asked = await conversations(model, probe.prompt, process)
    if isinstance(asked, Refused):
        raise ProbeFailed(f"{model.name}: {asked.message}")
    for messages in asked:
        done = await _answered(model, probe, process, messages)
        if done.completion_tokens:
            _check_speed(model, probe, done)
            return
    # At temperature 0 the same prompt gets the same answer: trying again would change nothing.
    raise ProbeFailed(f"{model.name}: answered the probe with nothing")


async def _answered(model: ServedModel, probe: Probe, process: WorkerProcess, messages: Messages) -> Done:
    request = Generate(id=0, messages=messages, sampling=Choosing(temperature=0), max_tokens=probe.max_tokens)
    done: Done | None = None
    async for event in process.generate(request):
        if isinstance(event, Refused):
            raise ProbeFailed(f"{model.name}: {event.message}")
        if isinstance(event, Done):
            done = event
    assert done is not None  # without one, generate raises
    return done


def _check_speed(model: ServedModel, probe: Probe, done: Done) -> None:
    # The first token comes out of the prompt's own computation and says nothing about speed.
    steps = done.completion_tokens - 1
    speed = steps / done.seconds if steps and done.seconds else None
    floor = probe.min_tokens_per_second
    if floor is not None and speed is not None and speed < floor:
        raise _NotYet(f"{model.name}: {speed:.1f} tokens/s, the manifest asks for at least {floor:g}")


async def _check_vector(model: ServedModel, process: WorkerProcess) -> None:
    answer = await process.embed((model.name,))
    if isinstance(answer, Refused):
        raise ProbeFailed(f"{model.name}: {answer.message}")
    if not any(answer.vectors[0]):
        raise ProbeFailed(f"{model.name}: its embedding is all zeros")


def _check_memory(model: ServedModel, probe: Probe, status: WorkerStatus) -> None:
    predicted = model.placement.predicted.total
    measured = status.vram_bytes if model.placement.memory == "vram" else status.ram_bytes
    bound = memory_bound(predicted, probe.memory_margin)
    if measured is not None and measured > bound:
        raise _NotYet(
            f"{model.name}: takes {measured / 2**30:.2f} GiB, more than the predicted "
            f"{predicted / 2**30:.2f} GiB and its margin"
        )
