"""Placement: cases in tests/cases/placement, and what holds for every device."""

import json
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract import need as needs
from agent_daemon.contract.fit import VRAM_RESERVE, FitReport, Room, fit
from agent_daemon.contract.gguf import FileSource, read_facts
from agent_daemon.contract.release import Adapter, Artifact, BlobRef
from agent_daemon.contract.serve_options import ServeOptions
from agent_daemon.contract.wire import Facts, GpuFacts, RuntimeFacts
from edgectl.fit.device_memory import DeviceMemory, GpuMemory, device_memory
from edgectl.fit.placement import AttachedAdapter, ModelRequest, Placed, Refusal, place
from edgectl.fit.quality import rank
from edgectl.fit.together import place_all
from edgectl.fit.wanted import GpuLayers
from edgectl.sizes import parse_size
from tests.support.adapter_files import write_adapter
from tests.support.ladders import candidate, facts, ladder

GIB = 2**30
CASES = sorted((Path(__file__).parents[2] / "cases" / "placement").glob("*.json"))


def sized(values: dict[str, Any]) -> dict[str, Any]:
    """Sizes of a case are written as people write them, or as what has to fit."""
    memory = tuple(key for key in values if key.startswith(("ram_", "vram_")) and "bandwidth" not in key)
    return {key: _size(value) if key in memory else value for key, value in values.items()}


def _size(written: Any) -> int:
    """`{"for": [...], "spare": SIZE}`: just room for these models, reserves and margins included, and so much more. Each is
    `{"model", "context", "kv_type", "layers", "reserve"}`; without `layers` it is whole, and `layers` 0 is RAM."""
    if not isinstance(written, dict):
        return parse_size(written)
    total = parse_size(written.get("spare", "0"))
    for each in written["for"]:
        known = facts(each["model"])
        options = ServeOptions(each["context"], kv_type=each.get("kv_type", "f16"))
        count = each.get("layers", needs.layers(known))
        wanted = needs.need(known, options, (count,) if count else ())
        total += wanted.margin + (wanted.gpus[0].total if count else wanted.host.total)
        total += parse_size(each["reserve"]) if "reserve" in each else VRAM_RESERVE
    return total


