"""The shape of a context."""

import pytest

from agent_daemon.contract.sequences import cells, padded, sequences


def test_cells_come_in_multiples_of_256() -> None:
    assert [padded(tokens) for tokens in (1, 255, 256, 257, 8192)] == [256, 256, 256, 512, 8192]


@pytest.mark.parametrize(
    ("context", "parallel", "shared", "expected"),
    [
        (1000, 4, None, 4096),
        (1000, 4, 2000, 2048),
        # One answer always has room for its whole context.
        (1000, 4, 300, 1024),
        # More than all of them can fill is no use.
        (1000, 4, 100_000, 4096),
    ],
)
def test_a_cache_is_for_all_answers_together(
    context: int, parallel: int, shared: int | None, expected: int
) -> None:
    assert cells(context, parallel, shared) == expected


@pytest.mark.parametrize(
    ("parallel", "task", "stateful", "expected"),
    [
        (1, "chat", False, 8),
        (8, "chat", False, 22),
        (1, "chat", True, 3),
        (8, "chat", True, 16),
        (1, "embeddings", False, 16),
        (32, "embeddings", True, 32),
        (256, "chat", False, 256),
    ],
)
def test_sequences_beside_those_that_answer_are_for_what_is_kept(
    parallel: int, task: str, stateful: bool, expected: int
) -> None:
    assert sequences(parallel, task, stateful=stateful) == expected  # type: ignore[arg-type]
