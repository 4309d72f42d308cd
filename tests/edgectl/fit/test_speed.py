"""How fast one answer is estimated to be, from what a token reads of each memory."""

import pytest

from agent_daemon.contract.need import layers, need
from agent_daemon.contract.serve_options import ServeOptions
from edgectl.fit.speed import active_layers, read_per_token, tokens_per_second
from tests.support.ladders import facts

GB = 10**9
LLAMA = facts("llama-8b:Q4_K_M")
TIED = facts("llama-1b:Q4_K_M")
MIXTURE = facts("qwen3-30b-a3b:Q4_K_M")


def test_the_memories_are_read_one_after_the_other() -> None:
    assert tokens_per_second([(10 * GB, 20 * GB)]) == pytest.approx(2.0)
    assert tokens_per_second([(10 * GB, 20 * GB), (10 * GB, 20 * GB)]) == pytest.approx(1.0)
    assert tokens_per_second([(3 * GB, 30 * GB), (90 * GB, 900 * GB)]) == pytest.approx(5.0)


@pytest.mark.parametrize("unknown", [None, 0])
def test_without_a_bandwidth_that_is_needed_nothing_is_estimated(unknown: int | None) -> None:
    assert tokens_per_second([(GB, GB), (1, unknown)]) is None
    assert tokens_per_second([(GB, GB), (0, unknown)]) == pytest.approx(1.0)
    assert tokens_per_second([(0, GB)]) is None
    assert tokens_per_second([]) is None


def test_a_dense_model_reads_all_of_its_blocks_and_the_output_but_not_the_embeddings() -> None:
    options = ServeOptions(4096)
    host, gpus = read_per_token(LLAMA, options)
    assert gpus == ()
    assert host == sum(LLAMA.layer_bytes) + LLAMA.output_bytes + need(LLAMA, options).host.kv_cache // 2
    # tied: the embeddings are the output, and are read as that
    assert TIED.output_bytes == 0
    assert read_per_token(TIED, options)[0] == (
        sum(TIED.layer_bytes) + TIED.token_embd_bytes + need(TIED, options).host.kv_cache // 2
    )


def test_only_the_cache_of_one_answer_counts() -> None:
    alone, four = (read_per_token(LLAMA, ServeOptions(4096, parallel=parallel))[0] for parallel in (1, 4))
    assert alone == four
    shared = read_per_token(LLAMA, ServeOptions(4096, parallel=4, shared=8192))[0]
    assert shared == alone
    quantized = read_per_token(LLAMA, ServeOptions(4096, kv_type="q8_0"))[0]
    assert quantized < alone


def test_each_memory_is_read_for_the_layers_that_it_holds() -> None:
    options = ServeOptions(4096)
    whole = read_per_token(LLAMA, options)[0]
    on_gpu = read_per_token(LLAMA, options, (layers(LLAMA),))
    assert on_gpu == (0, (whole,))
    host, (first, second) = read_per_token(LLAMA, options, (10, 5))
    assert host + first + second == pytest.approx(whole, abs=4)
    cache = need(LLAMA, options, (10, 5)).gpus
    assert first == sum(LLAMA.layer_bytes[18:28]) + cache[0].kv_cache // 2
    assert second == sum(LLAMA.layer_bytes[28:]) + LLAMA.output_bytes + cache[1].kv_cache // 2


def test_of_a_mixture_only_the_experts_in_use_are_read() -> None:
    assert (MIXTURE.expert_count, MIXTURE.expert_used_count) == (128, 8)
    of_experts = sum(
        shape.columns * shape.rows * MIXTURE.expert_count
        for shape in MIXTURE.shapes
        if shape.name.startswith("blk.0.") and "_exps" in shape.name
    )
    elements = of_experts + sum(
        shape.columns * shape.rows
        for shape in MIXTURE.shapes
        if shape.name.startswith("blk.0.") and "_exps" not in shape.name
    )
    share = (elements - of_experts + of_experts * 8 / 128) / elements
    assert active_layers(MIXTURE)[0] == pytest.approx(MIXTURE.layer_bytes[0] * share, rel=1e-6)
    assert share < 0.1
    # a 30B that uses 3B answers faster than a dense 8B
    options = ServeOptions(4096)
    assert read_per_token(MIXTURE, options)[0] < read_per_token(LLAMA, options)[0]


def test_layers_that_only_predict_further_tokens_are_not_read() -> None:
    predicting = LLAMA.model_copy(update={"nextn_layers": 2})
    assert active_layers(predicting) == (*LLAMA.layer_bytes[:-2], 0, 0)


def test_embeddings_have_no_speed_of_this_kind() -> None:
    options = ServeOptions(512, task="embeddings")
    assert read_per_token(LLAMA, options) == (0, ())
    assert read_per_token(LLAMA, options, (10,)) == (0, (0,))
