"""The journal: what was written is there after the process is gone, and each state implies what it should."""

import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_daemon.contract.release import DeviceRelease, Strategy
from agent_daemon.contract.wire import ActivationState as S
from agent_daemon.contract.wire import Operation, Outcome
from agent_daemon.errors import JournalUnwritable, NotFound, UsageProblem
from agent_daemon.journal import Journal
from tests.support.inventory_messages import device_release, digest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def begun(journal: Journal, release: DeviceRelease) -> Operation:
    return journal.begin(journal.keep_release(release), release.number)


def committed(journal: Journal, release: DeviceRelease) -> str:
    operation = begun(journal, release)
    journal.advance(operation.id, S.COMMITTED, outcome=Outcome.SUCCEEDED)
    return operation.release


_open: list[Journal] = []


@pytest.fixture(autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def opened(path: Path) -> Journal:
    _open.append(Journal(path))
    return _open[-1]


def reopened(path: Path) -> Journal:
    """As another process would find it: the first one has not been closed, as in a crash."""
    return opened(path)


def test_a_fresh_journal_knows_nothing(path: Path) -> None:
    journal = opened(path)
    assert (journal.active(), journal.latest(), journal.quarantined()) == (None, None, ())
    assert (journal.releases(), journal.unreported()) == ({}, [])
    with pytest.raises(NotFound, match="was never given release sha256:d"):
        journal.release(digest("d"))
    with pytest.raises(NotFound, match="no operation 7"):
        journal.advance(7, S.STAGED)


def test_every_state_is_on_disk_when_it_has_been_entered(path: Path) -> None:
    journal, release = opened(path), device_release()
    operation = begun(journal, release)
    assert (operation.state, operation.attempts, operation.previous) == (S.STAGING, 0, None)
    for state in (S.STAGED, S.ACTIVATING, S.PROBING, S.REVERTING, S.REVERTED):
        written = journal.advance(operation.id, state)
        found = reopened(path).latest()
        assert found == written
        assert (written.state, written.id) == (state, operation.id)
    assert reopened(path).release(operation.release) == release


def test_durability_is_asked_of_sqlite(path: Path) -> None:
    journal = opened(path)
    assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_commit_makes_active_and_lifts_the_quarantine(path: Path) -> None:
    journal = opened(path)
    first, second = device_release(blob="a"), device_release(blob="b", number=2)
    one = committed(journal, first)
    operation = begun(journal, second)
    assert operation.previous == one
    journal.advance(operation.id, S.REVERTED, reason="the probe failed", outcome=Outcome.REVERTED)
    assert journal.active() == one
    (barred,) = journal.quarantined()
    assert (barred.release, barred.number, barred.reason) == (operation.release, 2, "the probe failed")
    again = journal.begin(operation.release, 2)
    journal.advance(again.id, S.COMMITTED, outcome=Outcome.SUCCEEDED)
    assert (reopened(path).active(), reopened(path).quarantined()) == (operation.release, ())


@pytest.mark.parametrize("state", [S.STAGING, S.STAGED, S.ACTIVATING, S.PROBING, S.REVERTING])
def test_no_other_state_touches_what_is_active_or_barred(path: Path, state: S) -> None:
    journal = opened(path)
    active = committed(journal, device_release())
    operation = begun(journal, device_release(blob="b", number=2))
    journal.advance(operation.id, state, reason="whatever")
    assert (journal.active(), journal.quarantined()) == (active, ())


@pytest.mark.parametrize("state", [S.REVERTED, S.REVERT_FAILED])
def test_a_release_that_did_not_stay_is_barred_with_a_reason_until_it_is_pardoned(
    path: Path, state: S
) -> None:
    journal = opened(path)
    operation = begun(journal, device_release())
    journal.advance(operation.id, state)
    assert [barred.reason for barred in journal.quarantined()] == ["it did not stay up"]
    journal.pardon(operation.release)
    assert reopened(path).quarantined() == ()


def test_the_reason_is_kept_until_the_end_and_told_with_it(path: Path) -> None:
    journal = opened(path)
    operation = begun(journal, device_release())
    journal.advance(operation.id, S.ACTIVATING)
    journal.choose(operation.id, Strategy.REPLACE)
    journal.advance(operation.id, S.REVERTING, reason="llama.cpp refused the file")
    ended = journal.advance(operation.id, S.REVERTED, outcome=Outcome.REVERTED)
    assert (ended.reason, ended.strategy) == ("llama.cpp refused the file", Strategy.REPLACE)
    told = [(event.state, event.detail, event.outcome) for _, event in journal.events(operation.id, 0)]
    assert told == [
        (S.ACTIVATING, None, None),
        (S.ACTIVATING, "strategy: replace", None),
        (S.REVERTING, "llama.cpp refused the file", None),
        (S.REVERTED, "llama.cpp refused the file", Outcome.REVERTED),
    ]


def test_attempts_count_activations(path: Path) -> None:
    journal = opened(path)
    operation = begun(journal, device_release())
    for state in (S.STAGED, S.ACTIVATING, S.PROBING, S.ACTIVATING):
        operation = journal.advance(operation.id, state)
    assert operation.attempts == 2


def test_events_are_read_after_a_cursor_and_by_operation(path: Path) -> None:
    journal = opened(path)
    one, two = begun(journal, device_release()), begun(journal, device_release(blob="b", number=2))
    journal.note(one, "first")
    journal.note(two, "of the other")
    journal.note(one, "second")
    events = journal.events(one.id, 0)
    assert [event.detail for _, event in events] == ["first", "second"]
    assert [event.detail for _, event in journal.events(one.id, events[0][0])] == ["second"]
    assert journal.events(one.id, events[1][0]) == []


def test_an_event_is_unreported_until_it_is_said_to_be_in_the_spool(path: Path) -> None:
    journal = opened(path)
    operation = begun(journal, device_release())
    journal.note(operation, "a")
    journal.note(operation, "b")
    (first, at, _), (second, _, _) = reopened(path).unreported()
    assert at > 1_600_000_000
    journal.reported(first)
    assert [(each[0], each[2].detail) for each in reopened(path).unreported()] == [(second, "b")]


def test_the_same_content_under_a_newer_number_is_the_same_release(path: Path) -> None:
    journal = opened(path)
    one = journal.keep_release(device_release(number=1))
    other = journal.keep_release(device_release(blob="b", number=2))
    assert journal.keep_release(device_release(number=3)) == one
    assert [(key, kept.number) for key, kept in journal.releases().items()] == [(one, 3), (other, 2)]


def test_a_change_that_fails_halfway_leaves_nothing(path: Path) -> None:
    journal = opened(path)
    operation = begun(journal, device_release())
    journal._db.execute("DROP TABLE event")
    with pytest.raises(JournalUnwritable, match="no such table: event"):
        journal.advance(operation.id, S.COMMITTED)
    assert (journal.active(), journal.latest()) == (None, operation)


def test_a_step_is_there_as_a_whole_or_not_at_all(path: Path) -> None:
    journal, other = opened(path), opened(path)
    with journal.step():
        operation = begun(journal, device_release())
        journal.advance(operation.id, S.STAGED)
        journal.ask(operation.id)
        assert (other.latest(), other.releases()) == (None, {})
    found = other.latest()
    assert found is not None
    assert (found.state, other.asked_again(operation.id, 3)) == (S.STAGED, True)

    def halfway(error: Exception) -> None:
        with journal.step():
            journal.advance(operation.id, S.ACTIVATING)
            raise error

    with pytest.raises(NotFound, match="no more"):
        halfway(NotFound("no more"))
    with pytest.raises(JournalUnwritable, match="the disk is full"):
        halfway(sqlite3.OperationalError("the disk is full"))
    assert (journal.latest(), len(journal.events(operation.id, 0))) == (found, 1)
    assert journal.advance(operation.id, S.ACTIVATING).state is S.ACTIVATING


def test_a_commit_that_the_disk_does_not_take_leaves_nothing_and_is_not_in_the_way_of_the_next(
    path: Path,
) -> None:
    journal = opened(path)
    operation = begun(journal, device_release())
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow fails as it does on a full disk: when the transaction is to be written.
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (path.with_name(f"{path.name}-wal").stat().st_size, unlimited[1])
    )
    try:
        for _ in range(2):
            with pytest.raises(JournalUnwritable, match="the journal cannot be written"):
                journal.advance(operation.id, S.COMMITTED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert (journal.active(), journal.latest()) == (None, operation)
    assert journal.advance(operation.id, S.STAGED).state is S.STAGED
    assert [event.state for _, event in reopened(path).events(operation.id, 0)] == [S.STAGED]


def test_a_journal_of_a_newer_agent_is_refused_and_left_alone(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(
        UsageProblem, match=r"written by a newer agent \(format 2, this one knows 1\)"
    ) as caught:
        Journal(path)
    assert caught.value.exit_code == 2
