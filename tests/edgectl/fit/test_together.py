"""Several models on one device: never more than there is, nobody with less than the others leave, turns last."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.contract.fit import Room, fit
from agent_daemon.contract.need import need
from agent_daemon.contract.serve_options import ServeOptions
from edgectl.fit.device_memory import DeviceMemory, GpuMemory
from edgectl.fit.placement import Candidate, ModelRequest, Placed, Refusal, place
from edgectl.fit.rungs import KEEPS_SIZE
from edgectl.fit.together import place_all
from tests.support.ladders import candidate, facts, ladder

GIB = 2**30
MIB = 2**20
STRANGE = candidate("strange", 4, facts("llama-1b:Q8_0").model_copy(update={"architecture": "brand-new"}))
LADDERS = (
    ladder("llama-8b:Q8_0", "llama-8b:Q4_K_M", "llama-1b:Q8_0", "llama-8b:Q2_K"),
    ladder("qwen3-4b:Q4_K_M", "qwen3-4b:Q3_K_M"),
    ladder("gemma2-2b:Q4_K_M", "llama-1b:Q4_K_M"),
    (STRANGE,),
)

requests = st.builds(
    lambda least, more, kv_types, layers, pinned: ModelRequest(
        "m", least + more, least, kv_types=kv_types, gpu_layers=layers, pinned=pinned
    ),
    least=st.sampled_from([512, 2048, 3000]),
    more=st.sampled_from([0, 1024, 5000]),
    kv_types=st.sampled_from([("f16",), ("f16", "q8_0")]),
    layers=st.sampled_from(["auto", "all", "partial", 0, 7]),
    pinned=st.booleans(),
)
devices = st.builds(
    lambda free, ram, limited, margin: DeviceMemory(
        gpus=tuple(
            GpuMemory(index, None if size % 7 == 0 else f"GPU-{index}", None, size, reserve)
            for index, (size, reserve) in enumerate(free)
        ),
        ram_free=ram,
        ram_reserve=512 * MIB,
        limited=limited,
        ram_margin=margin,
    ),
    free=st.lists(st.tuples(st.integers(0, 12 * GIB), st.sampled_from([0, 256 * MIB])), max_size=3),
    ram=st.none() | st.integers(0, 24 * GIB),
    limited=st.booleans(),
    margin=st.sampled_from([0, 200 * MIB]),
)


def taken(placed: Sequence[Placed], memory: DeviceMemory) -> tuple[dict[str | None, int], int]:
    """Bytes of each GPU by uuid, and of RAM, with all that is kept for each worker."""
    vram: dict[str | None, int] = {}
    ram = 0 if memory.limited or not placed else memory.ram_reserve
    kept = {gpu.uuid: gpu.reserve for gpu in memory.gpus}
    for each in placed:
        report = each.report
        ram += memory.ram_reserve if memory.limited else 0
        if report.memory == "ram":
            ram += report.total + report.margin + memory.ram_margin
            continue
        ram += report.host
        uuids: list[str | None] = [gpu.uuid for gpu in each.placement.gpus]
        uuids = uuids or [each.placement.gpu_uuid]
        for uuid, part in zip(uuids, report.parts, strict=True):
            share = part + report.margin // len(uuids) + kept[uuid]
            vram[uuid] = vram.get(uuid, 0) + share
    return vram, ram


@settings(max_examples=150)
@given(st.lists(st.tuples(requests, st.sampled_from(LADDERS)), min_size=1, max_size=4), devices)
def test_no_memory_is_ever_given_out_twice(
    wanted: list[tuple[ModelRequest, tuple[Candidate, ...]]], memory: DeviceMemory
) -> None:
    unnamed = sum(gpu.uuid is None for gpu in memory.gpus)
    free = {gpu.uuid: gpu.free for gpu in memory.gpus}
    results = place_all(wanted, memory)
    workers = {
        (replace(request, pinned=False), offered): result
        for (request, offered), result in zip(wanted, results, strict=True)
    }
    placed = [result for result in workers.values() if isinstance(result, Placed)]
    resident = [result for result in placed if not result.on_demand]
    for at_once in [[*resident, each] for each in placed if each.on_demand] or [resident]:
        vram, ram = taken(at_once, memory)
        for uuid, size in vram.items():
            assert size <= free[uuid] or (uuid is None and unnamed > 1)
        if memory.ram_free is not None:
            assert ram <= memory.ram_free or not at_once
        else:
            assert all(each.report.memory == "vram" for each in at_once)
    for (request, offered), result in zip(wanted, results, strict=True):
        assert result.model == request.name
        if isinstance(result, Placed):
            assert not (request.pinned and result.on_demand)
            assert request.context_min <= result.placement.context
            assert {rung.candidate for rung in result.rungs} == {each.label for each in offered}
            assert [rung.report for rung in result.rungs if rung.verdict == "chosen"] == [result.report]
        else:
            assert result.reason


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from(LADDERS), st.sampled_from([512, 1024, 4096])), min_size=2, max_size=4),
    st.integers(2 * GIB, 20 * GIB),
    st.integers(0, 12 * GIB),
)
def test_nobody_has_less_context_than_the_others_leave(
    offered: list[tuple[tuple[Candidate, ...], int]], first: int, second: int
) -> None:
    memory = DeviceMemory(
        gpus=tuple(
            GpuMemory(index, f"GPU-{index}", None, free) for index, free in enumerate((first, second))
        ),
        ram_free=32 * GIB,
    )
    wanted = [
        (ModelRequest(f"m{number}", 8192, least, gpu_layers="all"), candidates)
        for number, (candidates, least) in enumerate(offered)
    ]
    results = place_all(wanted, memory)
    placed = {
        result.candidate.label + str(result.placement.context): result
        for result in results
        if isinstance(result, Placed) and not result.on_demand and not result.placement.gpus
    }
    if len(placed) < len(results):
        return
    vram, _ = taken(list(placed.values()), memory)
    for result in placed.values():
        gpu = next(gpu for gpu in memory.gpus if gpu.uuid == result.placement.gpu_uuid)
        trained = result.candidate.facts.context_length or 8192
        more = (result.placement.context // 256 + 1) * 256
        if more > min(8192, trained):
            continue
        mine, _ = taken([result], memory)
        left = gpu.free - vram[gpu.uuid] + mine[gpu.uuid]
        split = (result.placement.layers,)
        larger = fit(
            result.candidate.facts,
            ServeOptions(more),
            split,
            gpus=[Room(left, gpu.reserve)],
            ram=Room(32 * GIB),
        )
        assert not larger.fits


def on(*free: float, ram: float = 24) -> DeviceMemory:
    return DeviceMemory(
        gpus=tuple(
            GpuMemory(index, f"GPU-{index}", "RTX", int(size * GIB)) for index, size in enumerate(free)
        ),
        ram_free=int(ram * GIB),
        ram_reserve=GIB,
    )


def asked(name: str, least: int, most: int, **more: object) -> ModelRequest:
    return replace(ModelRequest(name, most, least, gpu_layers="all"), **more)  # type: ignore[arg-type]


def test_the_order_of_the_manifest_does_not_decide_who_gets_less() -> None:
    model = ladder("llama-8b:Q4_K_M")
    one, other = asked("a", 1024, 16384), asked("b", 1024, 16384, parallel=2)
    for order in ([one, other], [other, one]):
        results = place_all([(request, model) for request in order], on(12))
        contexts = {
            result.model: result.placement.context for result in results if isinstance(result, Placed)
        }
        assert [result.on_demand for result in results if isinstance(result, Placed)] == [False, False]
        # what is left after equal shares is less than a step of both
        assert abs(contexts["a"] - contexts["b"]) <= 512


def test_a_gpu_of_its_own_is_not_shared_for_nothing() -> None:
    small, large = ladder("llama-1b:Q4_K_M"), ladder("llama-8b:Q4_K_M")
    just = need(small[0].facts, ServeOptions(8192), (17,)).gpus[0].total + 256 * MIB
    results = place_all(
        [
            (asked("a", 1024, 16384), large),
            (asked("b", 1024, 16384, parallel=2), large),
            (asked("c", 1024, 8192), small),
        ],
        on(6.5, 6, just / GIB),
    )
    placed = [result for result in results if isinstance(result, Placed)]
    assert [result.placement.gpu_uuid for result in placed] == ["GPU-1", "GPU-0", "GPU-2"]
    # the third one has what it wants although the first two have less
    assert placed[2].placement.context == 8192
    assert max(result.placement.context for result in placed[:2]) < 16384


def test_who_steps_down_in_company_is_told_with_what_the_others_leave() -> None:
    wanted = [(asked("a", 4096, 4096), LADDERS[0][1:3]), (asked("b", 4096, 4096), LADDERS[1])]
    both = place_all(wanted, on(8.5))
    assert [result.on_demand for result in both if isinstance(result, Placed)] == [False, False]
    first, second = both
    assert isinstance(first, Placed)
    assert isinstance(second, Placed)
    assert second.report.free == on(8.5).gpus[0].free - first.report.total - 256 * MIB
    assert [rung.verdict for rung in first.rungs] == ["chosen", "rejected"]


def test_a_smaller_model_is_said_to_have_been_left_out() -> None:
    offered = ladder("llama-8b:Q4_K_M", "llama-1b:Q8_0", "llama-8b:Q3_K_M")
    auto = ModelRequest("a", 4096, 4096, gpu_layers="auto")
    results = place_all([(auto, offered), (replace(auto, name="b", parallel=2), offered)], on(6))
    first, second = results
    assert isinstance(first, Placed)
    assert isinstance(second, Placed)
    assert (first.placement.memory, second.placement.memory) == ("vram", "ram")
    reasons = {rung.candidate: rung.reason for rung in second.rungs if rung.stage == "gpu"}
    assert reasons["llama-1b-Q8_0.gguf"] == KEEPS_SIZE
    assert reasons["llama-8b-Q4_K_M.gguf"].startswith("needs ")


@pytest.mark.parametrize("pinned", [True, False])
def test_one_that_fits_beside_nothing(pinned: bool) -> None:
    big = ladder("llama-8b:Q8_0")
    results = place_all(
        [(asked("a", 4096, 4096, pinned=pinned), big), (asked("b", 512, 512), ladder("llama-1b:Q4_K_M"))],
        on(3),
    )
    assert isinstance(results[0], Refusal)
    assert results[0].model == "a"
    assert isinstance(results[1], Placed)
    assert results[1].on_demand is not pinned


def test_the_result_does_not_depend_on_what_was_placed_before() -> None:
    wanted = [(asked("a", 1024, 8192), LADDERS[0]), (asked("b", 1024, 8192), LADDERS[1])]
    again = [place_all(wanted, on(size)) for size in (10, 6, 10)]
    assert again[0] == again[2]
    assert again[0] != again[1]
    alone = place(wanted[0][0], wanted[0][1], on(10))
    (only,) = place_all(wanted[:1], on(10))
    assert alone == only
