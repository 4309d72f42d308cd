"""The record of what a load took, and for which kind of device it says something."""

from typing import Any

from agent_daemon.contract.release import GpuLayers, Placement, Predicted, ServedModel
from agent_daemon.contract.wire import Facts, Fitted, GpuFacts, RuntimeFacts, WorkerState, WorkerStatus
from agent_daemon.fitted import fitted
from agent_daemon.room import Need
from tests.support.inventory_messages import device_release

FACTS = Facts(
    agent_id="a",
    agent_version="1",
    arch="x86_64",
    gpus=(GpuFacts(index=0, uuid="GPU-0", vendor="nvidia", name="NVIDIA L4"),),
    runtime=RuntimeFacts(version="1", backends=("cpu", "cuda")),
)


def model(**placed: Any) -> ServedModel:
    (base,) = device_release(model="m").models
    settings: dict[str, Any] = {
        "memory": "ram",
        "gpu_layers": 0,
        "layers": 31,
        "context": 512,
        "parallel": 2,
        "kv_type": "q8_0",
        "predicted": Predicted(weights=70, kv_cache=20, compute=10, total=100),
    }
    return base.model_copy(update={"placement": Placement(**settings | placed)})


def status(of: ServedModel, **more: Any) -> WorkerStatus:
    return WorkerStatus(models=("m",), engine_key=of.engine_key(), state=WorkerState.READY, **more)


def test_a_model_in_ram_speaks_for_ram() -> None:
    served = model()
    told = fitted(served, status(served, ram_bytes=97, vram_bytes=None), Need(99), 1.5, FACTS)
    assert told == Fitted(
        model="m",
        engine_key=served.engine_key(),
        memory="ram",
        device_class="RAM, x86_64",
        context=512,
        parallel=2,
        kv_type="q8_0",
        gpu_layers=0,
        predicted=100,
        planned=99,
        measured=97,
        loaded_in=1.5,
    )


def test_a_model_on_gpus_speaks_for_their_kind_and_counts_what_is_on_them() -> None:
    parts = (GpuLayers(uuid="GPU-0", layers=20), GpuLayers(uuid="GPU-1", layers=11))
    served = model(memory="vram", gpu_uuid="GPU-0", gpu_layers=31, gpus=parts)
    held = status(served, ram_bytes=10, vram_bytes=400)
    told = fitted(served, held, Need(5, {"GPU-0": 60, "GPU-1": 41}), 1.5, FACTS)
    assert told is not None
    assert (told.device_class, told.gpus, told.gpu_layers) == ("NVIDIA L4, cuda", 2, 31)
    assert (told.planned, told.measured) == (101, 400)
    unplanned = fitted(served, held.model_copy(update={"vram_bytes": None}), None, 1.5, FACTS)
    assert unplanned is not None
    assert (unplanned.planned, unplanned.measured) == (None, None)


def test_what_was_simulated_or_lies_on_a_gpu_without_a_name_teaches_nothing() -> None:
    served = model(memory="vram", gpu_uuid="GPU-0", gpu_layers=31)
    assert fitted(served, status(served, simulated_offload=True), None, 1.5, FACTS) is None
    elsewhere = model(memory="vram", gpu_uuid="GPU-9", gpu_layers=31)
    assert fitted(elsewhere, status(elsewhere, vram_bytes=5), None, 1.5, FACTS) is None