def listed(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def device_of(case: dict[str, Any]) -> Facts:
    known = sized({key: value for key, value in case.items() if key not in ("gpus", "backends")})
    return Facts(
        agent_id="a",
        agent_version="1",
        gpus=tuple(GpuFacts(vendor="nvidia", **sized(gpu)) for gpu in case.get("gpus", ())),
        runtime=RuntimeFacts(backends=tuple(case.get("backends", ("cpu", "cuda")))),
        **known,
    )


def said(expected: Any, found: Any) -> bool:
    """Whether that is what a case expects; `*` in a text stands for figures of compute, which are not the point."""
    if isinstance(expected, str) and isinstance(found, str):
        return fnmatchcase(found, expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(said, expected, found))
    return bool(expected == found)


def outcome(result: Placed | Refusal) -> dict[str, Any]:
    """All that a case can ask about."""
    if isinstance(result, Refusal):
        return {"refused": result.reason, "attempts": list(result.attempts)}
    return {
        "candidate": result.candidate.label.removesuffix(".gguf"),
        "memory": result.placement.memory,
        "gpu": result.placement.gpu_uuid,
        "gpus": {gpu.uuid: gpu.layers for gpu in result.placement.gpus},
        "gpu_layers": result.placement.gpu_layers,
        "context": result.placement.context,
        "kv_type": result.placement.kv_type,
        "notes": list(result.notes),
        "on_demand": result.on_demand,
    }


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    memory = device_memory(device_of(case["device"]))
    assert list(memory.notes) == case.get("device_notes", [])
    models = [
        (ModelRequest(name=f"model-{index}", **listed(model["request"])), ladder(*model["candidates"]))
        for index, model in enumerate(case["models"])
    ]
    results = place_all(models, memory)
    for result, expected in zip(results, case["expect"], strict=True):
        found = outcome(result)
        wrong = {key: found.get(key) for key in expected if not said(expected[key], found.get(key))}
        assert wrong == {}


def on(vram: int | None, ram: int | None) -> DeviceMemory:
    gpus = () if vram is None else (GpuMemory(0, "GPU-0", "RTX", vram),)
    return DeviceMemory(gpus=gpus, ram_free=ram, offloads=vram is not None)


LADDER = ladder(
    "llama-8b:Q8_0", "llama-8b:Q4_K_M", "qwen3-4b:Q4_K_M", "llama-1b:Q8_0", "llama-8b:Q2_K", "llama-1b:Q2_K"
)


def in_ram(name: str, context: int, free: int) -> FitReport:
    return fit(facts(name), ServeOptions(context), ram=Room(free))


def test_a_refusal_has_the_arithmetic_of_the_closest_and_a_line_for_each() -> None:
    refusal = place(
        ModelRequest("m", 8192, 2048), ladder("llama-8b:Q8_0", "llama-8b:Q4_K_M"), on(None, 4 * GIB)
    )
    assert isinstance(refusal, Refusal)
    assert refusal.reason == (
        f"llama-8b-Q4_K_M.gguf at context 2048: {in_ram('llama-8b:Q4_K_M', 2048, 4 * GIB).arithmetic()} (RAM)"
    )
    assert [line.split(" at ")[0] for line in refusal.attempts] == [
        "llama-8b-Q8_0.gguf",
        "llama-8b-Q4_K_M.gguf",
    ]


def test_a_refusal_on_a_gpu_names_it_and_its_reserve() -> None:
    refusal = place(
        ModelRequest("m", 2048, 2048, gpu_layers="all"), ladder("llama-8b:Q4_K_M"), on(4 * GIB, 64 * GIB)
    )
    assert isinstance(refusal, Refusal)
    assert refusal.reason.endswith("; free 3.8 of 4.0 after 0.2 kept for the driver (GPU 0, RTX)")


def test_nothing_to_place_or_nowhere() -> None:
    empty = place(ModelRequest("m", 512), (), on(None, GIB))
    assert isinstance(empty, Refusal)
    assert (empty.reason, empty.attempts, empty.rungs) == ("it has no candidates", (), ())
    refusal = place(ModelRequest("m", 512, gpu_layers="all"), LADDER, on(None, 64 * GIB))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "gpu_layers asks for a GPU, and this device has none that its runtime can use"


def test_unknown_ram_is_a_refusal_and_not_a_guess() -> None:
    refusal = place(ModelRequest("m", 512), LADDER, on(None, None))
    assert isinstance(refusal, Refusal)
    assert refusal.reason.endswith("(RAM, of which the free part is not known)")


def test_a_candidate_that_can_never_serve_is_passed_over() -> None:
    encoder = candidate("e", 0, facts("llama-1b:Q8_0").model_copy(update={"architecture": "bert"}))
    result = place(
        ModelRequest("m", 512, order="listed"), (encoder, replace(LADDER[3], position=1)), on(None, 64 * GIB)
    )
    assert isinstance(result, Placed)
    assert result.candidate.label == "llama-1b-Q8_0.gguf"
    alone = place(ModelRequest("m", 512), (encoder,), on(None, 64 * GIB))
    why = "e.gguf: it is an embedding model (bert) and cannot generate text"
    assert isinstance(alone, Refusal)
    assert (alone.reason, alone.attempts) == (why, (why,))


def test_an_encoder_s_batch_is_its_context() -> None:
    encoder = candidate("e", 0, facts("llama-1b:Q8_0").model_copy(update={"architecture": "bert"}))
    small, large = (
        place(ModelRequest("m", context, context, task="embeddings"), (encoder,), on(None, 64 * GIB))
        for context in (512, 2048)
    )
    assert isinstance(small, Placed)
    assert isinstance(large, Placed)
    assert large.report.compute > 3 * small.report.compute
    assert large.report.kv_cache == 0


def test_an_incomplete_file_is_told() -> None:
    whole = candidate("llama-1b:Q8_0")
    blob = whole.artifact.files[0]
    short = blob.model_copy(update={"size": blob.size - 2**20})
    cut = replace(whole, artifact=whole.artifact.model_copy(update={"files": (short,)}))
    result = place(ModelRequest("m", 512), (cut,), on(None, 64 * GIB))
    assert isinstance(result, Placed)
    assert result.notes == ("llama-1b-Q8_0.gguf is incomplete: 1.0 MiB of its tensors are not in it",)


def test_the_same_model_under_two_names_is_loaded_once() -> None:
    memory = on(None, 6 * GIB)
    model = ladder("llama-8b:Q4_K_M")
    a, b, c = ModelRequest("a", 2048), ModelRequest("b", 2048), ModelRequest("c", 4096)
    one, two = place_all([(a, model), (b, model)], memory)
    assert isinstance(one, Placed)
    assert isinstance(two, Placed)
    assert (two.model, two.placement, two.on_demand) == ("b", one.placement, False)
    # another context is another worker, and there is no room for two
    turns = place_all([(a, model), (b, model), (c, model)], memory)
    assert [isinstance(each, Placed) and each.on_demand for each in turns] == [True] * 3
    # what one name pins stays for the other one too
    both = place_all([(a, model), (replace(b, pinned=True), model), (c, model)], memory)
    assert [each.on_demand for each in both if isinstance(each, Placed)] == [False, False]
    assert isinstance(both[2], Refusal)
    assert both[2].reason.endswith(" beside the pinned a and b")


def attached(folder: Path, scale: float = 1.0) -> AttachedAdapter:
    path = write_adapter(folder / "legal.gguf", "llama", [("blk.0.ffn_up.weight", 2048, 8192)], rank=1024)
    with FileSource(path) as source:
        found = read_facts(source)
    blob = BlobRef(digest="sha256:" + "1" * 64, size=path.stat().st_size, name=path.name)
    artifact = Artifact(ref=f"file:{path}", digest=blob.digest, files=(blob,))
    return AttachedAdapter(Adapter(name="legal", artifact=artifact, scale=scale), found)


def test_adapters_are_part_of_what_a_model_needs(tmp_path: Path) -> None:
    plain = ModelRequest("m", 2048, 2048, gpu_layers="all")
    adapted = replace(plain, adapters=(attached(tmp_path),))
    model, size = ladder("llama-1b:Q4_K_M"), 4 * 1024 * (2048 + 8192)
    without, with_it = (place(request, model, on(2 * GIB, 8 * GIB)) for request in (plain, adapted))
    assert isinstance(without, Placed)
    assert isinstance(with_it, Placed)
    assert with_it.placement.predicted.total - without.placement.predicted.total == size
    just = without.placement.predicted.total + VRAM_RESERVE
    assert isinstance(place(plain, model, on(just, 8 * GIB)), Placed)
    refusal = place(adapted, model, on(just, 8 * GIB))
    assert isinstance(refusal, Refusal)
    assert "weights 773 (adapters 40), KV 64, compute " in refusal.reason


def test_a_worker_is_shared_with_the_same_adapters_only(tmp_path: Path) -> None:
    model, memory = ladder("llama-1b:Q4_K_M"), on(None, 8 * GIB)
    one = ModelRequest("a", 2048, adapters=(attached(tmp_path),))
    other = ModelRequest("b", 2048, adapters=(attached(tmp_path, scale=0.5),))
    need = place(one, model, memory)
    assert isinstance(need, Placed)
    room = on(None, int(1.5 * need.report.total))
    shared = place_all([(one, model), (replace(one, name="b"), model)], room)
    assert [isinstance(each, Placed) and each.on_demand for each in shared] == [False, False]
    apart = place_all([(one, model), (other, model)], room)
    assert [isinstance(each, Placed) and each.on_demand for each in apart] == [True, True]


# -- for every device ------------------------------------------------------------------------------------

requests = st.builds(
    lambda least, more, parallel, kv_types, layers, order, pinned: ModelRequest(
        "m",
        least + more,
        least,
        parallel=parallel,
        kv_types=kv_types,
        gpu_layers=layers,
        order=order,
        pinned=pinned,
    ),
    least=st.integers(1, 20_000),
    more=st.integers(0, 40_000),
    parallel=st.integers(1, 4),
    kv_types=st.sampled_from([("f16",), ("q8_0",), ("f16", "q8_0")]),
    layers=st.sampled_from(["auto", "all", "partial", 0, 7, 99]),
    order=st.sampled_from(["quality", "listed"]),
    pinned=st.booleans(),
)
sizes = st.integers(0, 24 * GIB)


@given(request=requests, vram=st.none() | sizes, ram=st.none() | sizes, reserve=st.integers(0, GIB))
def test_never_more_than_is_free(
    request: ModelRequest, vram: int | None, ram: int | None, reserve: int
) -> None:
    memory = replace(on(vram, ram), ram_reserve=reserve)
    result = place(request, LADDER, memory)
    if isinstance(result, Refusal):
        assert result.reason
        return
    placement, report = result.placement, result.report
    assert report.fits
    assert placement.predicted.total == report.weights + report.kv_cache + report.compute
    if placement.memory == "vram":
        assert vram is not None
        assert report.total <= vram - report.reserve
        assert ram is None or report.host <= max(0, ram - reserve)
        assert placement.gpu_uuid == "GPU-0"
    else:
        assert ram is not None
        assert report.total <= ram - reserve
        assert (placement.gpu_uuid, placement.gpu_layers) == (None, 0)
    trained = result.candidate.facts.context_length
    assert trained is not None
    assert request.context_min <= placement.context <= min(request.context_want, trained)
    if placement.context % 256:
        assert placement.context in (request.context_min, request.context_want)
    if request.gpu_layers == "all":
        assert placement.gpu_layers == placement.layers
    if isinstance(request.gpu_layers, int):
        assert placement.gpu_layers == min(request.gpu_layers, placement.layers)


@given(request=requests, one=sizes, other=sizes)
def test_more_memory_of_one_kind_never_gives_a_worse_candidate(
    request: ModelRequest, one: int, other: int
) -> None:
    low, high = sorted((one, other))
    kinds: tuple[tuple[str, GpuLayers], ...] = (("ram", 0), ("vram", "all"))
    for kind, layers in kinds:
        wanted = replace(request, gpu_layers=layers)
        small, large = (
            place(wanted, LADDER, on(None, free) if kind == "ram" else on(free, 64 * GIB))
            for free in (low, high)
        )
        if isinstance(small, Refusal):
            continue
        assert isinstance(large, Placed)
        ranked = LADDER if request.order == "listed" else sorted(LADDER, key=lambda item: rank(item.facts))
        assert ranked.index(large.candidate) <= ranked.index(small.candidate)
        if large.candidate == small.candidate:
            assert large.placement.context >= small.placement.context


@given(st.lists(requests, max_size=4), sizes, sizes)
def test_what_is_in_memory_at_once_never_takes_more_than_there_is(
    wanted: list[ModelRequest], vram: int, ram: int
) -> None:
    results = place_all([(request, LADDER) for request in wanted], on(vram, ram))
    workers = {
        replace(request, name="", pinned=False): result
        for request, result in zip(wanted, results, strict=True)
    }
    placed = [result for result in workers.values() if isinstance(result, Placed)]
    resident = [result for result in placed if not result.on_demand]
    turns = [result for result in placed if result.on_demand]
    for at_once in [[*resident, turn] for turn in turns] or [resident]:
        on_gpu = [result.report for result in at_once if result.placement.memory == "vram"]
        in_ram = [result.report for result in at_once if result.placement.memory == "ram"]
        assert sum(report.total + report.reserve for report in on_gpu) <= vram or not on_gpu
        taken = sum(report.host for report in on_gpu) + sum(report.total for report in in_ram)
        assert taken <= ram or not at_once
    for request, result in zip(wanted, results, strict=True):
        assert not (request.pinned and isinstance(result, Placed) and result.on_demand)
    assert len(turns) != 1 or any(isinstance(result, Refusal) for result in workers.values())
