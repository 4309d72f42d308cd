"""A radix tree over token ids: which sequences begin as a new prompt does, and how far. PURE.

Each edge carries a run of tokens, each node the holders whose tokens lead through it. Holders are whatever the
sequence table keeps; the tree only knows that they can be hashed.
"""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

Holder = TypeVar("Holder")


class _Node(Generic[Holder]):
    __slots__ = ("children", "edge", "holders")

    def __init__(self, edge: tuple[int, ...], holders: set[Holder]) -> None:
        self.edge = edge
        self.holders = holders
        self.children: dict[int, _Node[Holder]] = {}

    def split(self, at: int) -> None:
        """Cuts the edge, so that this node ends after `at` of its tokens."""
        lower: _Node[Holder] = _Node(self.edge[at:], set(self.holders))
        lower.children = self.children
        self.edge, self.children = self.edge[:at], {lower.edge[0]: lower}

    def join(self) -> None:
        """Undoes a split that no longer tells any holders apart."""
        if len(self.children) == 1:
            (lower,) = self.children.values()
            if lower.holders == self.holders:
                self.edge, self.children = self.edge + lower.edge, lower.children


class PrefixTree(Generic[Holder]):
    """Insert and remove take a holder with the same tokens; inserting more tokens of the same beginning again
    extends it."""

    def __init__(self) -> None:
        self._root: _Node[Holder] = _Node((), set())

    def insert(self, tokens: Sequence[int], holder: Holder) -> None:
        """Lets `holder` be found by these tokens and every beginning of them."""
        node, at = self._root, 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                node.children[tokens[at]] = _Node(tuple(tokens[at:]), {holder})
                return
            common = _common(child.edge, tokens, at)
            if common < len(child.edge):
                child.split(common)
            child.holders.add(holder)
            node, at = child, at + common

    def remove(self, tokens: Sequence[int], holder: Holder) -> None:
        """Takes `holder` out again; nodes that lead to nobody go with it."""
        node, at = self._root, 0
        way: list[_Node[Holder]] = []
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None or holder not in child.holders:
                break
            child.holders.discard(holder)
            if not child.holders:
                del node.children[tokens[at]]
                break
            way.append(child)
            node, at = child, at + len(child.edge)
        for passed in reversed(way):
            passed.join()

    def along(self, tokens: Sequence[int]) -> Iterator[tuple[int, frozenset[Holder]]]:
        """The way of `tokens` down the tree: how many of them each node shares with its holders, and those,
        nearest the root first."""
        node, at = self._root, 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                return
            common = _common(child.edge, tokens, at)
            yield at + common, frozenset(child.holders)
            if common < len(child.edge):
                return
            node, at = child, at + common

    @property
    def nodes(self) -> int:
        """How many nodes there are below the root."""
        return _count(self._root) - 1


def _common(edge: tuple[int, ...], tokens: Sequence[int], at: int) -> int:
    """How many tokens of `edge` are those of `tokens` from `at` on."""
    most = min(len(edge), len(tokens) - at)
    if edge[:most] == tuple(tokens[at : at + most]):
        return most
    return next(index for index in range(most) if edge[index] != tokens[at + index])


def _count(node: _Node[Holder]) -> int:
    below, seen = [node], 0
    while below:
        current = below.pop()
        seen += 1
        below.extend(current.children.values())
    return seen
