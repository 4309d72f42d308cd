"""Whole models of every kind that the worker serves, so small that llama.cpp answers in milliseconds.

Their weights are random and made from their names alone, so a kind is the same file on every machine. They speak
bytes: a prompt has as many tokens as bytes, and an answer is of small letters and spaces, for no other token has
weights to be chosen by. An answer therefore never ends by itself.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import gettempdir

import gguf
import numpy as np
from numpy.typing import NDArray

WIDTH, FEED, HEADS, KV_HEADS, HEAD = 64, 128, 4, 2, 16
INNER, STATE, CONVOLUTION, TIME_STEP = 128, 16, 4, 8
WINDOW = 64
"""Tokens that a sliding layer looks back."""
TRAINED = 4096
"""Tokens of context that the files say they were trained with."""
SPEAKABLE = tuple(b" abcdefghijklmnopqrstuvwxyz")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SHARP, LOUD = 4, 2
"""How much larger than usual queries and what attention and states say are: a few tokens then decide an answer, far
ones too, so that a wrong cell is seen in it."""
NORMS = {"attn_q_norm": SHARP, "post_attention_norm": 16, "post_ffw_norm": 8}
"""Weights of norms that are not 1. Gemma's embeddings are 8 times as large as others, and what joins them has to be."""
SIZES = {
    "token_embd": 1.7,
    "position_embd": 1.7,
    "output": 0.6,
    "ssm_conv1d": 0.9,
    "ssm_dt": 0.5,
    "conv": 0.9,
}
"""How large the weights of a tensor are at most, where that is not what keeps the size of its input."""

Weights = NDArray[np.float32]
Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Kind:
    """An architecture of llama.cpp, its layers by letter (`a`ttention, `s`liding attention, `m`amba, short
    `c`onvolution), what it makes vectors and prompts with, and the seed of its weights, which was chosen so that one
    letter of a prompt changes its answer."""

    arch: str
    layers: str
    pooling: gguf.PoolingType | None = None
    template: str | None = None
    seed: int = 0

    @property
    def attends(self) -> bool:
        return any(layer in "as" for layer in self.layers)

    @property
    def normalizes(self) -> bool:
        """Whether its queries and keys have norms of their own."""
        return self.arch in ("gemma3", "qwen3", "lfm2")

    @property
    def kv_heads(self) -> int:
        return HEADS if self.arch == "bert" else KV_HEADS


KINDS = {
    "dense": Kind("llama", "aa", seed=37),
    "sliding": Kind("gemma3", "sasa", seed=18),
    "recurrent": Kind("mamba", "mm", seed=33),
    "hybrid": Kind("jamba", "ma", seed=57),
    "hybrid-sliding": Kind("lfm2", "csc", seed=11),
    "templated": Kind("llama", "aa", template=TEMPLATE, seed=37),
    "encoder": Kind("bert", "aa", pooling=gguf.PoolingType.MEAN),
    "decoder": Kind("qwen3", "aa", pooling=gguf.PoolingType.LAST),
}


def tiny_model(name: str) -> Path:
    """The file of one of KINDS, written once for this version of this module and then kept."""
    return _kept(f"{name}.gguf", lambda path: write(path, KINDS[name]))


def _kept(name: str, make: Callable[[Path], object]) -> Path:
    folder = Path(gettempdir()) / f"edgectl-tiny-{os.getuid()}-{_version()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / name
    if not target.exists():
        fresh = folder / f"{name}.{os.getpid()}.part"
        make(fresh)
        fresh.replace(target)
    return target


@cache
def _version() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


def noise(name: str, shape: tuple[int, ...], scale: float) -> Weights:
    """Numbers between -`scale` and `scale` that depend on nothing but the arguments; the last axis is a row."""
    count = int(np.prod(shape))
    raw = np.frombuffer(hashlib.shake_256(name.encode()).digest(2 * count), dtype="<u2")
    even = raw.astype(np.float32) / np.float32(32768) - np.float32(1)
    return (even * np.float32(scale)).reshape(shape)


def write(path: Path, kind: Kind) -> Path:
    """Writes a whole model file."""
    writer = gguf.GGUFWriter(path, kind.arch)
    _facts(writer, kind)
    _vocabulary(writer, kind)
    for name, weights in _weights(kind):
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _facts(writer: gguf.GGUFWriter, kind: Kind) -> None:
    writer.add_block_count(len(kind.layers))
    writer.add_context_length(TRAINED)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED if kind.attends else 0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_head_count(HEADS if kind.attends else 0)
    writer.add_head_count_kv([kind.kv_heads if layer in "as" else 0 for layer in kind.layers])
    if kind.attends:
        writer.add_key_length(HEAD)
        writer.add_value_length(HEAD)
        writer.add_rope_dimension_count(HEAD)
    if "s" in kind.layers:
        writer.add_sliding_window(WINDOW)
        writer.add_sliding_window_pattern([layer == "s" for layer in kind.layers])
    if "m" in kind.layers:
        writer.add_ssm_conv_kernel(CONVOLUTION)
        writer.add_ssm_inner_size(INNER)
        writer.add_ssm_state_size(STATE)
        writer.add_ssm_time_step_rank(TIME_STEP)
    if "c" in kind.layers:
        writer.add_shortconv_l_cache(CONVOLUTION)
    if kind.pooling is not None:
        writer.add_pooling_type(kind.pooling)
        writer.add_causal_attention(kind.arch != "bert")


