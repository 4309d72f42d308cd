"""How many bytes llama.cpp itself takes, by memory, asked of it without allocating what it asks about.

A model's file is given to a process of its own, which loads it with `no_alloc` once for each split and makes one
context after another. llama.cpp allocates recurrent states even so: of models that have them this takes memory.
`python -m tests.bench.fit.truth` is that process: questions come as JSON by stdin, answers go to stdout, a line each.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent_daemon.contract.need import Share, Split
from agent_daemon.contract.release import KvType
from agent_daemon.contract.sequences import cells, padded, sequences
from agent_daemon.contract.serve_options import UBATCH, ServeOptions

LIMIT = 600
"""Seconds that all contexts of one model may take."""
_KV_TYPES = {"f16": 1, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2, "iq4_nl": 20}
_OFF, _ON = 0, 1
_CPU = 0
_ERROR = 4
_MATCHES_NOTHING = b"^no tensor has this name$"


@dataclass(frozen=True, slots=True)
class Setting:
    """One context, and how the model is split over devices. `context` is of each of the `parallel` answers."""

    context: int
    parallel: int = 1
    kv_type: KvType = "f16"
    flash_attention: bool = True
    unified: bool = True
    split: Split = ()
    plain: bool = False
    """As llama.cpp's own server makes a context: no sequence beyond `parallel`, and logits for every token of a
    batch."""

    def options(self, *, embeds: bool) -> ServeOptions:
        """The same as edgectl counts it."""
        return ServeOptions(
            context=self.context,
            parallel=self.parallel,
            kv_type=self.kv_type,
            ubatch=max(UBATCH, padded(self.context)) if embeds else UBATCH,
            task="embeddings" if embeds else "chat",
            flash_attention=self.flash_attention,
            unified=self.unified,
            # the devices of these tests compute with their own weights only
            borrows=False,
        )

    def __str__(self) -> str:
        flash = "fa" if self.flash_attention else "no fa"
        apart = "" if self.unified else " apart"
        split = f" on {'+'.join(map(str, self.split))}" if self.split else ""
        return f"{self.context}x{self.parallel} {self.kv_type} {flash}{apart}{split}"


@dataclass(frozen=True, slots=True)
class Truth:
    """What RAM holds and what each device of the split, or why llama.cpp refuses that context."""

    host: Share
    gpus: tuple[Share, ...] = ()
    refused: str | None = None

    @property
    def total(self) -> int:
        return self.host.total + sum(share.total for share in self.gpus)


class Unmeasured(Exception):
    """The process that measures ended otherwise than with its answers; the message is its last words."""


def measure(
    model: Path,
    settings: Sequence[Setting],
    *,
    embeds: bool = False,
    devices: Sequence[str] = (),
    library: Path | None = None,
) -> list[Truth]:
    """The truth of each setting, in order. `devices` are addresses of running ones and `library` what speaks to them
    (`tests.support.rpc_devices`); without them there is RAM only. Raises Unmeasured."""
    question = {
        "model": str(model),
        "embeds": embeds,
        "devices": list(devices),
        "library": None if library is None else str(library),
        "settings": [asdict(each) for each in settings],
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.fit.truth"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    answers = [_answer(json.loads(line)) for line in done.stdout.splitlines()]
    if done.returncode or len(answers) != len(settings):
        raise Unmeasured(f"{model.name}: {done.stderr.strip()[-1500:] or f'ended with {done.returncode}'}")
    return answers


def _answer(found: Mapping[str, Any]) -> Truth:
    return Truth(Share(**found["host"]), tuple(Share(**each) for each in found["gpus"]), found.get("refused"))


# -- the process that measures ---------------------------------------------------------------------------


def main() -> None:
    """Answer the question on stdin."""
    from agent_daemon.worker.runtime import load_backends

    question = json.load(sys.stdin)
    library = load_backends()
    if question["library"]:
        attach(library, Path(question["library"]), question["devices"])
    bench = _Bench(library, question["model"], question["embeds"], tuple(question["devices"]))
    for each in question["settings"]:
        truth = bench.truth(Setting(**each | {"split": tuple(each["split"])}))
        print(json.dumps(asdict(truth)), flush=True)


def attach(ggml: ctypes.CDLL, library: Path, devices: Iterable[str]) -> None:
    """Makes devices that answer at these addresses known to llama.cpp in this process, in that order."""
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
    assert ggml.ggml_backend_load(str(library).encode()), f"{library} is no backend of this ggml"
    remote = ctypes.CDLL(str(library))
    remote.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    remote.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    ggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
    for address in devices:
        registry = remote.ggml_backend_rpc_add_server(address.encode())
        assert registry, f"no device answers at {address}"
        ggml.ggml_backend_register(registry)


class _Override(ctypes.Structure):
    """`llama_model_tensor_buft_override`: a pattern of names, and where those tensors go."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffers", ctypes.c_void_p))


