"""What models that share a device give up, in which order, and that nobody takes turns who need not."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.contract.need import layers, need
from agent_daemon.contract.release import KvType
from agent_daemon.contract.serve_options import ServeOptions
from edgectl.fit.device_memory import DeviceMemory, GpuMemory
from edgectl.fit.placement import ModelRequest, Placed, Refusal, place
from edgectl.fit.quality import good
from edgectl.fit.together import place_all
from tests.support.ladders import ladder

MIB = 2**20
GIB = 1024 * MIB
LLAMA = ladder("llama-8b:Q8_0", "llama-8b:Q4_K_M")
QWEN = ladder("qwen3-4b:Q8_0", "qwen3-4b:Q4_K_M")


def on(*gpus: float, ram: float = 24) -> DeviceMemory:
    """With so many GiB free."""
    found = tuple(GpuMemory(index, f"GPU-{index}", "RTX", int(free * GIB)) for index, free in enumerate(gpus))
    return DeviceMemory(gpus=found, ram_free=int(ram * GIB), ram_reserve=GIB)


def all_on_gpus(name: str, most: int = 32768, least: int = 4096) -> ModelRequest:
    return ModelRequest(name, most, least, gpu_layers="all")


def placed(results: Sequence[Placed | Refusal]) -> list[Placed]:
    found = [result for result in results if isinstance(result, Placed)]
    assert len(found) == len(results)
    return found


def test_with_room_for_all_each_has_what_it_would_have_alone() -> None:
    memory = on(40)
    wanted = [(all_on_gpus("a"), LLAMA), (all_on_gpus("b"), QWEN)]
    together = placed(place_all(wanted, memory))
    alone = placed([place(request, candidates, memory) for request, candidates in wanted])
    assert [each.placement for each in together] == [each.placement for each in alone]
    assert [each.notes for each in together] == [(), ()]


def test_contexts_give_way_first_and_in_the_same_proportion() -> None:
    first, second = placed(place_all([(all_on_gpus("a"), LLAMA), (all_on_gpus("b"), QWEN)], on(14)))
    assert (first.candidate, second.candidate) == (LLAMA[0], QWEN[0])
    for each in (first, second):
        assert 4096 < each.placement.context < 32768
        assert not each.on_demand
        assert each.placement.kv_type == "f16"
        other = "b" if each is first else "a"
        context = each.placement.context
        assert each.notes == (f"context {context} of the 32768 wanted: more does not fit beside {other}",)
    # what one would have had alone does not come out of the other's share
    assert abs(first.placement.context - second.placement.context) <= 1024


def test_then_the_type_of_the_cache_and_then_the_quantization() -> None:
    wanted = [
        (replace(all_on_gpus("a"), kv_types=("f16", "q8_0")), LLAMA[:1]),
        (replace(all_on_gpus("b"), kv_types=("f16", "q8_0")), QWEN[:1]),
    ]
    least = {
        kv_type: [
            need(each[0].facts, ServeOptions(4096, kv_type=kv_type), (layers(each[0].facts),)).gpus[0].total
            for _, each in wanted
        ]
        for kv_type in ("f16", "q8_0")
    }
    kept = 2 * 256 * MIB
    just = DeviceMemory(gpus=(GpuMemory(0, "GPU-0", None, sum(least["f16"]) + kept),), ram_free=24 * GIB)
    assert [(each.placement.kv_type, each.placement.context) for each in placed(place_all(wanted, just))] == [
        ("f16", 4096)
    ] * 2
    tight = DeviceMemory(gpus=(GpuMemory(0, "GPU-0", None, sum(least["q8_0"]) + kept),), ram_free=24 * GIB)
    assert [
        (each.placement.kv_type, each.placement.context) for each in placed(place_all(wanted, tight))
    ] == [("q8_0", 4096)] * 2
    less = DeviceMemory(gpus=(GpuMemory(0, "GPU-0", None, sum(least["q8_0"]) + kept - 1),), ram_free=24 * GIB)
    assert [each.on_demand for each in placed(place_all(wanted, less))] == [True, True]
    # with another quantization to step down to nobody has to take turns
    stepped = placed(place_all([(wanted[0][0], LLAMA), wanted[1]], less))
    assert [each.on_demand for each in stepped] == [False, False]
    assert [each.candidate for each in stepped] == [LLAMA[1], QWEN[0]]
    assert stepped[0].notes[-1] == "llama-8b-Q8_0.gguf would fit alone, and does not beside b"


def test_before_a_smaller_model_they_take_turns() -> None:
    small = ladder("llama-8b:Q8_0", "llama-1b:Q8_0")
    results = placed(place_all([(all_on_gpus("a"), LLAMA[:1]), (all_on_gpus("b"), small)], on(11)))
    assert [each.on_demand for each in results] == [True, True]
    assert [each.candidate.facts.file_type for each in results] == ["Q8_0", "Q8_0"]
    assert results[1].candidate == small[0]


def test_what_can_only_be_on_a_gpu_has_it_before_what_may_be_in_ram() -> None:
    anywhere = ModelRequest("a", 4096, 4096)
    first, second = placed(place_all([(anywhere, LLAMA[:1]), (all_on_gpus("b", 4096), QWEN[:1])], on(9)))
    assert (first.placement.memory, second.placement.memory) == ("ram", "vram")
    assert (first.on_demand, second.on_demand) == (False, False)


def test_what_does_not_fit_alone_either_is_not_blamed_on_the_others() -> None:
    # a GPU without a uuid is not one of several that a model is split over
    memory = DeviceMemory(
        gpus=(GpuMemory(0, "GPU-0", None, 8 * GIB), GpuMemory(1, None, None, 4 * GIB)), ram_free=24 * GIB
    )
    wanted = [(all_on_gpus("a", 131072), LLAMA[1:]), (all_on_gpus("b", 8192), ladder("llama-1b:Q8_0"))]
    first, second = placed(place_all(wanted, memory))
    assert [first.placement.gpu_uuid, second.placement.gpu_uuid] == ["GPU-0", None]
    assert first.notes == (f"context {first.placement.context} of the 131072 wanted: more does not fit",)
    assert second.notes == ()


def test_the_other_gpu_is_used_before_anybody_gives_anything_up() -> None:
    wanted = [(all_on_gpus("a"), LLAMA[1:]), (all_on_gpus("b"), QWEN)]
    first, second = placed(place_all(wanted, on(10, 9.5)))
    assert (first.placement.context, second.placement.context) == (32768, 32768)
    assert second.candidate == QWEN[0]
    assert {first.placement.gpu_uuid, second.placement.gpu_uuid} == {"GPU-0", "GPU-1"}


# -- for every device ------------------------------------------------------------------------------------

LADDERS = [
    ("llama-8b:Q8_0", "llama-8b:Q4_K_M"),
    ("qwen3-4b:Q8_0", "qwen3-4b:Q4_K_M"),
    ("llama-1b:Q8_0",),
    ("qwen3-4b:Q8_0", "llama-1b:Q8_0", "llama-1b:Q4_K_M"),
    ("llama-8b:Q8_0", "gemma2-2b:Q6_K"),
]
KV_TYPES: list[tuple[KvType, ...]] = [("f16",), ("f16", "q8_0")]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(LADDERS), st.sampled_from(KV_TYPES)), min_size=2, max_size=3),
    st.lists(st.integers(GIB, 14 * GIB), min_size=1, max_size=2),
)
def test_nobody_takes_turns_where_all_would_fit_on_gpus_at_their_least(
    models: list[tuple[tuple[str, ...], tuple[KvType, ...]]], free: list[int]
) -> None:
    memory = DeviceMemory(
        gpus=tuple(GpuMemory(index, f"GPU-{index}", None, size) for index, size in enumerate(free)),
        ram_free=64 * GIB,
    )
    wanted = [
        (replace(all_on_gpus(f"m{index}", 8192 + 256 * index), kv_types=kv_types), ladder(*names))
        for index, (names, kv_types) in enumerate(models)
    ]
    results = place_all(wanted, memory)
    if not all(isinstance(result, Placed) and result.on_demand for result in results):
        return
    ways = []
    for (request, candidates), result in zip(wanted, results, strict=True):
        assert isinstance(result, Placed)
        of_its_size = [
            each
            for each in candidates
            if each.facts.block_parameters == result.candidate.facts.block_parameters and good(each.facts)
        ]
        sizes = {
            need(each.facts, ServeOptions(4096, kv_type=kv_type), (layers(each.facts),)).gpus[0].total
            for each in of_its_size
            for kv_type in request.kv_types
        }
        ways.append([(gpu, size + memory.gpus[gpu].reserve) for gpu in range(len(free)) for size in sizes])
    for way in product(*ways):
        assert any(sum(size for number, size in way if number == gpu) > room for gpu, room in enumerate(free))
