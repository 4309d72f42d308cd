"""Splits over several GPUs are found with few questions: they fit, and no context that would have fitted is missed."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.contract import fit as fits
from agent_daemon.contract.fit import Room
from agent_daemon.contract.need import need
from edgectl.fit.curves import Curve
from edgectl.fit.device_memory import DeviceMemory, GpuMemory
from edgectl.fit.steps import requirements
from edgectl.fit.wanted import ModelRequest
from edgectl.fit.ways import Space, find
from tests.support.ladders import ladder

MIB = 2**20
NAMES = ("llama-8b:Q4_K_M", "gemma2-2b:Q6_K", "qwen3-30b-a3b:Q4_K_M", "mixtral-8x7b:Q4_K_M")


@cache
def curve(name: str) -> Curve:
    """One for all examples, as one serves all devices: what is kept of one must not mislead another."""
    request = ModelRequest("m", 4096, 2048)
    (curves,) = requirements(request, ladder(name)).candidates
    return curves[0]


def space(*free: int, reserve: int = 0) -> Space:
    gpus = tuple(
        GpuMemory(index, f"GPU-{index}", None, size, reserve=reserve) for index, size in enumerate(free)
    )
    return Space.of(DeviceMemory(gpus=gpus))


devices = st.lists(st.floats(0.02, 1.3), min_size=2, max_size=4)


def made(name: str, shares: list[float]) -> Space:
    """GPUs that could hold such shares of the model between them."""
    size = curve(name).facts.tensor_bytes
    return space(*(int(share * size / len(shares)) + 300 * MIB for share in shares), reserve=256 * MIB)


@settings(max_examples=150)
@given(st.sampled_from(NAMES), devices)
def test_a_whole_model_over_gpus_fits_with_the_largest_context_that_does(
    name: str, shares: list[float]
) -> None:
    model, device = curve(name), made(name, shares)
    found = find(model, "whole", device)
    assert found is None or found.report(device).fits
    for place in range(0 if found is None else found.place + 1, model.top + 1):
        options = model.options(place)
        assert need(model.facts, options, (model.layers,)).gpus[0].total > device.rooms[0].budget
        for gpus in device.several:
            assert fits.whole(model.facts, options, [Room(gpu.free, gpu.reserve) for gpu in gpus]) is None


@settings(max_examples=150)
@given(st.sampled_from(NAMES), devices, st.integers(0, 8))
def test_a_part_on_gpus_fits_and_has_no_fewer_layers_than_the_search_finds(
    name: str, shares: list[float], place: int
) -> None:
    model, device = curve(name), made(name, shares)
    found = find(model, "split", device, span=(place, place))
    most = [
        sum(
            fits.most_layers(model.facts, model.options(place), [Room(gpu.free, gpu.reserve) for gpu in gpus])
        )
        for gpus in (device.gpus[:1], *device.several)
    ]
    # a model that fits as a whole is never asked for in part
    assert max(most) == model.layers or (0 if found is None else sum(found.split)) >= max(most)
    assert found is None or found.report(device).fits


@pytest.mark.parametrize("name", NAMES)
def test_what_just_fits_is_found_and_a_byte_less_is_not(name: str) -> None:
    model = curve(name)
    half = model.layers // 2
    split = (model.layers - half, half)
    first, last = (part.total for part in need(model.facts, model.options(0), split).gpus)
    if first < last:
        found = find(model, "whole", space(first, last), span=(0, 0))
        assert found is not None
        assert (found.split, [gpu.index for gpu in found.gpus]) == (split, [0, 1])
        assert find(model, "whole", space(first - 1, last), span=(0, 0)) is None
        assert find(model, "whole", space(first, last - 1), span=(0, 0)) is None
