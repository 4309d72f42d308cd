"""A whole inventory placed without asking anybody, and what each refused device would need."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent_daemon.contract.fit import VRAM_RESERVE
from agent_daemon.contract.need import layers, need
from agent_daemon.contract.serve_options import ServeOptions
from agent_daemon.contract.wire import DeviceState, Facts, GpuFacts, RuntimeFacts
from edgectl import catalog, ladders, manifest
from edgectl.fit.device_memory import device_memory
from edgectl.fit.fleet_fit import FleetFit, fleet_fit
from edgectl.fit.quality import KLD
from edgectl.fit.together import place_all
from edgectl.fit.upgrades import BITS, LessContext, SmallerQuantization
from edgectl.inventory.values import Device
from edgectl.ladders import Ladders
from edgectl.manifest import Manifest
from edgectl.observe import Sighting
from edgectl.planning import desired_on, requested
from tests.support.gguf_files import SHAPES, Q, write

GIB = 2**30
ONE = """\
models:
  chat:
    candidates: ['file:8b-Q8_0.gguf', 'file:8b-Q4_K_M.gguf', 'file:4b-Q4_K_M.gguf']
    context: {min: 8192, want: 32768}
"""
TWO = ONE + "  guard: {source: 'file:1b-Q8_0.gguf', context: 2048, pinned: true}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    eight = replace(SHAPES["llama-8b"], vocab=1024)
    write(folder / "8b-Q4_K_M.gguf", eight, full_size=False)
    write(folder / "8b-Q8_0.gguf", replace(eight, weights=Q.Q8_0, down=Q.Q8_0, file_type=7), full_size=False)
    write(folder / "4b-Q4_K_M.gguf", replace(SHAPES["qwen3-4b"], vocab=1024), full_size=False)
    one = replace(SHAPES["llama-1b"], vocab=1024, weights=Q.Q8_0, down=Q.Q8_0, file_type=7)
    write(folder / "1b-Q8_0.gguf", one, full_size=False)
    return folder


def resolved(folder: Path, text: str = ONE) -> tuple[Manifest, Ladders]:
    loaded = manifest.parse(f"version: 1\nname: office\ndevices: all\n{text}", "m.yaml")
    return loaded, ladders.resolve(loaded, folder, catalog.silent)


def device(name: str, *, vram: int | None = None, ram: int = 4 * GIB) -> Device:
    """Free memory, in bytes; it may be any size in all."""
    gpu = GpuFacts(index=0, uuid=f"GPU-{name}", vendor="nvidia", name="L4", vram_total=vram, vram_free=vram)
    facts = Facts(
        agent_id=name,
        agent_version="1",
        ram_total=64 * GIB,
        ram_limit=ram,
        ram_available=ram,
        gpus=() if vram is None else (gpu,),
        runtime=RuntimeFacts(backends=("cpu",) if vram is None else ("cuda", "cpu")),
    )
    return Device(name, {"kind": "local"}, {}, 0.0, facts=facts, facts_at=0.0)


def fleet(folder: Path, devices: Sequence[Device], text: str = ONE) -> FleetFit:
    return fleet_fit(devices, requested(*resolved(folder, text)), holding={}, margins={})


def random_device(number: int, chance: random.Random) -> Device:
    vram = chance.choice([None, 2, 4, 6, 8, 12, 24])
    size = None if vram is None else int(vram * GIB * chance.uniform(0.5, 1.0))
    return device(
        f"d{number:03}", vram=size, ram=int(chance.choice([2, 4, 8, 16]) * GIB * chance.uniform(0.5, 1.0))
    )


@pytest.mark.parametrize("text", [ONE, TWO], ids=["one model", "beside a pinned one"])
def test_every_device_gets_what_the_plan_would_give_it(folder: Path, text: str) -> None:
    chance = random.Random(7)
    devices = [random_device(number, chance) for number in range(60)]
    loaded, found = resolved(folder, text)
    expected: Counter[tuple[str, str, str, bool]] = Counter()
    refused = {}
    for each in devices:
        desired = desired_on(loaded, found, Sighting(each, each.facts, DeviceState(agent_id=each.name)))
        if desired.release is None:
            refused[each.name] = desired.refusal
            continue
        for model in desired.release.models:
            placement, file = model.placement, model.artifact.files[0].name
            expected[model.name, file, placement.memory, model.residency.on_demand] += 1
    fit = fleet(folder, devices, text)
    assert {(g.choice.model, g.choice.file, "ram" if g.choice.stage == "ram" else "vram", g.choice.on_demand): 0
            for g in fit.groups}.keys() == expected.keys()  # fmt: skip
    counted: Counter[tuple[str, str, str, bool]] = Counter()
    for group in fit.groups:
        where = "ram" if group.choice.stage == "ram" else "vram"
        counted[group.choice.model, group.choice.file, where, group.choice.on_demand] += group.devices
    assert counted == expected
    assert {each.device for each in fit.refused} == refused.keys()
    assert all(each.reason in str(refused[each.device]) for each in fit.refused)
    assert (fit.placed, fit.refused_devices, fit.devices) == (60 - len(refused), len(refused), 60)
    assert len(refused) > 5
    assert fit.placed > 20


def test_groups_have_the_range_of_their_contexts(folder: Path) -> None:
    fit = fleet(folder, [device("a", vram=24 * GIB), device("b", vram=11 * GIB), device("c", vram=24 * GIB)])
    (group,) = fit.groups
    assert (group.choice.file, group.choice.stage, group.choice.quantization) == (
        "8b-Q8_0.gguf",
        "gpu",
        "Q8_0",
    )
    assert (group.devices, group.most) == (3, 32_768)
    assert 8192 <= group.least < 32_768


def test_who_told_nothing_is_unknown_and_who_cannot_is_refused(folder: Path) -> None:
    silent = replace(device("silent"), facts=None)
    broken = device("broken")
    assert broken.facts is not None
    broken = replace(
        broken, facts=broken.facts.model_copy(update={"runtime": RuntimeFacts(error="no libgomp")})
    )
    fit = fleet(folder, [silent, broken])
    assert fit.unknown == ("silent",)
    (refused,) = fit.refused
    assert (refused.model, refused.reason) == (None, "its runtime does not work: no libgomp")
    assert refused.as_dict()["upgrade"] == {"context": None, "quantization": None, "missing": None}


# -- what would be enough --------------------------------------------------------------------------------


def facts_of(folder: Path, name: str = "4b-Q4_K_M.gguf") -> catalog.PinnedArtifact:
    return catalog.resolve(f"file:{folder}/{name}", base=folder)[0]


def on_gpu(folder: Path, context: int) -> int:
    """What the smallest candidate takes of a GPU."""
    facts = facts_of(folder).facts
    return need(facts, ServeOptions(context), (layers(facts),)).gpus[0].total


def test_the_bytes_that_are_missing(folder: Path) -> None:
    free = on_gpu(folder, 8192) + VRAM_RESERVE - 1_000_000
    (refused,) = fleet(folder, [device("a", vram=free, ram=GIB)]).refused
    missing = refused.upgrade.missing
    assert missing is not None
    assert (missing.candidate, missing.size, missing.memory) == ("4b-Q4_K_M.gguf", 1_000_000, "vram")


def test_the_context_that_would_fit_and_no_larger_one(folder: Path) -> None:
    free = on_gpu(folder, 4096) + VRAM_RESERVE + 1
    (refused,) = fleet(folder, [device("a", vram=free, ram=GIB)]).refused
    assert refused.upgrade.context == LessContext("4b-Q4_K_M.gguf", 4096)
    (too_small,) = fleet(folder, [device("a", vram=GIB, ram=GIB)]).refused
    assert too_small.upgrade.context is None


def test_the_quantization_that_would_fit(folder: Path) -> None:
    """Between what two types of the same model would take."""
    facts = facts_of(folder).facts
    own = BITS["Q4_K_M"]
    weights = {
        kind: sum(facts.layer_bytes) * BITS[kind] / own
        + (facts.output_bytes + facts.other_bytes) * BITS[kind] / own
        for kind in ("Q3_K_M", "IQ3_M")
    }
    rest = on_gpu(folder, 8192) - sum(facts.layer_bytes) - facts.output_bytes - facts.other_bytes
    free = int(rest + (weights["Q3_K_M"] + weights["IQ3_M"]) / 2) + VRAM_RESERVE
    (refused,) = fleet(folder, [device("a", vram=free, ram=GIB)]).refused
    found = refused.upgrade.quantization
    assert found == SmallerQuantization(
        "4b-Q4_K_M.gguf",
        "IQ3_M",
        pytest.approx(facts.bits_per_weight * BITS["IQ3_M"] / own, rel=1e-3),
        KLD["IQ3_M"],
    )


def test_a_smaller_model_at_good_quality_is_better_than_a_larger_one_in_pieces(folder: Path) -> None:
    text = ONE.replace(
        "['file:8b-Q8_0.gguf', 'file:8b-Q4_K_M.gguf', 'file:4b-Q4_K_M.gguf']",
        "['file:8b-Q8_0.gguf', 'file:4b-Q4_K_M.gguf']",
    )
    (refused,) = fleet(
        folder, [device("a", vram=on_gpu(folder, 8192) + VRAM_RESERVE - 1, ram=GIB)], text
    ).refused
    assert refused.upgrade.quantization is not None
    assert refused.upgrade.quantization.candidate == "4b-Q4_K_M.gguf"


def test_an_upgrade_is_one_that_placement_agrees_to(folder: Path) -> None:
    """With the manifest changed as it says, the device is no longer refused."""
    chance = random.Random(11)
    wanted = requested(*resolved(folder))
    (request, candidates) = wanted[0]
    tried = Counter[str]()
    for number in range(40):
        each = device(
            f"d{number}", vram=int(GIB * chance.uniform(0.5, 4)), ram=int(GIB * chance.uniform(0.3, 3))
        )
        assert each.facts is not None
        for refused in fleet_fit([each], wanted, holding={}, margins={}).refused:
            memory, less = device_memory(each.facts), refused.upgrade.context
            if less is not None:
                tried["context"] += 1
                lowered = replace(request, context_min=less.context)
                (result,) = place_all([(lowered, candidates)], memory)
                assert type(result).__name__ == "Placed"
                (result,) = place_all(
                    [(replace(request, context_min=less.context + 256), candidates)], memory
                )
                assert type(result).__name__ == "Refusal" or less.context + 256 >= request.context_min
    assert tried["context"] > 5


def test_many_devices_share_what_was_worked_out(folder: Path) -> None:
    """No more is counted for many devices than for a few: what a ladder needs is worked out once."""
    chance = random.Random(3)
    few = [random_device(number, chance) for number in range(300)]
    fleet(folder, few)
    before = need.cache_info().misses
    fleet(folder, few)
    assert need.cache_info().misses == before
