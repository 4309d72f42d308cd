"""The grid: which contexts of which models are looked at, and what is predicted and true for each of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.need import Need, Share, Split, layers, need
from tests.bench.fit.shapes import MODELS, made
from tests.bench.fit.truth import Setting, Truth, measure
from tests.support.rpc_devices import Devices

CONTEXTS = (2048, 8192, 32_768)
OFFLOADED = ("llama-3.1-8b", "qwen3-4b", "gemma-3-4b", "qwen3-30b-a3b", "gpt-oss-20b", "granite-4.0-h-tiny")
"""Models of the smaller grid, on devices: dense, normed heads, windows, experts, both of these, states."""


@dataclass(frozen=True)
class Pair:
    """One configuration: what was predicted, and what is true."""

    model: str
    setting: Setting
    facts: GgufFacts
    predicted: Need
    truth: Truth

    def places(self) -> Iterator[tuple[str, Share, Share]]:
        """Each memory: its name, predicted, true."""
        yield "RAM", self.predicted.host, self.truth.host
        for number, (one, other) in enumerate(zip(self.predicted.gpus, self.truth.gpus, strict=True)):
            yield f"GPU {number}", one, other

    @property
    def total(self) -> int:
        """Bytes predicted, in all memories."""
        return self.predicted.host.total + sum(share.total for share in self.predicted.gpus)


def grid(
    name: str, *, contexts: Sequence[int] = CONTEXTS, flash: Sequence[bool] = (True, False)
) -> tuple[Setting, ...]:
    """Contexts x KV types x flash attention x parallel, in RAM, and caches that sequences do not share. A quantized
    cache needs flash attention; an encoder has none, and no context beyond what it was trained for, so that only its
    batches count."""
    model = MODELS[name]
    trained = model.keys["context_length"]
    if model.encodes:
        return tuple(Setting(each, flash_attention=fa) for each in (trained // 4, trained) for fa in flash)
    every = product(contexts, ("f16", "q8_0"), flash, (1, 4))
    shared = tuple(
        Setting(context, parallel, kv, fa)  # type: ignore[arg-type]
        for context, kv, fa, parallel in every
        if fa or kv == "f16"
    )
    if model.embeds:
        return shared
    return shared + tuple(
        Setting(each, 4, flash_attention=fa, unified=False) for each in contexts for fa in flash
    )


def splits(facts: GgufFacts) -> tuple[Split, ...]:
    """All layers on one device, half of them, all over two devices unevenly, and two thirds over two."""
    most = layers(facts)
    third = most // 3
    return (most,), (most // 2,), (third, most - third), (third, third)


def offloaded(name: str, facts: GgufFacts) -> tuple[Setting, ...]:
    """The smaller grid: every split of `splits`, with what a worker uses."""
    used = [each for each in grid(name, contexts=(8192,), flash=(True,)) if each.unified]
    return tuple(replace(each, split=split) for split in splits(facts) for each in used)


def pairs(
    name: str, folder: Path, settings: Sequence[Setting] | None = None, attached: Devices | None = None
) -> Iterator[Pair]:
    """Predicted and true for one model: its part of the grid, in RAM or, with devices, on them. Raises Unmeasured."""
    path, facts = made(folder, name)
    embeds = MODELS[name].embeds
    if settings is None:
        settings = grid(name) if attached is None else offloaded(name, facts)
    where = {} if attached is None else {"devices": attached.addresses, "library": attached.library}
    truths = measure(path, settings, embeds=embeds, **where)  # type: ignore[arg-type]
    for setting, truth in zip(settings, truths, strict=True):
        predicted = need(facts, setting.options(embeds=embeds), setting.split)
        yield Pair(name, setting, facts, predicted, truth)
