"""What a worker and a measurement are told of a placement, and how a measurement's answer is understood."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from agent_daemon.contract.release import GpuLayers, Placement, Predicted
from agent_daemon.errors import WorkerFailure
from agent_daemon.loading import Loader, _answer, _environment, understood
from agent_daemon.measured import Measurements, library
from agent_daemon.preflight import Unmeasurable
from agent_daemon.room import Need, need
from agent_daemon.store import Store
from agent_daemon.worker_messages import Failed, Measured, Measurement, Share, Unmeasured
from agent_daemon.worker_process import WorkerProcess
from tests.support.models import quickstart_model
from tests.support.releases import MIB, artifact, served


def placed(*gpus: GpuLayers, uuid: str | None = None) -> Placement:
    sizes = tuple(part.layers * MIB for part in gpus)
    return Placement(
        memory="vram" if gpus or uuid else "ram",
        gpu_uuid=gpus[0].uuid if gpus else uuid,
        gpu_layers=sum(part.layers for part in gpus) or (31 if uuid else 0),
        layers=31,
        context=512,
        parallel=1,
        kv_type="f16",
        predicted=Predicted(weights=0, kv_cache=0, compute=0, total=sum(sizes), gpus=sizes),
        gpus=gpus,
    )


BOTH = (GpuLayers(uuid="GPU-b", layers=20), GpuLayers(uuid="GPU-a", layers=11))
SERVED = served("m", quickstart_model(), context=512)


def test_a_process_sees_the_gpus_of_its_placement_in_their_order() -> None:
    assert _environment(placed(*BOTH)) == {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a"}
    assert _environment(placed(uuid="GPU-a")) == {"CUDA_VISIBLE_DEVICES": "GPU-a"}
    assert _environment(placed()) == {}


def test_a_split_is_told_layer_by_layer(tmp_path: Path) -> None:
    model = SERVED.model_copy(update={"placement": placed(*BOTH)})
    load = Loader(_store(tmp_path), tmp_path)._load(model)
    assert (load.gpu_layers, load.split) == (31, (20, 11))
    assert Loader(_store(tmp_path), tmp_path)._load(SERVED).split == ()


def test_an_answer_is_put_on_the_gpus_of_the_placement() -> None:
    measured = Measured(host=Share(weights=1), gpus=(Share(compute=7), Share(kv_cache=8)))
    model = SERVED.model_copy(update={"placement": placed(*BOTH)})
    assert understood(model, measured) == Need(1, {"GPU-b": 7, "GPU-a": 8})


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (Failed(message="no such tensor"), WorkerFailure, "no such tensor"),
        (Unmeasured(message="too old"), Unmeasurable, "too old"),
        (Measured(host=Share(), gpus=(Share(),)), Unmeasurable, "makes no sense"),
    ],
)
def test_what_is_no_measurement_says_so(answer: Measurement, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        understood(SERVED, answer)


@pytest.mark.engine
def test_a_process_that_has_measured_becomes_the_worker(tmp_path: Path) -> None:
    async def measured_and_spawned() -> None:
        loader = Loader(_store(tmp_path), tmp_path)
        await loader.measure(SERVED)
        (waiting,) = loader._waiting.values()
        assert 8 * MIB < loader.waiting() < 200 * MIB
        process = await loader.spawn(SERVED)
        try:
            assert process is waiting
            assert loader.waiting() == 0
            ready = await process.ready()
            # What measuring took is not taken for the model's.
            predicted = SERVED.placement.predicted.total
            assert abs(ready.ram_bytes - predicted) < predicted * 0.1 + 8 * MIB
            again = await loader.spawn(SERVED)
            assert again is not waiting
            await again.stop()
        finally:
            await process.stop()

    asyncio.run(measured_and_spawned())


@pytest.mark.engine
def test_a_process_that_ends_while_it_measures_cannot_say(tmp_path: Path) -> None:
    async def killed() -> None:
        process = await WorkerProcess.spawn(None, tmp_path / "log", {})
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(Unmeasurable, match="has no answer: the worker was ended by SIGKILL"):
            await _answer(process, Loader(_store(tmp_path), tmp_path)._load(SERVED))

    asyncio.run(killed())


@pytest.mark.engine
def test_a_model_of_the_store_is_measured_without_being_loaded(tmp_path: Path) -> None:
    found = asyncio.run(_measured(Loader(_store(tmp_path), tmp_path)))
    assert found.vram == {}
    assert abs(found.ram - need(SERVED.placement).ram) < 16 * MIB


@pytest.mark.engine
def test_what_was_measured_once_is_known_until_the_library_is_another(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    found = asyncio.run(_measured(Loader(_store(tmp_path), tmp_path, Measurements(file, "one"))))

    def loader(runtime: str) -> Loader:
        made = Loader(_store(tmp_path), tmp_path, Measurements(file, runtime))
        made._start = None  # type: ignore[assignment, method-assign]
        return made

    assert asyncio.run(loader("one").measure(SERVED)) == found
    with pytest.raises(TypeError, match="NoneType"):
        asyncio.run(loader("two").measure(SERVED))
    file.write_text("nonsense")
    assert Measurements(file, "one").known(SERVED.engine_key()) is None
    assert "libllama" in library()


async def _measured(loader: Loader) -> Need:
    try:
        return await loader.measure(SERVED)
    finally:
        await loader.close()


def _store(folder: Path) -> Store:
    store = Store(folder / "store")
    path = quickstart_model()
    (blob,) = artifact(path).files
    if not store.has(blob.digest):
        with store.open_partial(blob.digest, blob.size, 0) as partial:
            partial.write(path.read_bytes())
            partial.finish()
    return store
