"""One GGUF loaded into memory, with its vocabulary: a thin, typed face of llama_cpp's low-level interface."""

import ctypes
from functools import cached_property
from typing import Any

import llama_cpp

from agent_daemon.worker import opening
from agent_daemon.worker.breakdown import breakdown
from agent_daemon.worker.opening import LoadError
from agent_daemon.worker.runtime import EngineLog, load_backends
from agent_daemon.worker_messages import AdapterFile, Load

_LONG_TEXT = 64 * 1024
"""Characters; split in about 20 ms."""
_COMPLETE_VOCABULARIES = (llama_cpp.LLAMA_VOCAB_TYPE_SPM, llama_cpp.LLAMA_VOCAB_TYPE_BPE)


class Model:
    """Weights, context and vocabulary. Raises LoadError. Driven by one thread only."""

    def __init__(self, load: Load, log: EngineLog) -> None:
        self._model = opening.open_model(load, log)
        self.vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.context_limit = load.context
        self.parallel = load.parallel
        self.embeds = load.task == "embeddings"
        self.window = opening.window(self._model)
        self.recurrent = opening.recurrent(self._model)
        self.ctx = opening.open_context(self._model, load, log)
        self.memory = llama_cpp.llama_get_memory(self.ctx)
        self.batch_limit = int(llama_cpp.llama_n_batch(self.ctx))
        self.cells = int(llama_cpp.llama_n_ctx(self.ctx))
        self.sequences = int(llama_cpp.llama_n_seq_max(self.ctx))
        self._adapters = {each.name: (self._adapter(each, log), each.scale) for each in load.adapters}
        self._adapter_in_use: str | None = None

    @property
    def stateful(self) -> bool:
        """Whether what a sequence holds cannot be cut at any place: a recurrent state, or a sliding window."""
        return self.recurrent or self.window > 0

    def _adapter(self, file: AdapterFile, log: EngineLog) -> Any:
        loaded = llama_cpp.llama_adapter_lora_init(self._model, file.path.encode())
        if not loaded:
            raise LoadError(f"the adapter {file.name} was refused: {log.reason()}")
        return loaded

    def repacked_bytes(self) -> int:
        """Weights that llama.cpp has laid out anew for the CPU's instructions; 0 where it does not say."""
        parts = breakdown(self.ctx, load_backends()) or ()
        return sum(part.weights for part in parts if part.host and part.name.endswith("_REPACK"))

    def use_adapter(self, name: str | None) -> None:
        """From the next batch on computes with this adapter, or with none. Raises KeyError for an unknown one."""
        if name == self._adapter_in_use:
            return
        if name is None:
            llama_cpp.llama_set_adapters_lora(self.ctx, None, 0, None)
        else:
            pointer, scale = self._adapters[name]
            pointers = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(pointer)
            llama_cpp.llama_set_adapters_lora(self.ctx, pointers, 1, (ctypes.c_float * 1)(scale))
        self._adapter_in_use = name

    def meta(self, key: str) -> str | None:
        """A metadata value of the file as text, or None."""
        return opening.meta(self._model, key)

    @cached_property
    def chat_template(self) -> str | None:
        """The Jinja source that the file carries, or None."""
        template: bytes | None = llama_cpp.llama_model_chat_template(self._model, None)
        return template.decode(errors="replace") if template else None

    @cached_property
    def vocab_size(self) -> int:
        return int(llama_cpp.llama_vocab_n_tokens(self.vocab))

    @cached_property
    def width(self) -> int:
        """Elements of one embedding vector."""
        return int(llama_cpp.llama_model_n_embd_out(self._model))

    @cached_property
    def begins_with_bos(self) -> bool:
        return bool(llama_cpp.llama_vocab_get_add_bos(self.vocab))

    def token_text(self, token: int) -> str:
        """The text of a special token such as BOS, or an empty string when there is none."""
        if token < 0:
            return ""
        return self.piece(token, special=True).decode(errors="replace")

    @cached_property
    def bos_text(self) -> str:
        return self.token_text(llama_cpp.llama_vocab_bos(self.vocab))

    @cached_property
    def eos_text(self) -> str:
        return self.token_text(llama_cpp.llama_vocab_eos(self.vocab))

    def ends(self, token: int) -> bool:
        """Whether the model says with this token that its answer is finished."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    @cached_property
    def longest_piece(self) -> int:
        """Bytes of the longest token."""
        return max((len(self.piece(token, special=True)) for token in range(self.vocab_size)), default=1) or 1

    def fewest_tokens(self, text: str) -> int:
        """A number of tokens that `text` has at least, found without splitting it; 0 where nothing is known
        because the tokenizer may drop or merge text (all but byte-complete BPE and SentencePiece), or because splitting
        so short a text takes less time than to find the longest of a large vocabulary's pieces."""
        if len(text) < _LONG_TEXT or llama_cpp.llama_vocab_type(self.vocab) not in _COMPLETE_VOCABULARIES:
            return 0
        return len(text.encode(errors="replace")) // self.longest_piece

    def tokenize(self, text: str, add_special: bool = True) -> list[int]:
        """Token ids of `text`, special tokens recognised; with `add_special` BOS added where the model wants one."""
        data = text.encode(errors="replace")
        room = len(data) + 8
        while True:
            tokens = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(self.vocab, data, len(data), tokens, room, add_special, True)
            if count >= 0:
                return list(tokens[:count])
            room = -count

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes that a token stands for: possibly a part of one UTF-8 character."""
        buffer = ctypes.create_string_buffer(64)
        size = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, 64, 0, special)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, -size, 0, special)
        return buffer.raw[:size]

    def forget(self, sequence: int) -> None:
        """Frees every cell of a sequence."""
        llama_cpp.llama_memory_seq_rm(self.memory, sequence, -1, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Lets an empty sequence share the first `length` positions of another; nothing is computed or moved. A state
        that cannot be cut is copied whole."""
        end = -1 if self.recurrent else length
        llama_cpp.llama_memory_seq_cp(self.memory, source, target, -1 if self.recurrent else 0, end)

    def truncate(self, sequence: int, length: int) -> bool:
        """Takes a sequence back to `length` positions; False when its state cannot be cut there."""
        return bool(llama_cpp.llama_memory_seq_rm(self.memory, sequence, length, -1))

    def first_position(self, sequence: int) -> int:
        """The first position of which a sequence has everything: past 0 once a window has slid on; -1 when empty."""
        return int(llama_cpp.llama_memory_seq_pos_min(self.memory, sequence))