def _vocabulary(writer: gguf.GGUFWriter, kind: Kind) -> None:
    # Byte-level BPE writes a byte that does not print as another character, counted on from 256.
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printing]
    bytes_ = [chr(byte) if byte in printing else chr(256 + others.index(byte)) for byte in range(256)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*bytes_, *SPECIAL])
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(SPECIAL))
    # A merge whose result is no token never happens, and llama.cpp wants a list.
    writer.add_token_merges([f"{bytes_[0]} {bytes_[0]}"])
    writer.add_token_type_count(1)
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256 + (2 if kind.template else 0))
    writer.add_add_bos_token(False)
    if kind.template:
        writer.add_chat_template(kind.template)


# -- weights ---------------------------------------------------------------------------------------------


def _weights(kind: Kind) -> Iterator[tuple[str, Weights]]:
    for name, shape in _shapes(kind):
        *_, what, role = name.split(".")
        seed = f"{kind.seed} {name}"
        if what.endswith("norm"):
            size = NORMS.get(what, 1) * (role != "bias")
            weights = np.full(shape, size, dtype=np.float32)
        elif role == "ssm_a":
            # How fast a state is forgotten: slowly, so that what came first still counts.
            weights = -abs(noise(seed, shape, 0.05))
        else:
            weights = noise(seed, shape, SIZES.get(what) or _louder(kind, what) * (3 / shape[-1]) ** 0.5)
        if what == "output":
            weights[[token for token in range(shape[0]) if token not in SPEAKABLE]] = 0
        yield name, weights


def _louder(kind: Kind, what: str) -> int:
    if what == "attn_q" and not kind.normalizes:
        return SHARP
    return LOUD if what in ("attn_output", "ssm_out") else 1


def _shapes(kind: Kind) -> Shapes:
    """Every tensor's name and shape, as NumPy has it: a row is the last axis."""
    vocabulary = 256 + len(SPECIAL)
    yield "token_embd.weight", (vocabulary, WIDTH)
    if kind.arch == "bert":
        yield "position_embd.weight", (TRAINED, WIDTH)
        yield "token_embd_norm.weight", (WIDTH,)
        yield "token_embd_norm.bias", (WIDTH,)
    else:
        yield ("token_embd_norm.weight" if kind.arch == "lfm2" else "output_norm.weight"), (WIDTH,)
        yield "output.weight", (vocabulary, WIDTH)
    for number, layer in enumerate(kind.layers):
        for name, shape in _BLOCKS[layer](kind):
            yield f"blk.{number}.{name}", shape


def _attention(kind: Kind) -> Shapes:
    yield "attn_q.weight", (HEADS * HEAD, WIDTH)
    yield "attn_k.weight", (kind.kv_heads * HEAD, WIDTH)
    yield "attn_v.weight", (kind.kv_heads * HEAD, WIDTH)
    yield "attn_output.weight", (WIDTH, HEADS * HEAD)
    if kind.arch == "bert":
        for norm in ("attn_output_norm", "layer_output_norm"):
            yield f"{norm}.weight", (WIDTH,)
            yield f"{norm}.bias", (WIDTH,)
    else:
        yield "attn_norm.weight", (WIDTH,)
    if kind.normalizes:
        yield "attn_q_norm.weight", (HEAD,)
        yield "attn_k_norm.weight", (HEAD,)
    if kind.arch == "gemma3":
        yield "post_attention_norm.weight", (WIDTH,)
        yield "post_ffw_norm.weight", (WIDTH,)
    yield from _feed_forward(kind)


def _mamba(kind: Kind) -> Shapes:
    yield "attn_norm.weight", (WIDTH,)
    yield "ssm_in.weight", (2 * INNER, WIDTH)
    yield "ssm_conv1d.weight", (INNER, CONVOLUTION)
    yield "ssm_conv1d.bias", (INNER,)
    yield "ssm_x.weight", (TIME_STEP + 2 * STATE, INNER)
    yield "ssm_dt.weight", (INNER, TIME_STEP)
    yield "ssm_dt.bias", (INNER,)
    yield "ssm_a", (INNER, STATE)
    yield "ssm_d", (INNER,)
    yield "ssm_out.weight", (WIDTH, INNER)
    if kind.arch == "jamba":
        yield "ssm_dt_norm.weight", (TIME_STEP,)
        yield "ssm_b_norm.weight", (STATE,)
        yield "ssm_c_norm.weight", (STATE,)
        yield from _feed_forward(kind)


def _convolution(kind: Kind) -> Shapes:
    yield "attn_norm.weight", (WIDTH,)
    yield "shortconv.conv.weight", (WIDTH, CONVOLUTION)
    yield "shortconv.in_proj.weight", (3 * WIDTH, WIDTH)
    yield "shortconv.out_proj.weight", (WIDTH, WIDTH)
    yield from _feed_forward(kind)


def _feed_forward(kind: Kind) -> Shapes:
    if kind.arch != "bert":
        yield "ffn_norm.weight", (WIDTH,)
        yield "ffn_gate.weight", (FEED, WIDTH)
    yield "ffn_up.weight", (FEED, WIDTH)
    yield "ffn_down.weight", (WIDTH, FEED)


_BLOCKS = {"a": _attention, "s": _attention, "m": _mamba, "c": _convolution}
