"""Cells of the table: what each model needs at each context and how it fits, the same as placement would have it."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest

from agent_daemon.contract.fit import VRAM_RESERVE, Room, fit, most_layers, ram_reserve
from agent_daemon.contract.gguf import FileSource, GgufFacts, read_facts
from agent_daemon.contract.need import layers, need
from agent_daemon.contract.release import Artifact, BlobRef
from agent_daemon.contract.serve_options import ServeOptions
from edgectl.fit.device_memory import DeviceMemory
from edgectl.fit.fit_grid import KV_AUTO, LONGEST, Asked, judge, usual_contexts
from edgectl.fit.fitting import stated_memory
from edgectl.fit.placement import Candidate, ModelRequest, Placed, place
from edgectl.manifest import ModelSpec
from tests.support.gguf_files import SHAPES, Shape, write

MIB, GIB = 2**20, 2**30
GPT_OSS = replace(SHAPES["llama-1b"], arch="gpt-oss", window=128, vocab=1024)
Read = Callable[[str], GgufFacts]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    folder = tmp_path_factory.mktemp("headers")
    shapes: dict[str, Shape] = {**SHAPES, "gpt-oss": GPT_OSS}

    def facts(name: str) -> GgufFacts:
        path = folder / f"{name}.gguf"
        if not path.exists():
            write(path, shapes[name], full_size=False)
        with FileSource(path) as source:
            return read_facts(source)

    return facts


def test_contexts_of_a_table_end_with_the_largest_that_a_model_was_trained_on(read: Read) -> None:
    qwen, llama, gemma = (read(name) for name in ("qwen3-4b", "llama-8b", "gemma2-2b"))
    assert usual_contexts([gemma]) == (2048, 8192)
    assert usual_contexts([gemma, qwen]) == (2048, 8192, 32_768, 40_960)
    assert usual_contexts([llama]) == (2048, 8192, 32_768, 131_072)
    assert usual_contexts([gemma], 2) == (2048, 4096, 8192)
    assert usual_contexts([gemma.model_copy(update={"context_length": None})]) == (2048, 8192, 32_768)
    assert usual_contexts([gemma.model_copy(update={"context_length": 512})]) == (512,)
    assert usual_contexts([gemma.model_copy(update={"context_length": 2**40})])[-1] == LONGEST


def test_a_whole_model_on_the_gpu_is_the_fit_of_all_its_layers(read: Read) -> None:
    facts = read("llama-8b")
    cell = judge(facts, Asked(parallel=2), 8192, stated_memory([16 * GIB], 8 * GIB))
    room, ram = Room(16 * GIB, VRAM_RESERVE), Room(8 * GIB, ram_reserve(8 * GIB))
    assert cell.stage == "gpu"
    assert cell.report == fit(facts, ServeOptions(8192, parallel=2), (33,), gpus=[room], ram=ram)


def test_the_ways_come_in_order(read: Read) -> None:
    facts = read("llama-8b")
    whole = need(facts, ServeOptions(8192), (layers(facts),))
    enough = whole.gpus[0].total + VRAM_RESERVE
    host = need(facts, ServeOptions(8192)).host.total

    def stage(vram: list[int], ram: int | None) -> str | None:
        return judge(facts, Asked(), 8192, stated_memory(vram, ram)).stage

    assert stage([enough], 16 * GIB) == "gpu"
    assert stage([enough - 1], 16 * GIB) == "split"
    assert stage([enough // 2 + GIB, enough // 2 + GIB], 16 * GIB) == "gpus"
    assert stage([GIB // 4], 16 * GIB) == "ram"
    assert stage([], host + ram_reserve(host + 512 * MIB)) == "ram"
    assert stage([], host) is None


def test_what_does_not_fit_is_told_by_the_way_that_comes_closest(read: Read) -> None:
    facts, options = read("llama-8b"), ServeOptions(8192)
    needed = need(facts, options, (layers(facts),)).gpus[0].total
    cell = judge(facts, Asked(), 8192, stated_memory([needed], GIB))
    gpus, ram = [Room(needed, VRAM_RESERVE)], Room(GIB, ram_reserve(GIB))
    splits = ((layers(facts),), most_layers(facts, options, gpus))
    ways = [fit(facts, options, split, gpus=gpus, ram=ram) for split in splits]
    ways.append(fit(facts, options, ram=ram))
    assert (cell.stage, cell.fits) == (None, False)
    assert cell.report == min(ways, key=lambda report: report.short)
    assert cell.as_dict()["fits"] is False
    assert str(cell.as_dict()["arithmetic"]).startswith("needs ")


def test_auto_takes_the_smaller_cache_where_the_other_does_not_fit(read: Read) -> None:
    facts = read("llama-8b")
    with_f16, with_q8 = (
        need(facts, ServeOptions(32_768, kv_type=kv_type), (layers(facts),)).gpus[0].total
        for kv_type in KV_AUTO
    )
    between = (with_f16 + with_q8) // 2 + VRAM_RESERVE
    assert judge(facts, Asked(), 32_768, stated_memory([between], None)).stage == "split"
    cell = judge(facts, Asked(kv_types=KV_AUTO), 32_768, stated_memory([between], None))
    assert (cell.stage, cell.kv_type, cell.report.total) == ("gpu", "q8_0", with_q8)
    assert ModelSpec(name="a", candidates=("file:x",), kv_type="auto").kv_types == KV_AUTO


def test_a_cache_that_harms_a_model_is_only_taken_when_it_is_named(read: Read) -> None:
    facts = read("gpt-oss")
    memory = stated_memory([], 64 * GIB)
    assert judge(facts, Asked(kv_types=("q8_0",)), 8192, memory).kv_type == "q8_0"
    short = stated_memory([], need(facts, ServeOptions(8192)).host.total)
    assert judge(facts, Asked(kv_types=KV_AUTO), 8192, short).kv_type == "f16"


@pytest.mark.parametrize(
    ("asked", "context", "problem"),
    [
        (Asked(), 8193, "it was trained on 8192 tokens, fewer than 8193"),
        (Asked(kv_types=("q8_0",), flash_attention=False), 8192, "a cache of q8_0 needs flash attention"),
    ],
)
def test_what_no_memory_helps_has_figures_all_the_same(
    read: Read, asked: Asked, context: int, problem: str
) -> None:
    facts = read("gemma2-2b")
    cell = judge(facts, asked, context, stated_memory([], 64 * GIB))
    assert (cell.fits, cell.problem) == (False, problem)
    assert cell.report.total == need(facts, asked.options(facts, context, asked.kv_types[0])).host.total


def test_a_model_that_embeds_is_fitted_as_one(read: Read) -> None:
    facts = read("llama-1b").model_copy(update={"architecture": "bert"})
    cell = judge(facts, Asked(), 2048, stated_memory([], 8 * GIB))
    options = ServeOptions(2048, ubatch=2048, task="embeddings")
    assert (cell.stage, cell.report.total) == ("ram", need(facts, options).host.total)


def candidate(facts: GgufFacts) -> Candidate:
    digest = "sha256:" + "a" * 64
    blob = BlobRef(digest=digest, size=facts.data_end, name="model.gguf")
    return Candidate(Artifact(ref="file:model.gguf", digest=digest, files=(blob,)), facts)


def test_it_is_what_placement_would_have(read: Read) -> None:
    """Of one candidate at one context, on a grid of devices."""
    seen = set()
    for name, context, kv_types in product(
        ("llama-8b", "qwen3-30b-a3b", "gemma3-4b"), (2048, 32_768), (("f16",), KV_AUTO)
    ):
        facts = read(name)
        request = ModelRequest(
            "m", context_want=context, context_min=context, kv_types=kv_types, gpu_layers="partial"
        )
        for memory in devices(need(facts, ServeOptions(context)).host.total):
            cell = judge(facts, Asked(kv_types=kv_types), context, memory)
            placed = place(request, [candidate(facts)], memory)
            assert cell.fits == isinstance(placed, Placed)
            seen.add(cell.stage)
            if isinstance(placed, Placed):
                assert cell.report == placed.report
                assert cell.kv_type == placed.placement.kv_type
    assert seen == {"gpu", "gpus", "split", "ram", None}


def devices(size: int) -> list[DeviceMemory]:
    """Around what a model takes."""
    shares = (0.3, 0.6, 0.9, 1.2)
    rams = [None, *(int(size * share) for share in (0.2, 0.8, 1.3))]
    gpus: list[list[int]] = [[], *([int(size * share)] for share in shares), [size // 2, size * 2 // 3]]
    return [stated_memory(vram, ram) for vram, ram in product(gpus, rams) if vram or ram is not None]
