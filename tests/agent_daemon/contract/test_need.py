"""What a model needs, in every memory of a split; and that no header makes it hang or raise."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.contract.fit import Room, fit, most_layers, whole
from agent_daemon.contract.gguf import FileSource, GgufFacts, read_facts
from agent_daemon.contract.gguf_facts import TensorShape
from agent_daemon.contract.need import Need, layers, need
from agent_daemon.contract.serve_options import ServeOptions
from tests.support.gguf_files import SHAPES, write

GIB = 1 << 30
NAMES = list(SHAPES)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GgufFacts]:
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, shape in SHAPES.items():
        with FileSource(write(folder / f"{name}.gguf", shape)) as source:
            found[name] = read_facts(source)
    return found


def held(wanted: Need, part: str) -> int:
    return getattr(wanted.host, part) + sum(getattr(share, part) for share in wanted.gpus)


@pytest.mark.parametrize("name", NAMES)
def test_a_split_moves_weights_and_cache_and_loses_none(facts: dict[str, GgufFacts], name: str) -> None:
    model, options = facts[name], ServeOptions(4096, 2)
    in_ram = need(model, options)
    count = layers(model)
    again = model.token_embd_bytes if model.tied_output else 0
    for split in ((count,), (1,), (count - 3, 3), (2, 1, count // 3)):
        wanted = need(model, options, split)
        assert len(wanted.gpus) == len(split)
        assert held(wanted, "weights") == model.tensor_bytes + again
        assert held(wanted, "kv_cache") == in_ram.host.kv_cache
        assert all(share.compute > 0 for share in (wanted.host, *wanted.gpus))


def test_a_tied_output_layer_is_a_second_copy_where_the_cpu_lays_it_out_anew(
    facts: dict[str, GgufFacts],
) -> None:
    model, options = facts["qwen3-4b"], ServeOptions(1024)
    assert model.token_embd_bytes * 8 == model.n_embd * model.n_vocab * 4.5
    assert need(model, options).host.weights == model.tensor_bytes + model.token_embd_bytes
    better = model.model_copy(update={"token_embd_bytes": model.n_embd * model.n_vocab * 210 // 256})
    assert need(better, options).host.weights == better.tensor_bytes


def test_blocks_go_to_the_gpus_in_order_and_the_output_to_the_last(facts: dict[str, GgufFacts]) -> None:
    model = facts["llama-8b"].model_copy(update={"layer_bytes": tuple(10**6 + n for n in range(32))})
    wanted = need(model, ServeOptions(512), (10, 5))
    first, second = wanted.gpus
    assert first.weights == sum(10**6 + n for n in range(18, 28))
    assert second.weights == sum(10**6 + n for n in range(28, 32)) + model.output_bytes + model.other_bytes
    assert wanted.host.weights == model.token_embd_bytes + sum(10**6 + n for n in range(18))
    assert (first.kv_cache, second.kv_cache) == (10 * 2 * 2**20, 4 * 2 * 2**20)


def test_a_gpu_that_borrows_weights_leaves_the_host_only_inputs(facts: dict[str, GgufFacts]) -> None:
    model, options = facts["llama-8b"], ServeOptions(8192)
    largest = max(
        size for shape, size in zip(model.shapes, model.shape_bytes, strict=True) if "blk" in shape.name
    )
    lent, apart = need(model, options, (16,)), need(model, replace(options, borrows=False), (16,))
    everything = need(model, options, (33,))
    assert lent.host.compute == everything.host.compute < apart.host.compute
    assert everything.gpus[0].compute < lent.gpus[0].compute < everything.gpus[0].compute + largest
    assert (lent.margin, apart.margin, everything.margin) == (largest, 4 * 4 * 4096 * 512, 0)


def test_an_architecture_that_was_never_compared_is_said_to_be_uncertain(facts: dict[str, GgufFacts]) -> None:
    model, options = facts["llama-8b"], ServeOptions(4096)
    known = need(model, options)
    assert (known.uncertain, known.margin) == (None, 0)
    other = need(model.model_copy(update={"architecture": "novel-arch"}), options)
    assert other.uncertain == (
        "the architecture novel-arch was never compared with llama.cpp's own account, and is counted as its nearest"
        " relative"
    )
    assert other.host == known.host
    assert other.margin == max(64 << 20, known.host.compute // 2) + known.host.kv_cache // 8
    report = fit(model.model_copy(update={"architecture": "novel-arch"}), options, ram=Room(known.host.total))
    assert (report.missing, report.fits) == (other.margin, False)
    assert report.arithmetic().endswith("nearest relative")


def test_a_block_of_an_unknown_kind_is_counted_by_its_width(facts: dict[str, GgufFacts]) -> None:
    model = facts["llama-8b"]
    strange = model.model_copy(
        update={
            "shapes": tuple(
                TensorShape(shape.name.replace("ffn_down", "ffn_sideways"), shape.columns, shape.rows)
                for shape in model.shapes
            )
        }
    )
    wanted = need(strange, ServeOptions(4096), (20,))
    assert (
        wanted.uncertain
        == "a block of it is of a kind that is not known (it has no ffn_down), and only its width is counted"
    )
    drawn = need(model, ServeOptions(4096), (20,))
    assert 0.5 < wanted.gpus[0].compute / drawn.gpus[0].compute < 2.5


def test_each_answer_with_a_cache_of_its_own(facts: dict[str, GgufFacts]) -> None:
    model = facts["gemma3-4b"]
    apart = need(model, ServeOptions(8192, 4, unified=False))
    alone = need(model, ServeOptions(8192, 1, unified=False))
    assert apart.host.kv_cache == 4 * alone.host.kv_cache
    assert need(model, ServeOptions(8192, 4)).host.kv_cache > apart.host.kv_cache


def test_a_projector_counts_with_the_first_gpu_or_in_ram(facts: dict[str, GgufFacts]) -> None:
    model, options = facts["llama-1b"], ServeOptions(2048)
    seeing = replace(options, projector=model.model_copy(update={"tensor_bytes": 400_000}))
    assert need(model, seeing).host.weights - need(model, options).host.weights == 500_000
    for split in ((5,), (10, 7)):
        plain, more = need(model, options, split), need(model, seeing, split)
        assert more.gpus[0].weights - plain.gpus[0].weights == 500_000
        assert (more.host, more.gpus[1:]) == (plain.host, plain.gpus[1:])


@given(name=st.sampled_from(NAMES), free=st.lists(st.integers(0, 30 * GIB), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_split_that_is_found_fits_every_gpu(
    facts: dict[str, GgufFacts], name: str, free: list[int]
) -> None:
    model, options = facts[name], ServeOptions(4096)
    rooms = [Room(size, 256 << 20) for size in free]
    for split in (most_layers(model, options, rooms), whole(model, options, rooms)):
        if not split:
            continue
        report = fit(model, options, split, gpus=rooms, ram=Room(1 << 50))
        assert report.fits
        assert all(part <= room.budget for part, room in zip(report.parts, rooms, strict=True))
    if (everything := whole(model, options, rooms)) is not None:
        assert sum(everything) == layers(model)


TENSORS = (
    *(
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_qkv",
        "attn_output",
        "attn_kv_a_mqa",
        "ffn_gate_inp",
        "ffn_up",
        "ffn_down",
    ),
    *("ffn_down_exps", "ssm_in", "ssm_conv1d", "ssm_a", "shortconv.in_proj"),
)
NUMBERS = st.one_of(st.integers(0, 8), st.integers(0, 2**40))


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "architecture": st.sampled_from(["llama", "gemma3", "mamba", "qwen35", "deepseek2", "bert", "?"]),
            "n_embd": NUMBERS,
            "n_heads": NUMBERS,
            "n_ff": NUMBERS,
            "n_vocab": NUMBERS,
            "key_length": NUMBERS,
            "value_length": NUMBERS,
            "key_length_sliding": NUMBERS,
            "expert_used_count": NUMBERS,
            "expert_ff": NUMBERS,
            "recurrent_state": NUMBERS,
            "sliding_window": NUMBERS,
            "mla": st.booleans(),
            "recurrent_layers": st.just((True,) * 36),
            "sliding_layers": st.just((True, False) * 18),
            "n_kv_heads": st.just((0,) * 36) | st.just((2**40,) * 36),
            "shapes": st.lists(
                st.builds(
                    TensorShape,
                    st.sampled_from(TENSORS).map(lambda name: f"blk.0.{name}.weight"),
                    NUMBERS,
                    NUMBERS,
                ),
                max_size=8,
            ).map(tuple),
        },
    ),
    context=st.integers(1, 2**24),
    kv_type=st.sampled_from(["f16", "q8_0"]),
    flash=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_no_header_makes_it_raise_or_go_below_zero(
    facts: dict[str, GgufFacts], changes: dict[str, object], context: int, kv_type: str, flash: bool
) -> None:
    if "shapes" in changes:
        changes = changes | {"shape_bytes": ()}
    model = facts["qwen3-4b"].model_copy(update=changes)
    options = ServeOptions(context, 2, kv_type, flash_attention=flash)  # type: ignore[arg-type]
    for split in ((), (5,), (30, 7)):
        wanted = need(model, options, split)
        for share in (wanted.host, *wanted.gpus):
            assert min(share.weights, share.kv_cache, share.compute) >= 0
