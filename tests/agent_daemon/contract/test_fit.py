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
    Room,
    ServeOptions,
    fit,
    most_layers,
    ram_reserve,
    unsupported,
)
from agent_daemon.contract.gguf import FileSource, GgufFacts, read_facts
from agent_daemon.contract.sequences import padded, sequences
from tests.support.adapter_files import write_adapter
from tests.support.adapter_memory import compute_buffers
from tests.support.engine_memory import measure
from tests.support.gguf_files import SHAPES, Shape, smollm2, write
from tests.support.tiny_models import KINDS, tiny_model


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


def fitted(
    facts: GgufFacts,
    options: ServeOptions,
    *,
    vram: int | None = None,
    ram: int | None = None,
    ram_reserve: int = 0,
    layers: int | None = None,
) -> FitReport:
    """On one GPU: `layers` of the model, or as many as fit; without one, in RAM."""
    gpus = () if vram is None else (Room(vram, VRAM_RESERVE),)
    if not gpus or layers == 0:
        split: tuple[int, ...] = ()
    else:
        split = most_layers(facts, options, gpus) if layers is None else (layers,)
    room = None if ram is None else Room(ram, ram_reserve)
    return fit(facts, options, split, gpus=gpus if split else (), ram=room)


# -- the cache -------------------------------------------------------------------------------------------


def cache(facts: GgufFacts, context: int, parallel: int = 1, kv_type: str = "f16") -> int:
    options = ServeOptions(context, parallel, kv_type)  # type: ignore[arg-type]
    return fitted(facts, options).kv_cache


def test_cache_of_equal_layers(facts: dict[str, GgufFacts]) -> None:
    assert cache(facts["llama-8b"], 8192) == 32 * 8192 * (8 * 128 * 2) * 2 == GIB
    assert cache(facts["qwen3-4b"], 8192) == 1152 * MIB
    assert cache(facts["llama-8b"], 8192, parallel=4) == 4 * GIB
    assert cache(facts["llama-8b"], 8192, kv_type="q8_0") == 544 * MIB
    assert cache(facts["llama-8b"], 8192, kv_type="q4_0") == 288 * MIB


def test_a_context_is_padded_for_each_sequence(facts: dict[str, GgufFacts]) -> None:
    assert [padded(tokens) for tokens in (1, 256, 257)] == [256, 256, 512]
    assert cache(facts["llama-8b"], 1000, parallel=3) == 3 * cache(facts["llama-8b"], 1024)


def test_sliding_layers_hold_the_window_and_one_batch(facts: dict[str, GgufFacts]) -> None:
    gemma = facts["gemma3-4b"]
    row = 4 * 256 * 2 * 2
    assert gemma.sliding_layers.count(True) == 29
    # three sequences: the one that answers, and two that are kept for their prefix
    assert cache(gemma, 8192) == row * (5 * 8192 + 29 * (3 * 1024 + 512)) == 566 * MIB
    assert cache(gemma, 8192, parallel=4) == row * (5 * 4 * 8192 + 29 * (8 * 1024 + 512))
    assert cache(gemma, 1024) == row * 34 * 1024
    assert cache(gemma, 1000, parallel=3) == row * 34 * 3 * 1024


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
    # as many sequences are kept for their prefix as answer, and two at least
    assert cache(hybrid, 8192) == 3 * 24 * 4000 + GIB // 4
    assert cache(hybrid, 8192, parallel=4) == 8 * 24 * 4000 + GIB
    both = changed(hybrid, architecture="falcon-h1")
    assert cache(both, 8192) == 3 * 24 * 4000 + GIB


def test_a_model_is_stateful_when_a_sequence_cannot_be_cut_anywhere(facts: dict[str, GgufFacts]) -> None:
    assert [name for name in NAMES if facts[name].stateful] == ["gemma2-2b", "gemma3-4b"]
    assert changed(facts["llama-8b"], recurrent_layers=(True,) + (False,) * 31).stateful


def test_sequences_that_only_keep_a_prefix_cost_a_row_of_outputs(facts: dict[str, GgufFacts]) -> None:
    def compute(parallel: int) -> int:
        return fitted(facts["qwen3-4b"], ServeOptions(1024, parallel)).compute

    logits, number, mask = 4 * facts["qwen3-4b"].n_vocab, 4, 2 * 1024 * 512
    # 8 sequences for one answer, 32 for thirteen: both divide the batch of 512 tokens
    assert compute(13) - compute(1) == (32 - 8) * (logits + number) + 12 * mask


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
    report = fitted(model, ServeOptions(8192), vram=80 * GIB, ram=80 * GIB)
    assert (report.memory, report.gpu_layers, report.layers) == ("vram", 33, 33)
    assert report.weights == sum(model.layer_bytes) + model.output_bytes + model.other_bytes
    assert report.host > model.token_embd_bytes
    assert report.reserve == VRAM_RESERVE


