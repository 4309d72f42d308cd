"""The formulas of others, at models whose figures can be told by hand."""

from pathlib import Path

from agent_daemon.contract.need import need
from tests.bench.fit.peer_gguf_parser import gguf_parser
from tests.bench.fit.peer_graph_size import graph_size
from tests.bench.fit.peers import PEERS, constant, ollama_preflight
from tests.bench.fit.shapes import MODELS, made
from tests.bench.fit.truth import Setting

MIB = 1024 * 1024
AT_8K = Setting(8192)


def test_a_head_length_of_its_own_is_what_the_preflight_misses(tmp_path: Path) -> None:
    _, facts = made(tmp_path, "qwen3-4b")
    model = MODELS["qwen3-4b"]
    # 2 x 36 layers x 8 heads x (2560 / 32) elements x 8192 cells x 2 bytes; the heads have 128
    assert ollama_preflight(model, AT_8K).kv_cache == 720 * MIB
    assert need(facts, AT_8K.options(embeds=False)).host.kv_cache == 1152 * MIB
    assert graph_size(model, AT_8K).kv_cache == gguf_parser(model, AT_8K).kv_cache == 1152 * MIB


def test_windows_are_known_to_some() -> None:
    model = MODELS["gemma-3-4b"]
    row = (256 + 256) * 4 * 2
    full, local = 8192 * row, (1024 + 512) * row
    assert graph_size(model, AT_8K).kv_cache == 5 * full + 29 * local
    # the first of every six sees everything, as they have it
    assert gguf_parser(model, AT_8K).kv_cache == 6 * full + 28 * local
    assert ollama_preflight(model, AT_8K).kv_cache == 2 * 34 * 4 * (2560 // 8) * 8192 * 2


def test_a_quantized_cache_is_half_of_f16_for_one_and_counted_in_blocks_by_another() -> None:
    model, setting = MODELS["llama-3.1-8b"], Setting(8192, kv_type="q8_0")
    assert graph_size(model, setting).kv_cache == 512 * MIB
    assert gguf_parser(model, setting).kv_cache == 544 * MIB
    assert ollama_preflight(model, setting).kv_cache == 1024 * MIB


def test_states_are_counted_for_one_sequence_or_for_each() -> None:
    model, setting = MODELS["mamba2-2.7b"], Setting(8192, parallel=4)
    state = 4 * 64 * (3 * (5120 + 2 * 128) + 128 * 5120)
    assert gguf_parser(model, setting).kv_cache == 4 * state


def test_weights_are_the_tensors_of_the_file(tmp_path: Path) -> None:
    _, facts = made(tmp_path, "gpt-oss-20b")
    model = MODELS["gpt-oss-20b"]
    assert ollama_preflight(model, AT_8K).weights == graph_size(model, AT_8K).weights == facts.tensor_bytes
    assert gguf_parser(model, AT_8K).weights == facts.tensor_bytes


def test_a_constant_knows_no_context() -> None:
    model = MODELS["llama-3.1-8b"]
    assert constant(model, AT_8K) == constant(model, Setting(32_768, 4))
    assert constant(model, AT_8K).total == 4_818_000_000


def test_every_formula_answers_for_every_model() -> None:
    for model in MODELS.values():
        for formula in PEERS.values():
            assert formula(model, AT_8K).total > 0
