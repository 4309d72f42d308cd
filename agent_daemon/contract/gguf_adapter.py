"""Whether a LoRA adapter is one, and whether it belongs to a model: what llama.cpp would refuse on the device
is said while planning. PURE.

The rules are those of llama.cpp's `llama_adapter_lora_init_impl`.
"""

from agent_daemon.contract.gguf_facts import GgufFacts, TensorShape

_A, _B = ".lora_a", ".lora_b"
_EMBEDDING = "token_embd.weight"
_NOT_APPLIED = "_norm.weight"
"""llama.cpp passes over a norm that an adapter brings."""


def unusable_reason(facts: GgufFacts) -> str | None:
    """Why a file cannot be an adapter of any model (`it is …`), or None when it can."""
    if facts.kind != "adapter":
        return f"it is of type {facts.kind or 'model'!r}, not a LoRA adapter"
    if facts.adapter_kind != "lora":
        return f"it is an adapter of type {facts.adapter_kind or 'unknown'!r}, expected a LoRA adapter"
    if facts.activated_by_tokens:
        return "it is an adapter that certain tokens activate (aLoRA), which is not supported"
    if not facts.architecture:
        return "its header names no architecture"
    if facts.split_count > 1:
        return "it is split into several files, which llama.cpp does not load as an adapter"
    pairs: dict[str, set[str]] = {}
    for shape in facts.shapes:
        base, half = _halved(shape.name)
        if half:
            pairs.setdefault(base, set()).add(half)
        elif not shape.name.endswith(_NOT_APPLIED):
            return f"its tensor {shape.name} is no part of a LoRA adapter"
    alone = next((base for base, halves in pairs.items() if len(halves) < 2), None)
    if alone is not None:
        return f"it has only one half of its change to {alone}"
    return None if pairs else "it holds no change to any tensor"


def mismatch(adapter: GgufFacts, model: GgufFacts) -> str | None:
    """Why an adapter (a usable one) cannot be applied to a model (`it …`), or None when it can.

    A model's quantization does not matter. Two models of one shape cannot be told apart: which of them an
    adapter was trained for is not known from headers."""
    if adapter.architecture != model.architecture:
        return f"it was made for the architecture {adapter.architecture}, not {model.architecture}"
    known = {shape.name: shape for shape in model.shapes}
    halves = {shape.name: shape for shape in adapter.shapes}
    for name, first in halves.items():
        base, half = _halved(name)
        if half != _A:
            continue
        target, second = known.get(base), halves[base + _B]
        if target is None:
            return f"it changes {base}, which the model does not have"
        if base.endswith(_EMBEDDING):
            if model.tied_output:
                return f"it changes {base}, which is the output layer too in this model"
            # Here both halves are stored the other way round: `llm_graph_context::build_inp_embd`.
            changed = TensorShape(base, second.rows, first.rows)
        else:
            changed = TensorShape(base, first.columns, second.rows)
            if first.rows != second.columns:
                return f"the halves of its change to {base} have ranks {first.rows} and {second.columns}"
        if changed != target:
            return f"it changes {base} of {_size(changed)}, the model's has {_size(target)}"
    return None


def _halved(name: str) -> tuple[str, str]:
    """The tensor that an adapter's tensor changes, and which half of the change it is (empty: none)."""
    for half in (_A, _B):
        if name.endswith(half):
            return name.removesuffix(half), half
    return name, ""


def _size(shape: TensorShape) -> str:
    return f"{shape.columns} x {shape.rows}"
