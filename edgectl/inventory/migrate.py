"""Bringing an inventory to the current schema, in one transaction. The sole importer of Alembic, which runs
the files in `migrations/` from here."""

import re
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from edgectl import __version__
from edgectl.inventory import database
from edgectl.inventory.engine import open_engine, translated

_HERE = Path(__file__).parent
_CREATE_VIEW = re.compile(r"^CREATE VIEW (\w+) AS\n(.*?);$", re.DOTALL | re.MULTILINE)


def migrate(path: Path, target: str = database.HEAD) -> None:
    """Migrate (or create) the inventory at `path` to `target`, then make the views again.

    A database that holds anything is copied first. Raises InventoryError; nothing has changed then.
    """
    engine = open_engine(path)
    try:
        with translated(path), engine.begin() as connection:
            found = _revision(connection)
            if found == target:
                return
            if found is not None:
                database.back_up(path)
            _drop_views(connection)
            config = Config()
            config.set_main_option("script_location", str(_HERE / "migrations").replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, target)
            connection.exec_driver_sql(f"PRAGMA application_id = {database.APPLICATION_ID}")
            if target == database.HEAD:
                _create_views(connection)
            connection.execute(
                text(
                    "INSERT INTO schema_change (revision, edgectl_version, at) "
                    "VALUES (:revision, :version, :at)"
                ),
                {"revision": target, "version": __version__, "at": time.time()},
            )
    finally:
        engine.dispose()


def view_statements() -> dict[str, str]:
    """The statement that makes each view of views.sql, in the file's order."""
    source = (_HERE / "views.sql").read_text(encoding="utf-8")
    return {match[1]: match[0].removesuffix(";") for match in _CREATE_VIEW.finditer(source)}


def _revision(connection: Connection) -> str | None:
    tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").all()
    if not tables:
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _drop_views(connection: Connection) -> None:
    # Only ours: people may keep views of their own in the file.
    for name in view_statements():
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")


def _create_views(connection: Connection) -> None:
    for statement in view_statements().values():
        connection.exec_driver_sql(statement)
