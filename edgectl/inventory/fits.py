"""The repository's part for measured loads: what was predicted of a model's memory beside what it then took."""

from collections.abc import Mapping

from sqlalchemy import text
from sqlmodel import Session, col, delete, select

from agent_daemon.contract.fit_margin import of_ram
from agent_daemon.contract.wire import Fitted, Record
from edgectl.fit import margins
from edgectl.fit.margins import Margin, Memory, Pair
from edgectl.inventory.models import FittedRow
from edgectl.inventory.sessions import Sessions, device_id, find_device
from edgectl.inventory.values import Fit

KEPT = 300
"""Loads that are remembered of each device, the newest."""

NEWEST_OF_EACH_CLASS = """
    WITH RECURSIVE class (device_class) AS (
      SELECT min(device_class) FROM fitted WHERE measured IS NOT NULL
      UNION ALL
      SELECT (SELECT min(f.device_class) FROM fitted f
               WHERE f.measured IS NOT NULL AND f.device_class > class.device_class)
        FROM class WHERE class.device_class IS NOT NULL
    )
    SELECT f.device_class, f.memory, f.predicted, f.measured, f.gpus
      FROM class
      JOIN (SELECT 'vram' AS memory UNION ALL SELECT 'ram') m
      JOIN fitted f ON f.id IN (SELECT n.id FROM fitted n
                                 WHERE n.device_class = class.device_class AND n.memory = m.memory
                                   AND n.measured IS NOT NULL
                                 ORDER BY n.id DESC LIMIT :newest)
     ORDER BY f.device_class, f.memory, f.id DESC
    """
"""Steps from class to class along the index instead of reading every load there ever was."""


class Fits(Sessions):
    def margins(self) -> Mapping[str, Margin]:
        """What to keep free besides a prediction, by class of devices (`fit_margin.device_class`); a class that
        nobody measured is not in it."""
        pairs: dict[tuple[str, Memory], list[Pair]] = {}
        with self._transaction() as session:
            for kind, memory, *pair in session.connection().execute(
                text(NEWEST_OF_EACH_CLASS), {"newest": margins.NEWEST}
            ):
                pairs.setdefault((kind, memory), []).append(Pair(*pair))
        # a GPU without a name is of no class
        known = {key: found for key, found in pairs.items() if of_ram(key[0]) == (key[1] == "ram")}
        return {kind: margins.margin(memory, found) for (kind, memory), found in known.items()}

    def fits(self, device: str, limit: int = 10) -> tuple[Fit, ...]:
        """The newest `limit` loads on a device, newest first. Raises InventoryError if it is unknown."""
        with self._transaction() as session:
            rows = session.exec(
                select(FittedRow)
                .where(FittedRow.device_id == device_id(find_device(session, device)))
                .order_by(col(FittedRow.id).desc())
                .limit(limit)
            ).all()
            return tuple(Fit(**{name: getattr(row, name) for name in _FIT}) for row in rows)


_FIT = tuple(Fit.__dataclass_fields__)


def stored_fit(fitted: Fitted, device: int, epoch: str, record: Record, received_at: float) -> FittedRow:
    """The row of one reported load."""
    return FittedRow(
        device_id=device,
        epoch=epoch,
        seq=record.seq,
        at=record.at,
        received_at=received_at,
        **fitted.model_dump(),
    )


def forget_old(session: Session, device: int) -> None:
    """Within a transaction: keeps a device's KEPT newest loads."""
    session.flush()
    newest = select(FittedRow.id).where(FittedRow.device_id == device).order_by(col(FittedRow.id).desc())
    last_kept = session.exec(newest.offset(KEPT - 1).limit(1)).first()
    if last_kept is not None:
        session.exec(
            delete(FittedRow).where(col(FittedRow.device_id) == device, col(FittedRow.id) < last_kept)
        )
