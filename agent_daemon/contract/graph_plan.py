"""What a graph is drawn from: the widths of a model's tensors, block by block, and the shape of its batch. PURE."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.graph_tape import Result, Tape
from agent_daemon.contract.kv_cache import ContextShape


class Shape(NamedTuple):
    """Elements of a row, and rows: what a matrix reads and what it makes of each token. `size` is its bytes."""

    columns: int
    rows: int
    size: int = 0


class NotDrawn(Exception):
    """A block lacks a tensor that its graph would need: it is of a kind that is not known here."""


class Block(dict[str, Shape]):
    """The tensors of one block by name: `attn_q` for a weight, `attn_q.bias` for a bias. Raises NotDrawn for one that is
    not there."""

    def __missing__(self, name: str) -> Shape:
        raise NotDrawn(f"it has no {name}")


@lru_cache(maxsize=256)
def blocks(facts: GgufFacts) -> tuple[Block, ...]:
    """The tensors of each block."""
    found = [Block() for _ in range(facts.n_layers)]
    sizes = facts.shape_bytes or (0,) * len(facts.shapes)
    for shape, size in zip(facts.shapes, sizes, strict=True):
        head, _, rest = shape.name.partition(".")
        layer, _, name = rest.partition(".")
        if head == "blk" and layer.isdecimal() and int(layer) < len(found):
            found[int(layer)][name.removesuffix(".weight")] = Shape(shape.columns, shape.rows, size)
    return tuple(found)


@dataclass(slots=True)
class Plan:
    """One graph while it is being drawn. Inputs that several blocks read are there once."""

    facts: GgufFacts
    context: ContextShape
    tape: Tape
    tokens: int
    """Of the batch that is computed; the last block computes on only with those that have an output."""
    flash_attention: bool
    borrowing: bool = False
    """Whether the weights of the block that is being drawn are in another memory."""
    mask_size: int | None = None
    """What stands in for the bytes of each mask."""
    mask: Result | None = None
    sliding_mask: Result | None = None
    positions: Result | None = None
    rotations: tuple[Result | None, Result | None] = (None, None)
    """What keys and values are multiplied with before they go into a quantised cache."""
    sliding_rotations: tuple[Result | None, Result | None] = (None, None)
    places: tuple[Result, ...] = ()
    """Where keys and values of a batch go in the cache; of sliding layers, `sliding_places`."""
    sliding_places: tuple[Result, ...] = ()
    states: Result | None = None

    def matrix(self, reads: Result, shape: Shape) -> Result:
        """A matrix's product with each token: f32, as wide as the matrix has rows."""
        return self.tape.make(*self.weight(shape), reads, rows=(shape.rows, self.tokens))

    def weight(self, shape: Shape) -> tuple[Result, ...]:
        """The copy of a weight that lies in another memory; nothing for one that is where it is used."""
        return (self.tape.make(rows=(), size=shape.size),) if self.borrowing else ()

    def projected(self, reads: Result, tensors: Block, name: str) -> Result:
        """The product with the weight of that name, and its bias where it has one."""
        found = self.matrix(reads, tensors[name])
        return self.tape.alter(found) if f"{name}.bias" in tensors else found

    def norm(self, reads: Result, tensors: Block, name: str) -> Result:
        """Normalised by root mean square, or by mean and variance where there is a bias (which takes a place)."""
        rows = (self.facts.n_embd, self.tokens) if reads.viewed else reads.shape
        if f"{name}.bias" in tensors:
            return self.tape.alter(self.tape.alter(self.tape.make(reads, rows=rows)))
        return self.tape.alter(self.tape.alter(reads, rows=rows))

    def read(self, *inputs: Result | None) -> tuple[Result, ...]:
        """Those inputs that this graph has."""
        return tuple(each for each in inputs if each is not None)
