"""A header's keys as those other tools read them, absent ones by their own defaults."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.bench.fit.headers import Model


@dataclass(frozen=True)
class Keys:
    model: Model

    def number(self, key: str, otherwise: int = 0) -> int:
        value: Any = self.model.keys.get(key, otherwise)
        return max(value) if isinstance(value, list) else int(value)

    @cached_property
    def layers(self) -> int:
        return self.number("block_count")

    @cached_property
    def embedding(self) -> int:
        return self.number("embedding_length")

    @cached_property
    def vocabulary(self) -> int:
        return self.number("vocab_size")

    @cached_property
    def heads_by_layer(self) -> list[int]:
        return self._by_layer("attention.head_count")

    @cached_property
    def kv_heads_by_layer(self) -> list[int]:
        return self._by_layer("attention.head_count_kv")

    @cached_property
    def heads(self) -> int:
        return max(self.heads_by_layer)

    @cached_property
    def kv_heads(self) -> int:
        return max(self.kv_heads_by_layer)

    @cached_property
    def width(self) -> int:
        """Elements of one head where no key says them: by the fewest heads of a layer."""
        fewest = min(self.heads_by_layer)
        return self.embedding // fewest if fewest else 0

    @cached_property
    def key(self) -> int:
        return self.number("attention.key_length", self.width)

    @cached_property
    def value(self) -> int:
        return self.number("attention.value_length", self.width)

    @cached_property
    def weights(self) -> int:
        return sum(tensor.bytes for tensor in self.model.tensors())

    def _by_layer(self, key: str) -> list[int]:
        value = self.model.keys.get(key, 1)
        return list(value) if isinstance(value, list) else [int(value)] * self.layers
