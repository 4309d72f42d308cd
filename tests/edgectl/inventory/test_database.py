"""The inventory's file: created, migrated, or refused and left exactly as it was."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from edgectl.errors import InventoryError
from edgectl.inventory import database, migrate, models, preparation, queries
from edgectl.inventory.database import Condition
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import begun


def run(path: Path, sql: str, *values: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def old_inventory(path: Path) -> None:
    """What version 0001 would have left, with two devices and some usage."""
    path.parent.mkdir(parents=True)
    migrate.migrate(path, "0001")
    for number in (1, 2):
        run(path, "INSERT INTO device VALUES (?, ?, NULL, '{}', '{}', 1.0, NULL, NULL)", number, f"d{number}")
    for minute in (60, 120):
        run(path, "INSERT INTO usage VALUES (1, ?, 'chat', 1, 'sha256:x', 3, 1, 30, 20, 500, 900)", minute)


def test_a_new_inventory_is_created_for_its_owner_alone(path: Path) -> None:
    assert database.inspect(path) is Condition.ABSENT
    preparation.prepare(path)
    assert database.inspect(path) is Condition.CURRENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert run(path, "PRAGMA journal_mode") == [("wal",)]
    assert run(path, "SELECT revision, edgectl_version FROM schema_change") == [("0006", "0.1.0")]
    assert [file.name for file in path.parent.iterdir() if "before" in file.name] == []


def test_an_empty_file_is_a_new_inventory(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    preparation.prepare(path)
    assert database.inspect(path) is Condition.CURRENT


def test_migrations_come_to_what_the_models_say(path: Path) -> None:
    preparation.prepare(path)
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    assert models.DeviceRow.__tablename__ == "device"


def test_the_known_revisions_are_those_in_the_folder() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    walked = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(walked)) == database.REVISIONS


def test_an_older_inventory_is_copied_and_migrated_with_its_data(path: Path) -> None:
    old_inventory(path)
    assert database.inspect(path) is Condition.OUTDATED
    preparation.prepare(path)
    assert run(path, "SELECT name FROM device ORDER BY id") == [("d1",), ("d2",)]
    assert run(path, "SELECT * FROM device_usage") == [(1, 6, 2, 60, 40, 1000, 1800)]
    with queries.reading(path) as connection:
        rows = queries.device_status(connection)
    assert [(row["name"], row["requests"]) for row in rows] == [("d1", 6), ("d2", 0)]

    copy = path.with_name("inventory.db.before-0006")
    assert run(copy, "SELECT version_num FROM alembic_version") == [("0001",)]
    assert run(copy, "SELECT sum(requests) FROM usage") == [(6,)]
    assert copy.stat().st_mode & 0o777 == 0o600


def test_usage_of_0003_is_kept_row_by_row(path: Path) -> None:
    path.parent.mkdir(parents=True)
    migrate.migrate(path, "0003")
    run(path, "INSERT INTO device (id, name, transport, labels, added_at) VALUES (1, 'd1', '{}', '{}', 1.0)")
    kept = [
        (1, minute, model, number, f"sha256:{number}", 3 + number, 1, 30, 20, 500, minute)
        for minute in (60, 120)
        for model in ("chat", "embed")
        for number in (1, 2)
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(f"INSERT INTO usage VALUES ({', '.join('?' * 11)})", kept)
        # One of people's own, over a view that is away while tables change.
        connection.execute("CREATE VIEW mine AS SELECT sum(requests) AS asked FROM usage_by_minute")
    preparation.prepare(path)
    columns = (
        "device_id, minute, model, release_number, release_digest, requests, failures, prompt_tokens, "
        "completion_tokens, ttft_ms, duration_ms"
    )
    assert run(path, f"SELECT {columns} FROM usage ORDER BY minute, model, release_number") == kept
    others = (
        "adapter, key_id, cached_tokens, queue_ms, finish_stop, finish_error, ttft_histogram, queue_histogram"
    )
    none = str([0] * 17).replace(" ", "")
    assert set(run(path, f"SELECT {others} FROM usage")) == {("", "", 0, 0, 0, 0, none, none)}
    assert run(path, "SELECT asked FROM mine") == [(sum(row[5] for row in kept),)]
    with queries.reading(path) as connection:
        (chat, embed) = queries.usage(connection, "adapter")
    assert (chat["adapter"], chat["requests"], embed["requests"]) == ("chat", 18, 18)
    assert run(
        path, "SELECT name FROM sqlite_master WHERE tbl_name = 'usage' AND type = 'index' AND sql <> ''"
    ) == [("usage_minute",)]


def test_rollouts_of_0005_are_kept_and_their_numbers_go_on(path: Path) -> None:
    path.parent.mkdir(parents=True)
    migrate.migrate(path, "0005")
    for number in (1, 2):
        run(
            path,
            "INSERT INTO device (id, name, transport, labels, added_at) VALUES (?, ?, '{}', '{}', 1.0)",
            number,
            f"d{number}",
        )
    run(path, "INSERT INTO release VALUES (1, 'office', 'sha256:1', '{}', 1.0)")
    rollouts = [
        (3, "deploy", 1, "finished", 10.0, 11.0),
        (7, "rollback", None, "interrupted", 20.0, 21.0),
        (8, "deploy", 1, "running", 30.0, None),
    ]
    outcomes = [
        (5, 3, 1, 1, "succeeded", None, 100, 2.5, 10.5),
        (6, 3, 2, 1, "unreachable", "no answer", 0, 0.0, 10.6),
        (9, 7, 1, 1, "reverted", "why", 7, 1.0, 20.5),
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO rollout VALUES (?, ?, ?, ?, ?, ?)", rollouts)
        connection.executemany(f"INSERT INTO rollout_outcome VALUES ({', '.join('?' * 9)})", outcomes)
        connection.execute("CREATE VIEW mine AS SELECT count(*) AS ended FROM rollout_history")
    preparation.prepare(path)
    columns = "id, kind, release_number, state, started_at, finished_at"
    assert run(path, f"SELECT {columns} FROM rollout ORDER BY id") == rollouts
    columns = "id, rollout_id, device_id, release_number, outcome, reason, bytes_moved, seconds, at"
    assert run(path, f"SELECT {columns} FROM rollout_outcome ORDER BY id") == outcomes
    assert run(path, "SELECT rollout, state, manifest, devices, pending, owner_user FROM rollout_status") == [
        (3, "finished", "office", 2, 1, None),
        (7, "interrupted", None, 1, 0, None),
        (8, "interrupted", "office", 0, 0, None),  # Whoever led it left no sign of life.
    ]
    assert run(path, "SELECT ended FROM mine") == [(4,)]
    assert run(path, "PRAGMA foreign_key_check") == []
    with Repository(path) as inventory:
        # Nobody was promised then that it would come later.
        assert inventory.pending("d2") is None
        assert begun(inventory, "deploy", 1).id == 9
        assert [o.device for o in inventory.outcomes(3)] == ["d1", "d2"]


def test_a_copy_that_is_there_already_is_never_overwritten(path: Path) -> None:
    old_inventory(path)
    precious = path.with_name("inventory.db.before-0006")
    precious.write_text("an earlier copy")
    preparation.prepare(path)
    assert precious.read_text() == "an earlier copy"
    assert run(path.with_name("inventory.db.before-0006.1"), "SELECT count(*) FROM device") == [(2,)]


def test_reading_an_older_inventory_migrates_it_first(path: Path) -> None:
    old_inventory(path)
    with queries.reading(path) as connection:
        assert len(queries.devices(connection)) == 2
    assert database.inspect(path) is Condition.CURRENT


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    old_inventory(path)
    run(path, "CREATE TABLE device_usage (something TEXT)")
    before = run(path, "SELECT sql FROM sqlite_master ORDER BY name")
    with pytest.raises(InventoryError, match="device_usage already exists"):
        preparation.prepare(path)
    assert run(path, "SELECT sql FROM sqlite_master ORDER BY name") == before
    assert run(path, "SELECT version_num FROM alembic_version") == [("0001",)]


def test_views_of_ones_own_survive_a_migration(path: Path) -> None:
    old_inventory(path)
    run(path, "CREATE VIEW mine AS SELECT name FROM device")
    preparation.prepare(path)
    assert run(path, "SELECT count(*) FROM mine") == [(2,)]


def test_an_inventory_of_a_newer_version_is_refused_untouched(path: Path) -> None:
    preparation.prepare(path)
    run(path, "UPDATE alembic_version SET version_num = '0009'")
    run(path, "INSERT INTO schema_change (revision, edgectl_version, at) VALUES ('0009', '3.2.0', 1.0)")
    run(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    for attempt in (lambda: preparation.prepare(path), lambda: Repository(path)):
        with pytest.raises(InventoryError, match=r"schema 0009, which edgectl 3\.2\.0 made") as caught:
            attempt()
        assert caught.value.hint == "install edgectl 3.2.0 or newer"
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be one" * 40, b"\0" * 4096])
def test_a_file_that_is_no_database_is_refused_untouched(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InventoryError, match="not a SQLite database"):
        preparation.prepare(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("revision", [None, "0001", "0006"])
def test_another_applications_database_is_refused_untouched(path: Path, revision: str | None) -> None:
    path.parent.mkdir()
    run(path, "CREATE TABLE bookmarks (url TEXT)")
    if revision:
        run(path, "CREATE TABLE alembic_version (version_num TEXT)")
        run(path, "INSERT INTO alembic_version VALUES (?)", revision)
    before = path.read_bytes()
    with pytest.raises(InventoryError, match="another application"):
        preparation.prepare(path)
    with pytest.raises(InventoryError, match="another application"), queries.reading(path):
        pass
    assert path.read_bytes() == before


def test_a_directory_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(InventoryError, match="cannot use the inventory"):
        preparation.prepare(path)


def test_many_at_once_create_one_inventory(path: Path) -> None:
    failures: list[Exception] = []
    start = threading.Barrier(4)

    def create(number: int) -> None:
        start.wait()
        try:
            with Repository(path) as inventory:
                inventory.add_device(f"d{number}", {"kind": "local"})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert run(path, "SELECT count(*) FROM device") == [(4,)]
    assert run(path, "SELECT count(*) FROM schema_change") == [(1,)]
