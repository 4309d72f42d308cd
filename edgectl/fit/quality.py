"""Which of several files of models is the better one, before anything is measured. PURE.

The prior is the KL divergence from the unquantized model that llama.cpp's perplexity README gives for Llama 3
8B (mean KLD, with an importance matrix where one is needed). It is a prior, not a measurement of another
model.
"""

import math

from agent_daemon.contract.gguf import GgufFacts

KLD: dict[str, float] = {
    "F32": 0.0,
    "F16": 0.0006,
    "BF16": 0.0006,
    "Q8_0": 0.0014,
    "Q6_K": 0.0055,
    "Q5_K_M": 0.0108,
    "Q5_K_S": 0.0166,
    "Q4_K_M": 0.0313,
    "Q4_K_S": 0.0320,
    "IQ4_NL": 0.0357,
    "IQ4_XS": 0.0363,
    "Q4_0": 0.0719,
    "Q3_K_L": 0.0731,
    "Q3_K_M": 0.0844,
    "IQ3_M": 0.103,
    "IQ3_XXS": 0.184,
    "Q3_K_S": 0.228,
    "IQ2_M": 0.326,
    "Q2_K": 0.445,
    "IQ2_XXS": 0.812,
}
"""Mean KL divergence by file type. BF16 is taken to be as good as F16."""

GOOD_KLD = 0.1
"""Where about 3.5 bits a weight end: past it, a smaller model at Q4 or better is usually the better
choice."""

_BY_BITS = (
    (2.38, KLD["IQ2_XXS"]),
    (3.16, KLD["Q2_K"]),
    (4.00, KLD["Q3_K_M"]),
    (4.67, KLD["Q4_K_S"]),
    (5.57, KLD["Q5_K_S"]),
    (6.56, KLD["Q6_K"]),
    (8.50, KLD["Q8_0"]),
    (16.0, KLD["F16"]),
)
"""Bits a weight of Llama 3 8B in types of one family, so that the curve only falls."""


def divergence(facts: GgufFacts) -> float:
    """Expected KL divergence from the unquantized model.

    A file type without a number in the table (Q4_1, Q5_0, a type of one's own…) is judged by its bits a
    weight: the logarithm of the divergence is drawn straight between the neighbours in the table, and on past
    its low end."""
    known = KLD.get(facts.file_type or "")
    return _from_bits(facts.bits_per_weight) if known is None else known


def _from_bits(bits: float) -> float:
    if bits >= _BY_BITS[-1][0]:
        return _BY_BITS[-1][1]
    upper = next(index for index, (point, _) in enumerate(_BY_BITS) if bits < point)
    (low, low_kld), (high, high_kld) = _BY_BITS[max(0, upper - 1)], _BY_BITS[max(1, upper)]
    share = (bits - low) / (high - low)
    return math.exp(math.log(low_kld) + share * (math.log(high_kld) - math.log(low_kld)))


def good(facts: GgufFacts) -> bool:
    """Whether a file is good enough that a smaller model is not the better choice (GOOD_KLD)."""
    return divergence(facts) <= GOOD_KLD


def rank(facts: GgufFacts) -> tuple[bool, int, float]:
    """A sort key, the best first: files that are good enough (GOOD_KLD), of those the model with more
    parameters, of those the file with less divergence; then the rest in the same order.

    Counted are the parameters of the blocks: the vocabulary's are in a file once or twice, and converters add
    small tensors of their own, which must not make one quantization of a model look larger than another."""
    return not good(facts), -facts.block_parameters, divergence(facts)