class Batch:
    """The tokens of one step, each with its position and sequence."""

    def __init__(self, capacity: int) -> None:
        self._batch = llama_cpp.llama_batch_init(capacity, 0, 1)
        self.capacity = capacity
        self.size = 0

    def clear(self) -> None:
        self.size = 0

    @property
    def room(self) -> int:
        return self.capacity - self.size

    def add(self, token: int, position: int, sequence: int, wants_output: bool) -> int:
        """Appends one token; returns its index, by which its logits are found."""
        index = self.size
        self._batch.token[index] = token
        self._batch.pos[index] = position
        self._batch.n_seq_id[index] = 1
        self._batch.seq_id[index][0] = sequence
        self._batch.logits[index] = wants_output
        self.size += 1
        return index

    def extend(self, tokens: list[int], position: int, sequence: int, wants_output: bool) -> int:
        """Appends tokens of a sequence from `position` on, with an output for the last one if wanted; returns the
        index of that last one."""
        last = len(tokens) - 1
        for offset, token in enumerate(tokens):
            self.add(token, position + offset, sequence, wants_output and offset == last)
        return self.size - 1

    def decode(self, model: Model) -> int:
        """Computes the batch; returns llama_decode's code (0 is success)."""
        self._batch.n_tokens = self.size
        return int(llama_cpp.llama_decode(model.ctx, self._batch))
