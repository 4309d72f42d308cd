"""The repository's part for tokens: what a device shows to a hub. Only their SHA-256 is kept, so that whoever reads
the inventory cannot report in a device's name."""

import hashlib
import math
import secrets
import sqlite3
import time
from contextlib import closing

from sqlmodel import col, delete

from edgectl.errors import UsageError
from edgectl.inventory import database
from edgectl.inventory.models import DeviceTokenRow
from edgectl.inventory.sessions import Sessions, device_id, find_device
from edgectl.inventory.values import TokenOwner, TokenRefusal

PREFIX = "edgectl-dev_"
"""What every token begins with, so that people and scanners of leaked secrets know what they have found."""

LONGEST_DAYS = 3650
_DAY = 86400.0
_LOOK_UP = """
SELECT d.name, d.agent_id, t.expires_at FROM device_token t
JOIN device d ON d.id = t.device_id AND d.removed_at IS NULL
WHERE t.token_hash = ?
"""


class Tokens(Sessions):
    def mint_token(self, device: str, days: float) -> str:
        """A new token for a device, good for `days` days from now, beside those that it has. It is in no other
        place than what is returned. Raises InventoryError when the device is unknown, UsageError for `days`."""
        if not (math.isfinite(days) and 0 < days <= LONGEST_DAYS):
            raise UsageError(
                f"a token is good for {days:g} days; expected more than 0 and at most {LONGEST_DAYS}"
            )
        token, now = PREFIX + secrets.token_urlsafe(32), time.time()
        with self._transaction() as session:
            session.add(
                DeviceTokenRow(
                    device_id=device_id(find_device(session, device)),
                    token_hash=hash_of(token),
                    created_at=now,
                    expires_at=now + days * _DAY,
                )
            )
        return token

    def drop_tokens(self, device: str, keep: str | None) -> None:
        """Withdraw all tokens of a device but `keep` (a token; None withdraws all). Raises InventoryError."""
        with self._transaction() as session:
            mine = col(DeviceTokenRow.device_id) == device_id(find_device(session, device))
            kept = col(DeviceTokenRow.token_hash) != (hash_of(keep) if keep else "")
            session.exec(delete(DeviceTokenRow).where(mine, kept))

    def withdraw_token(self, token: str) -> None:
        """Withdraw one token; nothing happens when there is no such one. Raises InventoryError."""
        with self._transaction() as session:
            session.exec(delete(DeviceTokenRow).where(col(DeviceTokenRow.token_hash) == hash_of(token)))

    def device_of_token(self, token: str, now: float | None = None) -> TokenOwner | TokenRefusal:
        """Whose token this is, at `now` (seconds since the epoch; default: this moment), or why it is no good.
        Raises InventoryError when the inventory cannot be read.

        It reads without a lock: somebody with no token can hold up nobody who has one. What is compared is the
        hash, so the time it takes tells nothing of the tokens that there are.
        """
        try:
            with closing(database.read_only(self._path)) as connection:
                found = connection.execute(_LOOK_UP, (hash_of(token),)).fetchone()
        except sqlite3.Error as error:
            raise database.unusable(self._path, error) from None
        if found is None:
            return TokenRefusal.UNKNOWN
        name, agent_id, expires_at = found
        if expires_at <= (time.time() if now is None else now):
            return TokenRefusal.EXPIRED
        return TokenOwner(name, agent_id)


def hash_of(token: str) -> str:
    """The SHA-256 of a token in hexadecimal. A token is random throughout: nothing slower is needed."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
