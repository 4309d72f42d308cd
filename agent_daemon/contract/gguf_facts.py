"""The facts of a model, as one value that is stored and sent. `gguf.read_facts` makes it."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from agent_daemon.contract import architectures


class TensorShape(NamedTuple):
    """Elements of a tensor's row, and its rows (1 for a vector; of one expert where a tensor holds several)."""

    name: str
    columns: int
    rows: int


class GgufFacts(BaseModel):
    """One model, or one file of a split one (`gguf.combine` makes the model of the files). Frozen; stored as
    JSON.

    Sizes are bytes, contexts and windows are tokens, lengths of keys and values are elements of one head."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int
    architecture: str
    """Empty when the header names none, as in the later files of a split model."""
    name: str | None
    kind: str | None
    """`general.type`: model, adapter, mmproj, imatrix…"""
    adapter_kind: str | None = None
    """`adapter.type`, such as lora; None for whatever is no adapter."""
    activated_by_tokens: bool = False
    """Whether an adapter is meant to work from a certain sequence of tokens on (aLoRA)."""
    file_type: str | None
    """Such as Q4_K_M; None when the file does not say, or says something unknown."""

    parameter_count: int
    block_parameters: int
    """Those of the blocks alone, without vocabulary and output."""
    tensor_count: int
    tensor_bytes: int
    token_embd_bytes: int
    input_bytes: int
    """Other tensors of the input layer, which llama.cpp keeps in RAM beside the token embedding."""
    output_bytes: int
    """`output.weight`; 0 when the output layer uses the token embedding (tied)."""
    layer_bytes: tuple[int, ...]
    other_bytes: int
    """Norms and whatever else belongs to no block; goes with the output layer."""
    shapes: tuple[TensorShape, ...]
    """Of every tensor, in the order of the file: what says whether an adapter belongs to a model."""

    shape_bytes: tuple[int, ...] = ()
    """Of each tensor in `shapes`."""

    n_layers: int
    nextn_layers: int = 0
    """Last layers that only predict further tokens: loaded on request only, and they hold no cache."""
    context_length: int | None
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    key_length_sliding: int
    value_length_sliding: int
    n_vocab: int

    sliding_window: int | None
    sliding_layers: tuple[bool, ...]
    kv_layers: int
    """The first so many layers have a KV cache; later ones read an earlier layer's."""
    mla: bool
    """Multi-head latent attention with an absorbed V: only K is stored, of `key_length`."""
    kv_lora_rank: int | None

    recurrent_layers: tuple[bool, ...]
    recurrent_state: int
    """Elements (of 4 bytes) that a recurrent layer holds for each sequence."""

    expert_count: int
    expert_used_count: int
    expert_ff: int
    pooling_type: str | None
    has_chat_template: bool

    split_count: int
    split_no: int
    split_tensors: int
    """Tensors of all files together; 0 when the model is one file."""
    header_bytes: int
    data_end: int
    """Bytes that the file must have for all its tensors to be there; of all files together once combined."""

    def __hash__(self) -> int:
        """Cheap, because facts are asked about many thousand times when a fleet is placed."""
        return hash((self.architecture, self.tensor_count, self.tensor_bytes, self.data_end, self.file_type))

    @property
    def _attends(self) -> bool:
        return any(self.n_kv_heads) and self.key_length > 0

    @property
    def _layers_with_tensors(self) -> int:
        """Up to the last that has any; those between may be empty (Deci's layers that do nothing)."""
        return max((layer + 1 for layer, size in enumerate(self.layer_bytes) if size), default=0)

    def truncated_by(self, size: int) -> int:
        """Bytes that a file (or all files) of `size` bytes lacks; 0 when nothing is missing."""
        return max(0, self.data_end - size)

    @property
    def bits_per_weight(self) -> float:
        """Mean bits of a parameter, 0.0 without parameters."""
        return self.tensor_bytes * 8 / self.parameter_count if self.parameter_count else 0.0

    @property
    def encoder_only(self) -> bool:
        """Embeds, and never generates text."""
        return self.architecture in architectures.ENCODER_ONLY

    @property
    def tied_output(self) -> bool:
        """Whether the output layer is the token embedding, so that a GPU holds a second copy of it."""
        return self.output_bytes == 0 and not self.encoder_only

    @property
    def stateful(self) -> bool:
        """Whether what a sequence holds in memory cannot be cut at any place: it has a recurrent state, or layers
        that forget what has left their window. The worker asks llama.cpp the same."""
        return any(self.recurrent_layers) or self.sliding_window is not None

    @property
    def servable(self) -> bool:
        return self.unservable_reason is None

    @property
    def unservable_reason(self) -> str | None:
        """Why this cannot be served as a language model (`it is …`), or None when it can."""
        if self.split_count > 1 and self.split_tensors != self.tensor_count:
            return f"it is file {self.split_no + 1} of {self.split_count} of a split model"
        if self.architecture in architectures.NOT_A_SERVED_MODEL:
            return architectures.NOT_A_SERVED_MODEL[self.architecture]
        if self.kind == "adapter":
            return "it is an adapter: it belongs under `adapters` of the model that it was trained for"
        if self.kind not in (None, "model"):
            return f"it is of type {self.kind!r}, not a model"
        if not self.architecture:
            return "its header names no architecture"
        if not self.tensor_count:
            return "it holds a vocabulary and no weights"
        if not (self.n_layers and self.n_embd and self.n_vocab and self.token_embd_bytes):
            return f"its header does not describe a language model ({self.architecture})"
        if (layers := self._layers_with_tensors) < self.n_layers:
            return f"its header promises {self.n_layers} layers, and it has tensors of {layers}"
        if not self.encoder_only and not any(self.recurrent_layers) and not self._attends:
            return f"its header gives no layer any attention heads ({self.architecture})"
        return None
