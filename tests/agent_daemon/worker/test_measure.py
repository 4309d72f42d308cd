"""What is measured before a load is what the load then takes, buffer by buffer, in RAM and over several devices."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.worker_messages import (
    AdapterFile,
    Failed,
    Load,
    Measured,
    Share,
    Unmeasured,
    parse_measurement,
)
from tests.support import models, rpc_devices
from tests.support.lora import write_lora
from tests.support.releases import facts
from tests.support.tiny_models import KINDS, tiny_model

pytestmark = pytest.mark.engine

_LOADED = """
import ctypes, json, sys
from pathlib import Path
import llama_cpp, msgspec
from agent_daemon.worker.breakdown import breakdown
from agent_daemon.worker.measure import measure
from agent_daemon.worker.model import Model
from agent_daemon.worker.runtime import EngineLog, load_backends
from agent_daemon.worker_messages import Load
from tests.bench.fit.truth import attach

asked = json.load(sys.stdin)
library = load_backends()
if asked["library"]:
    attach(library, Path(asked["library"]), asked["devices"])
load = msgspec.convert(asked["load"], Load)
log = EngineLog()
model = Model(load, log)
parts = breakdown(model.ctx, library)
print(json.dumps({
    "offloaded": log.offloaded_layers,
    "rows": [llama_cpp.llama_n_seq_max(model.ctx), llama_cpp.llama_n_ubatch(model.ctx)],
    "loaded": [[p.host, p.device, p.weights, p.cache, p.compute] for p in parts],
    "planned": json.loads(measure(load).json()),
}))
"""
"""A process that loads a model for real, and measures it besides."""


def load(path: Path, **more: Any) -> Load:
    settings: dict[str, Any] = {
        "task": "chat",
        "context": 512,
        "parallel": 2,
        "kv_type": "f16",
        "gpu_layers": 0,
        "threads": 1,
    }
    return Load(path=str(path), **settings | more)


def measured(asked: Load) -> Measured | Unmeasured | Failed:
    """By the process that the agent starts for it."""
    done = subprocess.run(
        [sys.executable, "-m", "agent_daemon.worker", "--measure"],
        input=asked.json().decode(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return parse_measurement(done.stdout.splitlines()[-1])


def loaded(asked: Load, devices: rpc_devices.Devices | None = None) -> dict[str, Any]:
    question = {
        "load": json.loads(asked.json()),
        "library": str(devices.library) if devices else None,
        "devices": devices.addresses if devices else (),
    }
    done = subprocess.run(
        [sys.executable, "-c", _LOADED],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


# -- in RAM ----------------------------------------------------------------------------------------------


def assert_as_loaded(asked: Load) -> None:
    """Cache and compute buffers to the byte. Weights that are mapped from the file are not in llama.cpp's account of a
    load: they are the file's tensors, each of which begins at a multiple of 32 bytes."""
    plan, answer = measured(asked), loaded(asked)
    assert isinstance(plan, Measured), plan
    assert plan == parse_measurement(json.dumps(answer["planned"]))
    assert plan.gpus == ()
    assert {host for host, *_ in answer["loaded"]} == {True}
    known = facts(Path(asked.path))
    sequences, ubatch = answer["rows"]
    if asked.task == "embeddings":
        outputs = 4 * ubatch * (known.n_vocab + known.n_embd)
    else:
        outputs = 4 * sequences * known.n_vocab
    assert plan.host.kv_cache == sum(cache for _, _, _, cache, _ in answer["loaded"])
    assert plan.host.compute == sum(compute for *_, compute in answer["loaded"]) + outputs
    assert 0 <= plan.host.weights - known.tensor_bytes <= 32 * 1000


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_takes_what_was_measured(kind: str) -> None:
    task = "embeddings" if KINDS[kind].pooling is not None else "chat"
    assert_as_loaded(load(tiny_model(kind), task=task))


@pytest.mark.parametrize("name", models.LADDER)
def test_a_real_model_takes_what_was_measured_in_every_quantization(name: str) -> None:
    assert_as_loaded(load(models.quantized(name), context=1024, parallel=3, kv_type="q8_0"))


