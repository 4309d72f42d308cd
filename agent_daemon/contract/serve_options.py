"""How a model would be served, as far as its memory depends on it. PURE."""

from dataclasses import dataclass

from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.release import KvType, Task

UBATCH = 512
"""Tokens of one step (n_batch and n_ubatch) that a worker computes at most, unless it embeds."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """`context` counts tokens of each of the `parallel` answers at a time; `adapters` are all in memory beside the
    model, and so is the `projector` (mmproj) of one that sees or hears."""

    context: int
    parallel: int = 1
    kv_type: KvType = "f16"
    ubatch: int = UBATCH
    task: Task = "chat"
    adapters: tuple[GgufFacts, ...] = ()
    shared: int | None = None
    """Tokens of the cache that all answers share; None: the whole context for each."""
    projector: GgufFacts | None = None
    flash_attention: bool = True
    """The worker always has it; without it the cache may be of f16 only, and attention is computed in the open."""
    borrows: bool = True
    """Whether a GPU computes prompts for the blocks in RAM too, with a copy of one weight at a time, as it does under
    CUDA, ROCm, Vulkan, Metal and SYCL."""
    unified: bool = True
    """Whether all sequences share one cache, as the worker's do; else each of the `parallel` has its own."""
