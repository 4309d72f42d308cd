"""The radix tree against the obvious way of finding common beginnings."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.worker.prefixes import PrefixTree

TOKENS = st.lists(st.integers(0, 2), max_size=12)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


def found(tree: PrefixTree[str], tokens: list[int]) -> dict[str, int]:
    """How far each holder goes along with these tokens, by the tree."""
    return {holder: depth for depth, holders in tree.along(tokens) for holder in holders}


def test_prompts_that_part_share_their_beginning() -> None:
    tree: PrefixTree[str] = PrefixTree()
    tree.insert([1, 2, 3, 4], "first")
    tree.insert([1, 2, 9], "second")
    assert list(tree.along([1, 2, 3, 7])) == [(2, frozenset({"first", "second"})), (3, frozenset({"first"}))]
    assert tree.nodes == 3


def test_a_holder_may_grow() -> None:
    tree: PrefixTree[str] = PrefixTree()
    tree.insert([1, 2], "one")
    tree.insert([1, 2, 3, 4], "one")
    assert found(tree, [1, 2, 3, 4, 5]) == {"one": 4}


def test_taking_the_last_one_out_leaves_nothing() -> None:
    tree: PrefixTree[str] = PrefixTree()
    tree.insert([1, 2, 3], "a")
    tree.insert([1, 2, 4], "b")
    tree.remove([1, 2, 4], "b")
    # What parted them has no use any more.
    assert tree.nodes == 1
    tree.remove([1, 2, 3], "a")
    assert tree.nodes == 0
    assert list(tree.along([1, 2, 3])) == []


@given(st.dictionaries(st.sampled_from("abcdef"), TOKENS), TOKENS, st.sets(st.sampled_from("abcdef")))
def test_it_finds_what_comparing_with_everyone_finds(
    holders: dict[str, list[int]], asked: list[int], gone: set[str]
) -> None:
    tree: PrefixTree[str] = PrefixTree()
    for holder, tokens in holders.items():
        tree.insert(tokens, holder)
    for holder in gone & holders.keys():
        tree.remove(holders[holder], holder)
    expected = {
        holder: length
        for holder, tokens in holders.items()
        if holder not in gone and (length := common(tokens, asked))
    }
    assert found(tree, asked) == expected
    assert tree.nodes <= sum(len(tokens) for holder, tokens in holders.items() if holder not in gone)


@given(st.dictionaries(st.sampled_from("abcdef"), TOKENS))
def test_nothing_is_left_when_everybody_is_gone(holders: dict[str, list[int]]) -> None:
    tree: PrefixTree[str] = PrefixTree()
    for holder, tokens in holders.items():
        tree.insert(tokens, holder)
    for holder, tokens in holders.items():
        tree.remove(tokens, holder)
    assert tree.nodes == 0
