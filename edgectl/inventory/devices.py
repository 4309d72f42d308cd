"""The repository's part for devices: who is in the fleet, and what they are."""

import json
import time
from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, col, delete, select

from agent_daemon.contract.wire import Facts
from edgectl.errors import InventoryError
from edgectl.inventory.models import DeviceFactsRow, DeviceRow, DeviceTokenRow
from edgectl.inventory.sessions import Sessions, device_id, find_device, portions
from edgectl.inventory.summaries import facts_columns
from edgectl.inventory.values import Device

_AT_ONCE = 100


class Devices(Sessions):
    def add_device(
        self,
        name: str,
        transport: Mapping[str, Any],
        labels: Mapping[str, str] | None = None,
        facts: Facts | None = None,
    ) -> Device:
        """Register a device. Raises InventoryError when the name, or the agent in `facts`, is taken."""
        now = time.time()
        with self._transaction() as session:
            _must_be_free(session, name)
            row = DeviceRow(
                name=name,
                agent_id=facts.agent_id if facts else None,
                transport=_transport_text(transport),
                labels=_labels_text(labels or {}),
                added_at=now,
            )
            if facts is not None:
                _must_be_new_agent(session, facts.agent_id)
            session.add(row)
            session.flush()
            if facts is not None:
                store_facts(session, row, facts, now, None)
            return _device(session, row)

    def remove_device(self, name: str) -> None:
        """Take a device out of the fleet; its usage and history stay, its tokens go. Raises InventoryError if
        unknown."""
        with self._transaction() as session:
            row = find_device(session, name)
            row.removed_at = time.time()
            session.exec(delete(DeviceTokenRow).where(col(DeviceTokenRow.device_id) == device_id(row)))

    def rename_device(self, name: str, new_name: str) -> Device:
        """Raises InventoryError when the device is unknown or the new name is taken."""
        with self._transaction() as session:
            row = find_device(session, name)
            if new_name != name:
                _must_be_free(session, new_name)
                row.name = new_name
            return _device(session, row)

    def label_device(self, name: str, labels: Mapping[str, str | None]) -> Device:
        """Set labels; a label whose value is None is taken away; others stay. Raises InventoryError."""
        with self._transaction() as session:
            row = find_device(session, name)
            merged: dict[str, str | None] = {**json.loads(row.labels), **labels}
            row.labels = _labels_text({key: value for key, value in merged.items() if value is not None})
            return _device(session, row)

    def set_transport(self, name: str, transport: Mapping[str, Any]) -> Device:
        """Change how a device is reached. Raises InventoryError if unknown."""
        with self._transaction() as session:
            row = find_device(session, name)
            row.transport = _transport_text(transport)
            return _device(session, row)

    def set_agent_build(self, name: str, build: str) -> None:
        """Remember which version of the agent was installed. Raises InventoryError if unknown."""
        with self._transaction() as session:
            find_device(session, name).agent_build = build

    def mark_unreachable(self, name: str, reason: str, at: float | None = None) -> None:
        """Remember that a device did not answer at `at` (default: now), and why, in a sentence. A silence that
        goes on keeps its beginning and gets the newest reason. Raises InventoryError if unknown."""
        now = time.time() if at is None else at
        with self._transaction() as session:
            row = find_device(session, name)
            row.unreachable_since = now if row.unreachable_since is None else min(row.unreachable_since, now)
            row.unreachable_reason = reason

    def heard_from(self, name: str, at: float | None = None) -> None:
        """Remember that a device answered at `at` (default: now), whatever it said. Raises InventoryError if
        unknown."""
        with self._transaction() as session:
            hear(find_device(session, name), time.time() if at is None else at)

    def device(self, name: str) -> Device:
        """Raises InventoryError when it is unknown."""
        with self._transaction() as session:
            return _device(session, find_device(session, name))

    def devices(self) -> tuple[Device, ...]:
        """Every registered device, by name."""
        with self._transaction() as session:
            rows = session.exec(
                select(DeviceRow, DeviceFactsRow)
                .join(DeviceFactsRow, col(DeviceFactsRow.device_id) == col(DeviceRow.id), isouter=True)
                .where(col(DeviceRow.removed_at).is_(None))
                .order_by(DeviceRow.name)
            ).all()
            return tuple(_value(row, facts) for row, facts in rows)

    def save_facts(
        self, name: str, facts: Facts, received_at: float | None = None, sent_at: float | None = None
    ) -> None:
        """Replace what is known of a device. `received_at` defaults to now. Raises InventoryError."""
        with self._transaction() as session:
            row = find_device(session, name)
            store_facts(session, row, facts, time.time() if received_at is None else received_at, sent_at)

    def save_all_facts(self, seen: Mapping[str, Facts]) -> None:
        """As `save_facts` for many devices that were seen just now. Raises InventoryError."""
        for names in portions(seen, _AT_ONCE):
            # Not all of them in one: the inventory is locked meanwhile.
            with self._transaction() as session:
                for name in names:
                    store_facts(session, find_device(session, name), seen[name], time.time(), None)


def store_facts(
    session: Session, row: DeviceRow, facts: Facts, received_at: float, sent_at: float | None
) -> None:
    """Within a transaction: replace a device's facts and say when it was heard of."""
    session.merge(
        DeviceFactsRow(
            device_id=device_id(row), sent_at=sent_at, received_at=received_at, **facts_columns(facts)
        )
    )
    row.agent_id = facts.agent_id
    hear(row, received_at)


def hear(row: DeviceRow, at: float) -> None:
    """Within a transaction: a device was heard of at `at`, which ends a silence."""
    row.last_seen = max(row.last_seen or 0.0, at)
    row.unreachable_since = row.unreachable_reason = None


def _must_be_free(session: Session, name: str) -> None:
    taken = session.exec(
        select(DeviceRow.id).where(DeviceRow.name == name, col(DeviceRow.removed_at).is_(None))
    ).first()
    if taken is not None:
        raise InventoryError(
            f"there is a device {name!r} in the inventory already",
            "choose another name, or remove that one with: edgectl device remove",
        )


def _must_be_new_agent(session: Session, agent_id: str) -> None:
    other = session.exec(
        select(DeviceRow.name).where(DeviceRow.agent_id == agent_id, col(DeviceRow.removed_at).is_(None))
    ).first()
    if other is not None:
        raise InventoryError(
            f"the agent that answers there is the device {other!r} already",
            "one device has one name; rename it, or give this agent a state directory of its own",
        )


def _labels_text(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), sort_keys=True)


def _transport_text(transport: Mapping[str, Any]) -> str:
    return json.dumps(dict(transport), sort_keys=True)


def _device(session: Session, row: DeviceRow) -> Device:
    return _value(row, session.get(DeviceFactsRow, device_id(row)))


def _value(row: DeviceRow, facts: DeviceFactsRow | None) -> Device:
    return Device(
        name=row.name,
        transport=json.loads(row.transport),
        labels=json.loads(row.labels),
        added_at=row.added_at,
        agent_id=row.agent_id,
        last_seen=row.last_seen,
        facts=Facts.model_validate_json(facts.facts) if facts else None,
        facts_at=facts.received_at if facts else None,
        unreachable_since=row.unreachable_since,
        unreachable_reason=row.unreachable_reason,
    )
