"""The repository's part for releases: numbered, immutable, one for each content."""

import json
import time
from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, col, select

from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.wire import Outcome
from edgectl.errors import InventoryError
from edgectl.inventory.models import DeviceReleaseRow, DeviceRow, ReleaseRow
from edgectl.inventory.sessions import Sessions, device_id, find_device, portions
from edgectl.inventory.values import Release

_AT_ONCE = 500
"""Names in one question; SQLite takes 32,766 values."""


class Releases(Sessions):
    def record_release(
        self,
        manifest_name: str,
        content: Mapping[str, Any],
        device_releases: Mapping[str, DeviceRelease],
    ) -> Release:
        """Store a release and return it with its number.

        The same content (as JSON) of the same manifest keeps its number, and devices new to it are added. A
        release never changes: when a device would get something else under that number, a new one is taken.
        The numbers inside `device_releases` do not matter; they are replaced by the release's own
        (`DeviceRelease.digest()` does not cover the number). Raises InventoryError for an unknown device.
        """
        text = json.dumps(dict(content), sort_keys=True, separators=(",", ":"))
        digest = digests.of_bytes(text.encode())
        with self._transaction() as session:
            wanted = {
                device_id(find_device(session, name)): release for name, release in device_releases.items()
            }
            row = _same_release(session, manifest_name, digest, wanted)
            if row is None:
                row = ReleaseRow(manifest=manifest_name, digest=digest, spec=text, created_at=time.time())
                session.add(row)
                session.flush()
            number = _number(row)
            for device, release in wanted.items():
                if session.get(DeviceReleaseRow, (number, device)) is None:
                    numbered = release.model_copy(update={"number": number})
                    session.add(
                        DeviceReleaseRow(
                            release_number=number,
                            device_id=device,
                            digest=numbered.digest(),
                            spec=numbered.model_dump_json(),
                        )
                    )
            return _value(row)

    def release(self, number: int) -> Release:
        """Raises InventoryError when there is none of that number."""
        with self._transaction() as session:
            row = session.get(ReleaseRow, number)
            if row is None:
                raise InventoryError(
                    f"there is no release r{number}",
                    'see them with: edgectl query "select * from release_status"',
                )
            return _value(row)

    def releases(self) -> tuple[Release, ...]:
        """All releases, oldest first."""
        with self._transaction() as session:
            return tuple(
                _value(row) for row in session.exec(select(ReleaseRow).order_by(col(ReleaseRow.number)))
            )

    def device_release(self, number: int, device: str) -> DeviceRelease | None:
        """What a device is to serve under a release; None when the release is not for that device.

        Raises InventoryError for an unknown device.
        """
        with self._transaction() as session:
            return stored_release(session, number, device_id(find_device(session, device)))

    def device_releases(self, numbers: Mapping[str, int]) -> dict[str, DeviceRelease]:
        """What devices are to serve, each under the release of the number given for it, by name: for a whole fleet at the
        price of a few questions. Devices that are not known, or that the release is not for, are left out."""
        found: dict[str, DeviceRelease] = {}
        with self._transaction() as session:
            for names in portions(numbers, _AT_ONCE):
                rows = session.exec(
                    select(DeviceRow.name, DeviceReleaseRow.release_number, DeviceReleaseRow.spec)
                    .join(DeviceReleaseRow, col(DeviceReleaseRow.device_id) == col(DeviceRow.id))
                    .where(col(DeviceRow.name).in_(names), col(DeviceRow.removed_at).is_(None))
                    .where(col(DeviceReleaseRow.release_number).in_({numbers[name] for name in names}))
                )
                for name, number, spec in rows:
                    if number == numbers[name]:
                        found[name] = DeviceRelease.model_validate_json(spec)
        return found

    def outcome_of(self, number: int, device: str) -> Outcome | None:
        """How a device's part of a release last ended; None when it has none, or was never asked to serve it.

        Raises InventoryError for an unknown device.
        """
        with self._transaction() as session:
            row = session.get(DeviceReleaseRow, (number, device_id(find_device(session, device))))
            return Outcome(row.outcome) if row is not None and row.outcome else None


def stored_release(session: Session, number: int, device: int) -> DeviceRelease | None:
    """Within a transaction: the device's part of a release."""
    row = session.get(DeviceReleaseRow, (number, device))
    return DeviceRelease.model_validate_json(row.spec) if row else None


def _same_release(
    session: Session, manifest: str, digest: str, wanted: Mapping[int, DeviceRelease]
) -> ReleaseRow | None:
    """The newest release with this content under which no wanted device has anything else."""
    rows = session.exec(
        select(ReleaseRow)
        .where(ReleaseRow.manifest == manifest, ReleaseRow.digest == digest)
        .order_by(col(ReleaseRow.number).desc())
    ).all()
    for row in rows:
        stored = session.exec(
            select(DeviceReleaseRow).where(DeviceReleaseRow.release_number == _number(row))
        ).all()
        if all(part.digest == wanted[part.device_id].digest() for part in stored if part.device_id in wanted):
            return row
    return None


def _number(row: ReleaseRow) -> int:
    assert row.number is not None
    return row.number


def _value(row: ReleaseRow) -> Release:
    return Release(
        number=_number(row),
        manifest=row.manifest,
        digest=row.digest,
        content=json.loads(row.spec),
        created_at=row.created_at,
    )