class _Bench:
    """One model of a file, loaded anew only for another split."""

    def __init__(self, library: ctypes.CDLL, path: str, embeds: bool, devices: tuple[str, ...]) -> None:
        import llama_cpp

        self._llama = llama_cpp
        self._library = library
        self._path = path
        self._embeds = embeds
        self._devices = devices
        self._said: list[str] = []
        self._loaded: Any = None
        self._split: Split | None = None

        @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
        def log(level: int, text: bytes, _data: Any) -> None:
            if level == _ERROR:
                self._said.append(text.decode(errors="replace").strip())

        self._log = log
        llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()

    def truth(self, setting: Setting) -> Truth:
        from agent_daemon.worker.breakdown import breakdown

        llama, model = self._llama, self._model(setting.split)
        self._said.clear()
        params = self._context(model, setting)
        context = llama.llama_init_from_model(model, params)
        if not context:
            return Truth(Share(), refused=self._reason())
        try:
            parts = breakdown(context, self._library)
            assert parts is not None, "this build of llama.cpp keeps no account that can be read"
            vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
            row = vocabulary + (llama.llama_model_n_embd_out(model) if self._embeds else 0)
            rows = int(params.n_ubatch if self._embeds else params.n_seq_max)
        finally:
            llama.llama_free(context)
        gpus = [Share() for _ in setting.split]
        # logits and vectors of a step: llama.cpp's own account leaves them out
        host = Share(compute=4 * rows * row)
        for part in parts:
            share = Share(part.weights, part.cache, part.compute)
            if part.host:
                host = _both(host, share)
            else:
                place = next(i for i, address in enumerate(self._devices) if f"[{address}]" in part.name)
                gpus[place] = _both(gpus[place], share)
        return Truth(host, tuple(gpus))

    def _model(self, split: Split) -> Any:
        if self._split == split:
            return self._loaded
        llama = self._llama
        if self._loaded:
            llama.llama_model_free(self._loaded)
        params = llama.llama_model_default_params()
        params.no_alloc = True
        params.load_mode = llama.LLAMA_LOAD_MODE_NONE
        params.n_gpu_layers = sum(split)
        # An override, even of nothing, keeps the scheduler from copying its buffers for a pipeline of batches.
        overrides = (_Override * 2)(_Override(_MATCHES_NOTHING, self._cpu_buffers()))
        params.tensor_buft_overrides = ctypes.addressof(overrides)
        shares = (ctypes.c_float * llama.llama_max_devices())(*split)
        if split:
            params.split_mode = llama.LLAMA_SPLIT_MODE_LAYER
            params.tensor_split = ctypes.cast(shares, type(params.tensor_split))
        self._said.clear()
        self._loaded = llama.llama_model_load_from_file(self._path.encode(), params)
        if not self._loaded:
            raise SystemExit(f"llama.cpp refuses {Path(self._path).name}: {self._reason()}")
        self._split = split
        return self._loaded

    def _cpu_buffers(self) -> Any:
        self._library.ggml_backend_dev_by_type.restype = ctypes.c_void_p
        self._library.ggml_backend_dev_buffer_type.restype = ctypes.c_void_p
        self._library.ggml_backend_dev_buffer_type.argtypes = [ctypes.c_void_p]
        return self._library.ggml_backend_dev_buffer_type(self._library.ggml_backend_dev_by_type(_CPU))

    def _context(self, model: Any, setting: Setting) -> Any:
        """As the worker makes it (`worker.model`), but for what only this bench varies."""
        llama = self._llama
        stateful = (
            llama.llama_model_n_swa(model) > 0
            or llama.llama_model_is_recurrent(model)
            or llama.llama_model_is_hybrid(model)
        )
        options = setting.options(embeds=self._embeds)
        params = llama.llama_context_default_params()
        params.n_ctx = cells(setting.context, setting.parallel, None)
        kept = sequences(setting.parallel, options.task, stateful=stateful)
        # nothing is kept for its beginning where a sequence cannot share cells with another
        params.n_seq_max = setting.parallel if setting.plain or not setting.unified else kept
        params.kv_unified = setting.unified
        params.type_k = params.type_v = _KV_TYPES[setting.kv_type]
        params.flash_attn_type = _ON if setting.flash_attention else _OFF
        params.swa_full = False
        if self._embeds:
            params.embeddings = True
            params.n_batch = params.n_ubatch = options.ubatch
        else:
            params.n_batch = params.n_ubatch = min(options.ubatch, params.n_ctx)
            if not setting.plain:
                params.n_outputs_max = params.n_seq_max
        return params

    def _reason(self) -> str:
        return self._said[0] if self._said else "no reason given"


def _both(one: Share, other: Share) -> Share:
    return Share(one.weights + other.weights, one.kv_cache + other.kv_cache, one.compute + other.compute)


if __name__ == "__main__":
    main()