def test_cells_that_are_shared_are_counted_once() -> None:
    path = tiny_model("dense")
    whole, shared = measured(load(path, parallel=4)), measured(load(path, parallel=4, cells=512))
    assert isinstance(whole, Measured)
    assert isinstance(shared, Measured)
    assert whole.host.kv_cache == 4 * shared.host.kv_cache


def test_an_adapter_adds_its_tensors(tmp_path: Path) -> None:
    path = tiny_model("dense")
    file = write_lora(tmp_path / "a.gguf", path, "a")
    plain = measured(load(path))
    both = measured(load(path, adapters=(AdapterFile(name="a", path=str(file)),)))
    assert isinstance(plain, Measured)
    assert isinstance(both, Measured)
    assert both.host.weights - plain.host.weights == facts(file).tensor_bytes
    assert both.host.kv_cache == plain.host.kv_cache


def test_what_llama_cpp_logs_says_nearly_as_much_as_its_account() -> None:
    """For systems where the account cannot be read: to the hundredth of a MiB for each buffer."""
    from agent_daemon.worker.measure import from_log

    lines = [
        "llama_kv_cache: size =    5.00 MiB (  1024 cells,  30 layers,  2/1 seqs), K (f16):    2.50 MiB",
        "llama_memory_recurrent: size =    1.25 MiB (     2 cells,   4 layers,  2 seqs)",
        "sched_reserve:        CPU compute buffer size =    16.50 MiB",
        "llama_context:        CPU  output buffer size =     0.75 MiB",
    ]
    mib = 1 << 20
    assert from_log(lines, 7) == Share(weights=7, kv_cache=6 * mib + mib // 4, compute=16 * mib + mib // 2)
    assert from_log(["nothing of the kind"], 7) is None


def test_the_log_of_this_engine_says_what_its_account_says() -> None:
    program = (
        "import msgspec, sys\n"
        "from agent_daemon.worker import measure as measuring\n"
        "from agent_daemon.worker_messages import Load\n"
        "load = msgspec.json.decode(sys.stdin.read(), type=Load)\n"
        "by_account = measuring.measure(load)\n"
        "measuring.breakdown = lambda *_: None\n"
        "halved = msgspec.structs.replace(load, gpu_layers=2)\n"
        "said = [by_account, measuring.measure(load), measuring.measure(halved)]\n"
        "print(msgspec.json.encode(said).decode())\n"
    )
    asked = load(models.quickstart_model())
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=asked.json().decode(),
        capture_output=True,
        text=True,
        check=True,
    )
    by_account, by_log, on_gpu = json.loads(done.stdout.splitlines()[-1])
    assert by_log["host"]["weights"] <= by_account["host"]["weights"]
    for part in ("kv_cache", "compute"):
        assert abs(by_log["host"][part] - by_account["host"][part]) < 4 * 0.005 * 2**20, part
    assert on_gpu == {
        "ev": "unmeasured",
        "message": "this build of llama.cpp does not say what it takes of each memory",
    }


# -- files that are none ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [models.truncated, models.refused_by_llama])
def test_a_file_that_llama_cpp_refuses_is_refused_with_its_own_reason(tmp_path: Path, make: Any) -> None:
    answer = measured(load(make(tmp_path)))
    assert isinstance(answer, Failed)
    assert "\n" not in answer.message
    assert ("attn_output" if make is models.refused_by_llama else "file bounds") in answer.message


def test_an_adapter_that_is_none_is_refused(tmp_path: Path) -> None:
    stray = tmp_path / "stray.gguf"
    stray.write_bytes(b"GGUF" + bytes(40))
    answer = measured(load(tiny_model("dense"), adapters=(AdapterFile(name="a", path=str(stray)),)))
    assert isinstance(answer, Failed)
    assert answer.message.startswith("an adapter cannot be read: ")


def test_where_offload_is_simulated_nothing_is_measured_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECTL_TEST_SIMULATE_OFFLOAD", "1")
    assert measured(load(tiny_model("dense"), gpu_layers=2)) == Unmeasured(
        message="offload is simulated on this machine"
    )
    assert isinstance(measured(load(tiny_model("dense"))), Measured)


