"""Short transactions on the inventory's file: what every part of the repository stands on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlmodel import Session, col, select

from edgectl.errors import InventoryError
from edgectl.inventory import preparation
from edgectl.inventory.engine import open_engine, translated
from edgectl.inventory.models import DeviceRow


class Sessions:
    """Owns the engine. Every public method of its subclasses is one transaction: all of it, or nothing."""

    def __init__(self, path: Path) -> None:
        """Opens the inventory at `path`, created or migrated first where needed. Raises InventoryError."""
        preparation.prepare(path)
        self._path = path
        self._engine = open_engine(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with translated(self._path), Session(self._engine) as session, session.begin():
            yield session


def find_device(session: Session, name: str) -> DeviceRow:
    """The row of a device that is registered now. Raises InventoryError."""
    row = session.exec(
        select(DeviceRow).where(DeviceRow.name == name, col(DeviceRow.removed_at).is_(None))
    ).first()
    if row is None:
        raise InventoryError(
            f"there is no device {name!r} in the inventory", "see them with: edgectl device list"
        )
    return row


def device_id(row: DeviceRow) -> int:
    """The key of a stored device."""
    assert row.id is not None
    return row.id


def portions(names: Iterable[str], size: int) -> Iterator[list[str]]:
    """Names by so many at a time."""
    rest = iter(names)
    while portion := list(islice(rest, size)):
        yield portion
