"""How many finished sequences are kept follows what they were good for."""

from agent_daemon.worker.keeping import Keeping


def test_requests_that_are_all_new_leave_two() -> None:
    keeping = Keeping(14)
    for number in range(50):
        keeping.asked([number, 1, 2])
        keeping.let_go([number, 1, 2, 3], useful=False)
    assert keeping.target == 2


def test_conversations_that_go_on_keep_all_there_is_room_for() -> None:
    keeping = Keeping(14)
    for number in range(10):
        keeping.let_go([number], useful=False)
    assert keeping.target == 4
    for _ in range(20):
        keeping.used()
    assert keeping.target == 14


def test_one_that_was_used_goes_without_speaking_against_it() -> None:
    keeping = Keeping(8)
    keeping.let_go([1, 2], useful=True)
    assert keeping.target == 8


def test_a_conversation_that_was_let_go_too_early_speaks_for_more_once() -> None:
    keeping = Keeping(8)
    for number in range(6):
        keeping.let_go([number, 5, 6], useful=False)
    assert keeping.target == 2
    keeping.asked([3, 5, 6, 7, 8])
    assert keeping.target == 4
    keeping.asked([3, 5, 6, 9, 9])
    assert keeping.target == 4
    # The same beginning only: it does not go on from what was kept.
    keeping.asked([4, 5, 9, 9])
    assert keeping.target == 4


def test_it_remembers_the_latest_only() -> None:
    keeping = Keeping(8)
    for number in range(100):
        keeping.let_go([number, 1], useful=False)
    keeping.asked([35, 1, 2])
    assert keeping.target == 2
    keeping.asked([36, 1, 2])
    assert keeping.target == 4


def test_where_one_may_be_kept_one_is() -> None:
    keeping = Keeping(1)
    keeping.let_go([1], useful=False)
    assert keeping.target == 1