def test_a_tied_embedding_is_counted_again_on_the_gpu(facts: dict[str, GgufFacts]) -> None:
    model = facts["qwen3-4b"]
    report = fitted(model, ServeOptions(8192), vram=80 * GIB, ram=80 * GIB)
    assert report.weights == model.tensor_bytes
    assert report.host > model.token_embd_bytes


def test_part_of_the_layers_are_the_last_ones(facts: dict[str, GgufFacts]) -> None:
    model = changed(facts["llama-8b"], layer_bytes=tuple(range(1, 33)))
    report = fitted(model, ServeOptions(8192), layers=3, vram=80 * GIB, ram=80 * GIB)
    assert report.weights == model.output_bytes + model.other_bytes + 31 + 32
    assert report.kv_cache == GIB // 16
    outside = model.token_embd_bytes + sum(range(1, 31)) + GIB * 30 // 32
    assert outside < report.host < outside + 256 * MIB


def test_in_ram_everything_counts(facts: dict[str, GgufFacts]) -> None:
    report = fitted(facts["llama-8b"], ServeOptions(8192), vram=None, ram=16 * GIB, ram_reserve=GIB)
    assert (report.memory, report.gpu_layers, report.host) == ("ram", 0, 0)
    assert report.weights == facts["llama-8b"].tensor_bytes
    assert (report.free, report.reserve, report.budget) == (16 * GIB, GIB, 15 * GIB)


def test_as_many_layers_as_fit(facts: dict[str, GgufFacts]) -> None:
    model, options = facts["llama-8b"], ServeOptions(8192)
    for gib in range(1, 9):
        report = fitted(model, options, vram=gib * GIB, ram=64 * GIB)
        assert report.fits
        if report.gpu_layers < report.layers:
            more = report.gpu_layers + 1
            assert not fitted(model, options, layers=more, vram=gib * GIB, ram=64 * GIB).fits
    assert fitted(model, options, vram=300 * MIB, ram=64 * GIB).memory == "ram"


def test_the_host_part_must_fit_too(facts: dict[str, GgufFacts]) -> None:
    options = ServeOptions(8192)
    report = fitted(facts["llama-8b"], options, layers=33, vram=80 * GIB, ram=100 * MIB)
    assert not report.fits
    assert "of RAM besides, free 0.1" in report.arithmetic()
    assert fitted(facts["llama-8b"], options, layers=33, vram=80 * GIB, ram=None).fits


def test_a_split_has_no_more_layers_than_the_model_and_some_on_each_gpu(facts: dict[str, GgufFacts]) -> None:
    for split in ((34,), (0, 33), (20, 14)):
        with pytest.raises(ValueError, match="33 layers"):
            fit(facts["llama-8b"], ServeOptions(512), split, gpus=(Room(GIB),) * len(split))


def adapter(name: str, folder: Path, *changes: tuple[str, int, int], rank: int = 8) -> GgufFacts:
    """Of f32 tensors; `changes` are a tensor's name, columns and rows."""
    return read(write_adapter(folder / f"{name}.gguf", "llama", changes, rank))


def test_adapters_lie_beside_what_they_change(facts: dict[str, GgufFacts], tmp_path: Path) -> None:
    model = facts["llama-8b"]
    low = adapter("low", tmp_path, ("blk.0.attn_q.weight", 4096, 4096), ("token_embd.weight", 4096, 128_256))
    high = adapter("high", tmp_path, ("blk.31.attn_k.weight", 4096, 1024), ("output.weight", 4096, 128_256))
    in_low, in_embedding = 8 * 4 * (4096 + 4096), 8 * 4 * (4096 + 128_256)
    in_high, in_output = 8 * 4 * (4096 + 1024), 8 * 4 * (4096 + 128_256)

    def report(layers: int, *adapters: GgufFacts) -> FitReport:
        options = ServeOptions(2048, adapters=adapters)
        return fitted(model, options, layers=layers, vram=80 * GIB, ram=80 * GIB)

    for layers, on_gpu, on_host in (
        (33, in_low + in_high + in_output, in_embedding),
        (2, in_high + in_output, in_low + in_embedding),
        (1, in_output, in_low + in_high + in_embedding),
    ):
        without, both = report(layers), report(layers, low, high)
        assert both.adapters == both.weights - without.weights == on_gpu
        assert both.host - without.host == on_host
        assert (both.kv_cache, both.compute) == (without.kv_cache, without.compute)
    in_ram = report(0, low, high)
    assert in_ram.adapters == in_ram.weights - model.tensor_bytes == low.tensor_bytes + high.tensor_bytes
    assert in_ram.adapters == in_low + in_embedding + in_high + in_output
    assert in_ram.as_dict()["adapters"] == in_ram.adapters


