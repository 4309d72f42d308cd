"""The fit: arithmetic that holds for every model, and llama.cpp's own numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.fit import (
    GIB,
    MIB,
    VRAM_RESERVE,
    FitReport,
    ServeOptions,
    fit,
    padded_context,
    ram_reserve,
    unsupported,
)
from agent_daemon.contract.gguf import FileSource, GgufFacts, read_facts
from tests.support.engine_memory import measure
from tests.support.gguf_files import SHAPES, Shape, smollm2, write


def read(path: Path) -> GgufFacts:
    with FileSource(path) as source:
        return read_facts(source)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write(folder / f"{name}.gguf", shape) for name, shape in SHAPES.items()} | {
        "smollm2": smollm2()
    }


@pytest.fixture(scope="module")
def facts(models: dict[str, Path]) -> dict[str, GgufFacts]:
    return {name: read(path) for name, path in models.items()}


NAMES = [*SHAPES, "smollm2"]


# -- the cache -------------------------------------------------------------------------------------------


def cache(facts: GgufFacts, context: int, parallel: int = 1, kv_type: str = "f16") -> int:
    options = ServeOptions(context, parallel, kv_type)  # type: ignore[arg-type]
    return fit(facts, options, vram_free=None, ram_free=None).kv_cache


def test_cache_of_equal_layers(facts: dict[str, GgufFacts]) -> None:
    assert cache(facts["llama-8b"], 8192) == 32 * 8192 * (8 * 128 * 2) * 2 == GIB
    assert cache(facts["qwen3-4b"], 8192) == 1152 * MIB
    assert cache(facts["llama-8b"], 8192, parallel=4) == 4 * GIB
    assert cache(facts["llama-8b"], 8192, kv_type="q8_0") == 544 * MIB
    assert cache(facts["llama-8b"], 8192, kv_type="q4_0") == 288 * MIB


def test_a_context_is_padded_for_each_sequence(facts: dict[str, GgufFacts]) -> None:
    assert [padded_context(tokens) for tokens in (1, 256, 257)] == [256, 256, 512]
    assert cache(facts["llama-8b"], 1000, parallel=3) == 3 * cache(facts["llama-8b"], 1024)


def test_sliding_layers_hold_the_window_and_one_batch(facts: dict[str, GgufFacts]) -> None:
    gemma = facts["gemma3-4b"]
    row = 4 * 256 * 2 * 2
    assert gemma.sliding_layers.count(True) == 29
    assert cache(gemma, 8192) == row * (5 * 8192 + 29 * 1536) == 334 * MIB
    assert cache(gemma, 1024) == row * 34 * 1024


def changed(facts: GgufFacts, **fields: object) -> GgufFacts:
    return facts.model_copy(update=fields)


def test_heads_by_layer(facts: dict[str, GgufFacts]) -> None:
    uneven = changed(facts["llama-8b"], n_kv_heads=(0,) * 16 + (8,) * 16)
    assert cache(uneven, 8192) == GIB // 2


def test_latent_attention_stores_no_values(facts: dict[str, GgufFacts]) -> None:
    latent = changed(facts["llama-8b"], mla=True, n_kv_heads=(1,) * 32, key_length=576, value_length=512)
    assert cache(latent, 4096) == 32 * 4096 * 576 * 2


def test_recurrent_layers_hold_a_state_and_no_cache(facts: dict[str, GgufFacts]) -> None:
    hybrid = changed(facts["llama-8b"], recurrent_layers=(True,) * 24 + (False,) * 8, recurrent_state=1000)
    assert cache(hybrid, 8192, parallel=2) == 2 * (24 * 4000 + GIB // 4)
    both = changed(hybrid, architecture="falcon-h1")
    assert cache(both, 8192) == 24 * 4000 + GIB


def test_layers_that_share_or_only_predict_hold_nothing(facts: dict[str, GgufFacts]) -> None:
    assert cache(changed(facts["llama-8b"], kv_layers=8), 8192) == GIB // 4
    assert cache(changed(facts["llama-8b"], nextn_layers=16), 8192) == GIB // 2


def test_an_encoder_has_no_cache(facts: dict[str, GgufFacts]) -> None:
    encoder = changed(facts["llama-1b"], architecture="bert")
    assert cache(encoder, 512) == 0
    assert (
        unsupported(encoder, ServeOptions(512)) == "it is an embedding model (bert) and cannot generate text"
    )
    assert unsupported(encoder, ServeOptions(512, task="embeddings")) is None


def test_heads_that_do_not_fill_a_block(facts: dict[str, GgufFacts]) -> None:
    odd = changed(facts["llama-8b"], key_length=80)
    assert unsupported(odd, ServeOptions(512)) is None
    assert unsupported(odd, ServeOptions(512, kv_type="q8_0")) == (
        "its heads of 80 elements are no multiple of 32, as q8_0 needs"
    )


# -- weights, and where they go --------------------------------------------------------------------------


def test_all_layers_on_the_gpu(facts: dict[str, GgufFacts]) -> None:
    model = facts["llama-8b"]
    report = fit(model, ServeOptions(8192), vram_free=80 * GIB, ram_free=80 * GIB)
    assert (report.memory, report.gpu_layers, report.layers) == ("vram", 33, 33)
    assert report.weights == sum(model.layer_bytes) + model.output_bytes + model.other_bytes
    assert report.host > model.token_embd_bytes
    assert report.reserve == VRAM_RESERVE


def test_a_tied_embedding_is_counted_again_on_the_gpu(facts: dict[str, GgufFacts]) -> None:
    model = facts["qwen3-4b"]
    report = fit(model, ServeOptions(8192), vram_free=80 * GIB, ram_free=80 * GIB)
    assert report.weights == model.tensor_bytes
    assert report.host > model.token_embd_bytes


def test_part_of_the_layers_are_the_last_ones(facts: dict[str, GgufFacts]) -> None:
    model = changed(facts["llama-8b"], layer_bytes=tuple(range(1, 33)))
    report = fit(model, ServeOptions(8192, gpu_layers=3), vram_free=80 * GIB, ram_free=80 * GIB)
    assert report.weights == model.output_bytes + model.other_bytes + 31 + 32
    assert report.kv_cache == GIB // 16
    outside = model.token_embd_bytes + sum(range(1, 31)) + GIB * 30 // 32
    assert outside < report.host < outside + 256 * MIB


def test_in_ram_everything_counts(facts: dict[str, GgufFacts]) -> None:
    report = fit(facts["llama-8b"], ServeOptions(8192), vram_free=None, ram_free=16 * GIB, ram_reserve=GIB)
    assert (report.memory, report.gpu_layers, report.host) == ("ram", 0, 0)
    assert report.weights == facts["llama-8b"].tensor_bytes
    assert (report.free, report.reserve, report.budget) == (16 * GIB, GIB, 15 * GIB)


def test_as_many_layers_as_fit(facts: dict[str, GgufFacts]) -> None:
    model, options = facts["llama-8b"], ServeOptions(8192)
    for gib in range(1, 9):
        report = fit(model, options, vram_free=gib * GIB, ram_free=64 * GIB)
        assert report.fits
        if report.gpu_layers < report.layers:
            more = replace(options, gpu_layers=report.gpu_layers + 1)
            assert not fit(model, more, vram_free=gib * GIB, ram_free=64 * GIB).fits
    assert fit(model, options, vram_free=300 * MIB, ram_free=64 * GIB).memory == "ram"


def test_the_host_part_must_fit_too(facts: dict[str, GgufFacts]) -> None:
    everything = ServeOptions(8192, gpu_layers=33)
    report = fit(facts["llama-8b"], everything, vram_free=80 * GIB, ram_free=100 * MIB)
    assert not report.fits
    assert "of RAM besides, free 0.1" in report.arithmetic()
    assert fit(facts["llama-8b"], everything, vram_free=80 * GIB, ram_free=None).fits


def test_more_layers_than_there_are_mean_all(facts: dict[str, GgufFacts]) -> None:
    report = fit(facts["llama-8b"], ServeOptions(512, gpu_layers=99), vram_free=80 * GIB, ram_free=GIB)
    assert report.gpu_layers == 33


def test_reserves() -> None:
    assert ram_reserve(4 * GIB) == 512 * MIB
    assert ram_reserve(64 * GIB) == 64 * GIB // 20
    assert ram_reserve(None) == 512 * MIB


# -- what is said ----------------------------------------------------------------------------------------


def test_the_arithmetic_of_a_refusal() -> None:
    report = FitReport(
        weights=int(4.4 * GIB),
        kv_cache=int(0.5 * GIB),
        compute=int(0.2 * GIB),
        gpu_layers=33,
        layers=33,
        memory="vram",
        free=int(3.9 * GIB),
        reserve=0,
    )
    assert report.arithmetic() == "needs 5.1 GiB: weights 4.4, KV 0.5, compute 0.2; free 3.9"
    assert not report.fits
    reserved = replace(report, free=int(4.2 * GIB), reserve=int(0.3 * GIB))
    assert reserved.arithmetic().endswith("; free 3.9 of 4.2 after 0.3 kept for the driver")


def test_small_sums_are_in_mib_and_never_look_equal() -> None:
    report = FitReport(
        weights=90 * MIB,
        kv_cache=9 * MIB,
        compute=MIB,
        gpu_layers=0,
        layers=31,
        memory="ram",
        free=64 * MIB,
        reserve=0,
    )
    assert report.arithmetic() == "needs 100 MiB: weights 90, KV 9, compute 1; free 64"
    close = replace(report, free=100 * MIB - 200_000)
    assert close.arithmetic() == "needs 100.0 MiB: weights 90.0, KV 9.0, compute 1.0; free 99.8"


def test_the_numbers_for_programs(facts: dict[str, GgufFacts]) -> None:
    shown = fit(facts["llama-8b"], ServeOptions(8192), vram_free=8 * GIB, ram_free=16 * GIB).as_dict()
    assert {"weights", "kv_cache", "compute", "total", "gpu_layers", "fits"} <= set(shown)
    assert (
        shown["total"]
        == facts["llama-8b"].tensor_bytes - facts["llama-8b"].token_embd_bytes + GIB + 124 * MIB
    )
    assert (shown["gpu_layers"], shown["layers"], shown["memory"], shown["fits"]) == (33, 33, "vram", True)


# -- for every model -------------------------------------------------------------------------------------


@given(
    name=st.sampled_from(NAMES),
    context=st.integers(1, 100_000),
    parallel=st.integers(1, 16),
    kv_type=st.sampled_from(["f16", "q8_0", "q5_1", "q4_0"]),
    layers=st.none() | st.integers(0, 60),
    vram=st.none() | st.integers(0, 80 * GIB),
    ram=st.none() | st.integers(0, 80 * GIB),
)
def test_identities(
    facts: dict[str, GgufFacts],
    name: str,
    context: int,
    parallel: int,
    kv_type: str,
    layers: int | None,
    vram: int | None,
    ram: int | None,
) -> None:
    options = ServeOptions(context, parallel, kv_type, layers)  # type: ignore[arg-type]
    report = fit(facts[name], options, vram_free=vram, ram_free=ram)
    assert report.total == report.weights + report.kv_cache + report.compute
    assert report.predicted().total == report.total
    assert report.fits == (report.short == 0)
    assert (report.memory == "ram") == (report.gpu_layers == 0)
    if report.fits:
        assert report.total <= max(0, report.free - report.reserve)
    if layers:
        assert report.gpu_layers == min(layers, report.layers)


# -- llama.cpp's own numbers -----------------------------------------------------------------------------

LOADS = [
    ServeOptions(2048),
    ServeOptions(8192),
    ServeOptions(8192, parallel=4),
    ServeOptions(8192, kv_type="q8_0"),
    ServeOptions(2048, task="embeddings"),
]


@pytest.mark.engine
@pytest.mark.parametrize(
    "options", LOADS, ids=lambda load: f"{load.context}x{load.parallel}-{load.kv_type}-{load.task}"
)
@pytest.mark.parametrize("name", NAMES)
def test_the_engine_agrees(
    models: dict[str, Path], facts: dict[str, GgufFacts], name: str, options: ServeOptions
) -> None:
    seen = measure(
        models[name], options.context, options.parallel, options.kv_type, options.ubatch, options.task
    )
    report = fit(facts[name], options, vram_free=None, ram_free=None)
    assert report.weights == seen["weights"]
    assert report.kv_cache == pytest.approx(seen["kv_cache"], abs=0.02 * MIB)
    # the engine's output buffer grows from one row a sequence to one a token when it embeds
    rows = options.ubatch if options.task == "embeddings" else options.parallel
    compute = seen["compute"] + seen["output"] * rows // options.parallel
    assert compute - 0.15 * compute <= report.compute <= max(1.15 * compute, compute + 64 * MIB)


@pytest.mark.engine
def test_the_engine_agrees_on_heads_by_layer(tmp_path: Path) -> None:
    shape = Shape("deci", 4, 1024, 2048, 8, 8, 128, 32_000, kv_heads_by_layer=(8, 4, 2, 1))
    path = write(tmp_path / "m.gguf", shape)
    seen = measure(path, 4096)
    assert fit(read(path), ServeOptions(4096), vram_free=None, ram_free=None).kv_cache == seen["kv_cache"]
