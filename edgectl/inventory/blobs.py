"""The repository's part for files: which artifact a device may have a blob of."""

import sqlite3
from contextlib import closing

from agent_daemon.contract.release import Artifact, DeviceRelease
from edgectl.inventory import database
from edgectl.inventory.sessions import Sessions

_NEWEST_WITH = """
SELECT r.spec FROM device_release r
JOIN device d ON d.id = r.device_id AND d.name = ? AND d.removed_at IS NULL
WHERE instr(r.spec, ?) > 0
ORDER BY r.release_number DESC
"""


class Blobs(Sessions):
    def artifact_with(self, device: str, digest: str) -> Artifact | None:
        """The artifact with a file of this digest, in the newest release of the device that has one; None when no
        release of the device has. Raises InventoryError when the inventory cannot be read.

        It reads without a lock, as the look for a token does: what is fetched holds up nothing that is stored.
        """
        try:
            with closing(database.read_only(self._path)) as connection:
                rows = connection.execute(_NEWEST_WITH, (device, digest)).fetchall()
        except sqlite3.Error as error:
            raise database.unusable(self._path, error) from None
        for (spec,) in rows:
            release = DeviceRelease.model_validate_json(spec)
            for model in release.models:
                for artifact in (model.artifact, *(each.artifact for each in model.adapters)):
                    if any(file.digest == digest for file in artifact.files):
                        return artifact
        return None