# -- over devices ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_devices() -> Iterator[rpc_devices.Devices]:
    with rpc_devices.devices(2) as running:
        yield running


@pytest.mark.parametrize("split", [(1, 30), (16, 15), (20, 1), (1, 1), (5, 3), (29, 2)])
def test_each_device_takes_exactly_the_layers_that_it_was_given(
    two_devices: rpc_devices.Devices, split: tuple[int, ...]
) -> None:
    path = models.quantized("Q8_0")
    answer = loaded(load(path, gpu_layers=sum(split), split=split), two_devices)
    assert answer["offloaded"] == sum(split)
    # llama.cpp's account is in no order of its own.
    on_devices = sorted((part for part in answer["loaded"] if not part[0]), key=lambda part: part[1])
    assert len(on_devices) == len(split)
    known = facts(path)
    cache = 2 * 512 * 2 * 2 * known.n_kv_heads[0] * known.key_length
    blocks = (split[0], split[1] - 1)
    plan = parse_measurement(json.dumps(answer["planned"]))
    assert isinstance(plan, Measured), plan
    sequences, ubatch = answer["rows"]
    # Where no layer stays in RAM, a real load keeps one more batch of hidden states on the last of several devices
    # than llama.cpp plans for, if it has more than one block.
    tokens = -(-ubatch // sequences) * sequences
    more = (0, 4 * known.n_embd * tokens if sum(split) == 31 and blocks[1] > 1 else 0)
    for share, part, count, unplanned in zip(plan.gpus, on_devices, blocks, more, strict=True):
        _, _, weights, cached, compute = part
        assert (share.weights, share.kv_cache, share.compute + unplanned) == (weights, cached, compute)
        assert cached == count * cache
    last = known.output_bytes + known.other_bytes + (known.token_embd_bytes if known.tied_output else 0)
    start = 31 - sum(split)
    counted = [
        sum(known.layer_bytes[start : start + split[0]]),
        sum(known.layer_bytes[start + split[0] :]) + last,
    ]
    assert [share.weights for share in plan.gpus] == counted
    ram = [part for part in answer["loaded"] if part[0]]
    assert plan.host.kv_cache == sum(part[3] for part in ram) == (30 - sum(blocks)) * cache
    assert plan.host.compute == sum(part[4] for part in ram) + 4 * sequences * known.n_vocab


def test_one_device_of_two_holds_a_model_that_was_placed_on_one(two_devices: rpc_devices.Devices) -> None:
    answer = loaded(load(tiny_model("dense"), gpu_layers=3), two_devices)
    assert answer["offloaded"] == 3
    assert len([part for part in answer["loaded"] if not part[0]]) == 1
    plan = parse_measurement(json.dumps(answer["planned"]))
    assert isinstance(plan, Measured)
    assert len(plan.gpus) == 1


def test_what_is_placed_in_ram_takes_nothing_of_a_device(two_devices: rpc_devices.Devices) -> None:
    answer = loaded(load(tiny_model("dense")), two_devices)
    assert [part for part in answer["loaded"] if not part[0]] == []
    plan = parse_measurement(json.dumps(answer["planned"]))
    assert isinstance(plan, Measured)
    assert plan.gpus == ()
    assert plan == measured(load(tiny_model("dense")))


def test_an_adapter_lies_beside_the_layers_that_it_changes(
    two_devices: rpc_devices.Devices, tmp_path: Path
) -> None:
    path = tiny_model("templated")
    file = write_lora(tmp_path / "a.gguf", path, "a")
    adapters = (AdapterFile(name="a", path=str(file)),)
    plain = loaded(load(path, gpu_layers=3, split=(1, 2)), two_devices)["planned"]
    both = loaded(load(path, gpu_layers=3, split=(1, 2), adapters=adapters), two_devices)["planned"]
    more = [
        after["weights"] - before["weights"]
        for before, after in zip(plain["gpus"], both["gpus"], strict=True)
    ]
    assert more == list(facts(file).layer_bytes)
    assert both["host"]["weights"] == plain["host"]["weights"]