def test_adapters_leave_less_for_layers(facts: dict[str, GgufFacts], tmp_path: Path) -> None:
    model = facts["llama-8b"]
    wide = adapter("wide", tmp_path, *((f"blk.{n}.ffn_up.weight", 4096, 14336) for n in range(32)), rank=512)
    free = 4 * GIB
    without, with_it = (
        fitted(model, ServeOptions(2048, adapters=adapters), vram=free, ram=64 * GIB)
        for adapters in ((), (wide,))
    )
    assert 0 < with_it.gpu_layers < without.gpu_layers < 33
    assert with_it.fits
    options, more = ServeOptions(2048, adapters=(wide,)), with_it.gpu_layers + 1
    assert not fitted(model, options, layers=more, vram=free, ram=64 * GIB).fits


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
        missing=int(1.2 * GIB),
    )
    assert report.arithmetic() == "needs 5.1 GiB: weights 4.4, KV 0.5, compute 0.2; free 3.9"
    assert not report.fits
    adapted = replace(report, adapters=int(0.3 * GIB))
    assert adapted.arithmetic() == (
        "needs 5.1 GiB: weights 4.4 (adapters 0.3), KV 0.5, compute 0.2; free 3.9"
    )
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
    shown = fitted(facts["llama-8b"], ServeOptions(8192), vram=8 * GIB, ram=16 * GIB).as_dict()
    assert {"weights", "kv_cache", "compute", "total", "gpu_layers", "fits"} <= set(shown)
    assert (
        shown["total"]
        == facts["llama-8b"].tensor_bytes - facts["llama-8b"].token_embd_bytes + GIB + 121_645_088
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
    options = ServeOptions(context, parallel, kv_type)  # type: ignore[arg-type]
    if layers is not None:
        layers = min(layers, facts[name].n_layers + 1)
    report = fitted(facts[name], options, layers=layers, vram=vram, ram=ram)
    assert report.total == report.weights + report.kv_cache + report.compute
    assert report.predicted().total == report.total
    assert report.fits == (report.short == 0)
    assert (report.memory == "ram") == (report.gpu_layers == 0)
    if report.fits:
        assert report.total <= max(0, report.free - report.reserve)
    if layers and vram is not None:
        assert report.gpu_layers == layers


# -- llama.cpp's own numbers -----------------------------------------------------------------------------

LOADS = [
    ServeOptions(2048),
    ServeOptions(8192),
    ServeOptions(8192, parallel=4),
    ServeOptions(1000, parallel=5),
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
    report = fitted(facts[name], options, vram=None, ram=None)
    model = facts[name]
    # llama_model_size counts a tied output layer once, also where the CPU has a copy laid out anew (of Q4_K)
    copied = model.token_embd_bytes if name in ("llama-1b", "qwen3-4b", "gemma2-2b", "gemma3-4b") else 0
    assert report.weights == seen["weights"] + copied
    assert report.kv_cache == pytest.approx(seen["kv_cache"], abs=0.02 * MIB)
    # the engine's output buffer grows from one row a sequence to one a token when it embeds
    rows = options.ubatch if options.task == "embeddings" else seen["sequences"]
    compute = seen["compute"] + seen["output"] * rows // seen["sequences"]
    # its log rounds to 0.01 MiB, also the rows that are multiplied here
    rounded = 0.005 * rows / seen["sequences"] if options.task == "embeddings" else 0.0
    assert report.compute == pytest.approx(compute, abs=(0.03 + rounded) * MIB)


@pytest.mark.engine
@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("name", KINDS)
def test_the_engine_agrees_on_states_and_windows(name: str, parallel: int) -> None:
    path = tiny_model(name)
    model = read(path)
    options = ServeOptions(1024, parallel, ubatch=1024 if model.pooling_type else 512)
    options = replace(options, task="embeddings" if model.pooling_type else "chat")
    seen = measure(path, 1024, parallel, "f16", options.ubatch, options.task)
    assert seen["sequences"] == sequences(parallel, options.task, stateful=model.stateful)
    report = fitted(model, options, vram=None, ram=None)
    assert report.weights == seen["weights"]
    assert report.kv_cache == pytest.approx(seen["kv_cache"], abs=0.02 * MIB)


@pytest.mark.engine
@pytest.mark.parametrize("name", ["llama-1b", "gemma3-4b", "qwen3-30b-a3b"])
def test_the_engine_computes_with_an_adapter_in_the_same_buffer(name: str, tmp_path: Path) -> None:
    shape = replace(SHAPES[name], layers=2, vocab=4096, tied=True)
    path = write(tmp_path / "m.gguf", shape)
    matrices = [each for each in read(path).shapes if each.name.startswith("blk.") and each.rows > 1]
    changes = [tuple(each) for each in matrices if not each.name.endswith(("_exps.weight", "_inp.weight"))]
    assert len(changes) >= 2 * 4
    adapted = write_adapter(tmp_path / "a.gguf", shape.arch, changes, rank=16)
    without, with_it = compute_buffers(path, adapted)
    assert without == with_it


@pytest.mark.engine
def test_the_engine_agrees_on_heads_by_layer(tmp_path: Path) -> None:
    shape = Shape("deci", 4, 1024, 2048, 8, 8, 128, 32_000, kv_heads_by_layer=(8, 4, 2, 1))
    path = write(tmp_path / "m.gguf", shape)
    seen = measure(path, 4096)
    assert fitted(read(path), ServeOptions(4096)).kv_cache == seen["kv_cache"]
