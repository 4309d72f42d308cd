"""What llama.cpp computes with besides weights and cache: its compute buffers. PURE. Sizes are bytes."""

from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.kv_cache import ContextShape


def whole(facts: GgufFacts, context: ContextShape) -> int:
    """The compute buffer of a device that computes every layer."""
    masks = _masks(facts, context)
    return max(_block_peak(facts, context.graph_tokens), _output_peak(facts, context)) + masks


def transfer(facts: GgufFacts, context: ContextShape) -> int:
    """The inputs that stay in RAM beside a model on a GPU: embeddings of a batch, and the masks."""
    return _masks(facts, context) + 8 * facts.n_embd * context.graph_tokens


def _masks(facts: GgufFacts, context: ContextShape) -> int:
    """One f16 mask of all cells by batch tokens for full layers, another for sliding ones."""
    if facts.encoder_only:
        return 2 * context.graph_tokens * context.graph_tokens
    cells = context.cells + (context.sliding_cells if any(facts.sliding_layers) else 0)
    return 2 * cells * context.graph_tokens


def _block_peak(facts: GgufFacts, ubatch: int) -> int:
    """Live f32 tensors at the widest point of a block: gate, up and their product, the queries, and three of
    the model's width. A mixture computes each of them once for every expert used, and where the experts'
    outputs do not fit into the space of gate and up, they come on top."""
    experts = facts.expert_used_count
    wide = max(3 * facts.n_ff, 3 * facts.expert_ff * experts)
    if experts and facts.n_embd > 2 * facts.expert_ff:
        wide = max(wide, (3 * facts.expert_ff + facts.n_embd) * experts)
    if any(facts.recurrent_layers):
        wide = max(wide, 8 * facts.n_embd)
    queries = facts.n_heads * max(facts.key_length, facts.key_length_sliding)
    return 4 * ubatch * (wide + 3 * facts.n_embd + queries)


def _output_peak(facts: GgufFacts, context: ContextShape) -> int:
    """The logits of every output beside two tensors of the model's width."""
    logits = 0 if facts.encoder_only else context.outputs * facts.n_vocab
    return 4 * (logits + 2 * context.graph_tokens * facts.n_embd)
