"""What is told of a ladder: every rung that was tried, its verdict, and why."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.fit import Room, fit
from agent_daemon.contract.serve_options import ServeOptions
from edgectl.fit.device_memory import DeviceMemory, GpuMemory
from edgectl.fit.placement import ModelRequest, Placed, Refusal, place
from edgectl.fit.rungs import NOT_NEEDED, Rung
from tests.support.ladders import candidate, facts, ladder

GIB = 2**30
GB = 10**9
LADDER = ladder("llama-8b:Q8_0", "llama-8b:Q4_K_M", "llama-1b:Q8_0", "llama-8b:Q2_K")


def device(
    *gpus: float, ram: float = 24, vram_speed: int | None = None, ram_speed: int | None = None
) -> DeviceMemory:
    """With so many GiB free."""
    return DeviceMemory(
        gpus=tuple(
            GpuMemory(index, f"GPU-{index}", "RTX", int(free * GIB), bandwidth=vram_speed)
            for index, free in enumerate(gpus)
        ),
        ram_free=int(ram * GIB),
        ram_reserve=GIB,
        offloads=bool(gpus),
        ram_bandwidth=ram_speed,
    )


def told(rungs: Sequence[Rung]) -> list[tuple[str, str, str, str]]:
    return [(rung.candidate.removesuffix(".gguf"), rung.kv_type, rung.stage, rung.verdict) for rung in rungs]


def test_each_rung_down_to_the_choice_and_then_what_was_not_needed() -> None:
    memory = device(5.9)
    result = place(ModelRequest("m", 32768, 8192, kv_types=("f16", "q8_0")), LADDER, memory)
    assert isinstance(result, Placed)
    assert told(result.rungs) == [
        ("llama-8b-Q8_0", "f16", "gpu", "rejected"),
        ("llama-8b-Q8_0", "q8_0", "gpu", "rejected"),
        ("llama-8b-Q4_K_M", "f16", "gpu", "rejected"),
        ("llama-8b-Q4_K_M", "q8_0", "gpu", "chosen"),
        ("llama-1b-Q8_0", "f16", "gpu", "rejected"),
        ("llama-8b-Q2_K", "f16", "gpu", "rejected"),
    ]
    assert [rung.reason for rung in result.rungs[4:]] == [NOT_NEEDED] * 2
    first, chosen = result.rungs[0], result.rungs[3]
    # what does not fit is told at the context that comes closest, with its arithmetic
    arithmetic = fit(
        facts("llama-8b:Q8_0"), ServeOptions(8192), (33,), gpus=[Room(memory.gpus[0].free, 256 * 2**20)]
    ).arithmetic()
    assert (first.context, first.gpu_layers, first.reason) == (8192, 33, f"{arithmetic} (GPU 0, RTX)")
    assert (chosen.context, chosen.gpu_layers, chosen.report) == (
        result.placement.context,
        result.placement.gpu_layers,
        result.report,
    )
    assert chosen.reason.startswith("fits: needs ")
    assert "KV cache of q8_0: with f16 even context 8192 does not fit" in result.notes


def test_one_gpu_several_a_part_and_ram() -> None:
    result = place(ModelRequest("m", 4096, 4096, gpu_layers="partial"), LADDER[:1], device(1, 0.9, ram=4))
    assert isinstance(result, Refusal)
    assert [rung.stage for rung in result.rungs] == ["gpu", "gpus", "split", "ram"]
    assert all(rung.report is not None and not rung.report.fits for rung in result.rungs)
    assert [rung.report.memory for rung in result.rungs if rung.report] == ["vram", "vram", "vram", "ram"]
    over = result.rungs[1]
    assert over.report is not None
    assert (len(over.report.split), sum(over.report.split), over.gpu_layers) == (2, 33, 33)
    assert over.reason.endswith("(GPU 1, RTX and GPU 0, RTX)")


def test_a_context_that_only_several_gpus_have_room_for() -> None:
    request = ModelRequest("m", 16384, 4096)
    result = place(request, LADDER[1:2], device(6, 4))
    assert isinstance(result, Placed)
    assert told(result.rungs) == [
        ("llama-8b-Q4_K_M", "f16", "gpu", "rejected"),
        ("llama-8b-Q4_K_M", "f16", "gpus", "chosen"),
    ]
    assert result.rungs[0].reason == "fits with less context only (GPU 0, RTX)"
    assert result.placement.context == 16384
    assert result.notes == ()
    assert result.placement.gpu_uuid == result.placement.gpus[0].uuid
    assert sum(gpu.layers for gpu in result.placement.gpus) == result.placement.gpu_layers == 33
    assert result.placement.predicted.gpus == result.report.parts
    assert sum(result.report.parts) == result.placement.predicted.total


def test_what_runs_too_slowly_is_passed_over_for_a_smaller_model_that_runs_well() -> None:
    memory = device(2, vram_speed=300 * GB, ram_speed=10 * GB)
    result = place(ModelRequest("m", 8192, 4096, gpu_layers="partial"), LADDER, memory)
    assert isinstance(result, Placed)
    assert result.candidate.label == "llama-1b-Q8_0.gguf"
    slow = [rung for rung in result.rungs if rung.stage == "split"]
    assert [rung.verdict for rung in slow] == ["rejected"] * 2
    assert all(rung.tokens_per_second is not None and rung.tokens_per_second < 3 for rung in slow)
    assert slow[0].reason == f"about {slow[0].tokens_per_second:.1f} tokens/s (GPU 0, RTX), fewer than 3"
    assert result.notes[0].startswith("llama-8b-Q8_0.gguf in part on the GPU was passed over: about ")


def test_where_nothing_is_fast_the_first_that_fits_is_taken_and_said_to_be_slow() -> None:
    memory = device(ram_speed=10 * GB)
    result = place(ModelRequest("m", 4096, 4096), LADDER[:1], memory)
    assert isinstance(result, Placed)
    assert result.tokens_per_second == pytest.approx(1.2, abs=0.1)
    assert result.notes == ("about 1.2 tokens/s: no candidate that fits here reaches 3",)
    asked = ModelRequest("m", 4096, 4096, min_tokens_per_second=1.0)
    content = place(asked, LADDER[:1], memory)
    assert isinstance(content, Placed)
    assert content.notes == ()


def test_a_speed_that_is_asked_for_and_not_reached_is_a_refusal_with_the_estimate() -> None:
    request = ModelRequest("m", 4096, 4096, min_tokens_per_second=60)
    refusal = place(request, LADDER, device(ram_speed=10 * GB))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "llama-1b-Q8_0.gguf at context 4096: about 7.2 tokens/s (RAM), fewer than 60"
    assert len(refusal.attempts) == 4
    unknown = place(request, LADDER, device())
    assert isinstance(unknown, Placed)
    assert unknown.notes == (
        "min_tokens_per_second 60 was not judged: a bandwidth of the device is not known",
    )


def test_a_model_that_a_quantized_cache_harms_has_one_only_where_it_is_named() -> None:
    harmed = facts("llama-1b:Q8_0").model_copy(update={"architecture": "gpt-oss"})
    found = (candidate("o", 0, harmed),)
    auto = place(ModelRequest("m", 4096, 4096, kv_types=("f16", "q8_0")), found, device(0.5, ram=2))
    assert isinstance(auto, Refusal)
    passed_over = [rung for rung in auto.rungs if rung.kv_type == "q8_0"]
    assert [(rung.report, rung.verdict) for rung in passed_over] == [(None, "rejected")]
    assert passed_over[0].reason == (
        "gpt-oss answers badly with a quantized cache: q8_0 is taken only where kv_type names it"
    )
    named = place(ModelRequest("m", 4096, 4096, kv_types=("q8_0",)), found, device(4))
    assert isinstance(named, Placed)
    assert named.placement.kv_type == "q8_0"
    assert named.notes == ("KV cache of q8_0, as kv_type says: gpt-oss is known to answer badly with it",)


def test_heads_that_a_quantized_cache_does_not_take() -> None:
    odd = facts("llama-1b:Q8_0").model_copy(update={"key_length": 80, "key_length_sliding": 80})
    refusal = place(
        ModelRequest("m", 4096, 4096, kv_types=("f16", "q8_0")), (candidate("o", 0, odd),), device(ram=2)
    )
    assert isinstance(refusal, Refusal)
    assert [rung.report is None for rung in refusal.rungs] == [False, True]
    assert refusal.rungs[1].reason == "its heads of 80 elements are no multiple of 32, as q8_0 needs"


def test_nothing_is_put_into_words_before_somebody_asks() -> None:
    placed = place(ModelRequest("m", 4096), LADDER, device(6))
    refused = place(ModelRequest("m", 4096, 4096), LADDER[:1], device(ram=1))
    assert isinstance(placed, Placed)
    assert isinstance(refused, Refusal)
    for result in (placed, refused):
        assert "rungs" not in vars(result)
        assert result.rungs is result.rungs
    assert "reason" not in vars(refused)
    assert refused.reason


@given(
    vram=st.lists(st.integers(0, 12 * GIB), max_size=3),
    ram=st.integers(0, 16 * GIB),
    layers=st.sampled_from(["auto", "all", "partial", 0, 5]),
    floor=st.sampled_from([None, 4.0, 50.0]),
    known=st.booleans(),
)
def test_whatever_the_device_every_candidate_is_accounted_for(
    vram: list[int], ram: int, layers: Any, floor: float | None, known: bool
) -> None:
    memory = DeviceMemory(
        gpus=tuple(
            GpuMemory(index, f"GPU-{index}", None, free, bandwidth=200 * GB if known else None)
            for index, free in enumerate(vram)
        ),
        ram_free=ram,
        ram_bandwidth=20 * GB if known else None,
    )
    request = ModelRequest(
        "m", 8192, 2048, kv_types=("f16", "q8_0"), gpu_layers=layers, min_tokens_per_second=floor
    )
    result = place(request, LADDER, memory)
    if not memory.gpus and layers in ("all", 5):
        assert isinstance(result, Refusal)
        assert (result.rungs, result.attempts) == ((), ())
        return
    assert {rung.candidate for rung in result.rungs} == {each.label for each in LADDER}
    json.dumps([rung.as_dict() for rung in result.rungs], allow_nan=False)
    chosen = [rung for rung in result.rungs if rung.verdict == "chosen"]
    if isinstance(result, Refusal):
        assert chosen == []
        assert len(result.attempts) == len(LADDER)
        assert result.reason in result.attempts
    else:
        (only,) = chosen
        assert only.report == result.report
        assert (only.context, only.kv_type) == (result.placement.context, result.placement.kv_type)
        assert only.tokens_per_second == result.tokens_per_second
        after = result.rungs[result.rungs.index(only) + 1 :]
        if only.reason.endswith("nothing is faster that fits"):
            assert floor is None
        else:
            assert {rung.reason for rung in after} <= {NOT_NEEDED}
    for rung in result.rungs:
        if rung.verdict == "rejected" and rung.report is not None and rung.report.fits:
            assert "tokens/s" in rung.reason or rung.reason.startswith("fits with less context only")
