"""What a worker and a measurement are told of a placement, and how a measurement's answer is understood."""

import asyncio
from pathlib import Path

import pytest

from agent_daemon.contract.release import GpuLayers, Placement, Predicted
from agent_daemon.errors import WorkerFailure
from agent_daemon.loading import Loader, _environment, _understood
from agent_daemon.preflight import Unmeasurable
from agent_daemon.room import Need, need
from agent_daemon.store import Store
from agent_daemon.worker_messages import Failed, Measured, Share, Unmeasured
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
    assert _understood(model, measured.model_dump_json(), 0) == Need(1, {"GPU-b": 7, "GPU-a": 8})


@pytest.mark.parametrize(
    ("printed", "status", "kind", "why"),
    [
        (Failed(message="no such tensor").model_dump_json(), 0, WorkerFailure, "no such tensor"),
        (Unmeasured(message="too old").model_dump_json(), 0, Unmeasurable, "too old"),
        ("", 0, Unmeasurable, "ended with status 0"),
        ("", -11, Unmeasurable, "ended with status -11"),
        ("llama.cpp speaks\n{}", 0, Unmeasurable, "makes no sense"),
        (Measured(host=Share(), gpus=(Share(),)).model_dump_json(), 0, Unmeasurable, "makes no sense"),
    ],
)
def test_what_is_no_measurement_says_so(printed: str, status: int, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        _understood(SERVED, printed, status)


@pytest.mark.engine
def test_a_model_of_the_store_is_measured_without_being_loaded(tmp_path: Path) -> None:
    found = asyncio.run(Loader(_store(tmp_path), tmp_path).measure(SERVED))
    assert found.vram == {}
    assert abs(found.ram - need(SERVED.placement).ram) < 16 * MIB


def _store(folder: Path) -> Store:
    store = Store(folder / "store")
    path = quickstart_model()
    (blob,) = artifact(path).files
    if not store.has(blob.digest):
        with store.open_partial(blob.digest, blob.size, 0) as partial:
            partial.write(path.read_bytes())
            partial.finish()
    return store
