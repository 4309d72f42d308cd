"""What a device does before it takes a release: blobs that changed are read again, and there has to be room for the rest."""

from agent_daemon.activator import Activator
from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.wire import Staged
from agent_daemon.disk_room import DiskRoom
from agent_daemon.integrity import Integrity


class Staging:
    """For whoever brings a release: a control side, or the hub."""

    def __init__(self, activator: Activator, room: DiskRoom, integrity: Integrity) -> None:
        self._activator = activator
        self._room = room
        self._integrity = integrity

    async def stage(
        self, release: DeviceRelease, *, retry: bool, prune: bool = False, pulled: bool = False
    ) -> Staged:
        """Takes a release and says which blobs are missing, see `Activator.stage`. With `prune` room is made where it is
        short. Raises QuarantinedRelease, Conflict, and NoSpace before anything has changed."""
        if self._activator.admits(release, retry):
            await self._integrity.settle(release)
            await self._room.make(release, prune=prune)
        return self._activator.stage(release, retry, pulled=pulled)
