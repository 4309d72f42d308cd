"""Room on the disk that blobs are on: how much there is, what a prune would free, and making some."""

import asyncio

from agent_daemon import pruning
from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.sizes import format_size
from agent_daemon.contract.wire import TERMINAL_STATES, ActivationState, Disk, Prunable, Pruned
from agent_daemon.errors import NoSpace
from agent_daemon.journal import Journal
from agent_daemon.partial import RESERVE
from agent_daemon.pruning import Account, Known, Surplus
from agent_daemon.store import Store

_WAITING = frozenset({ActivationState.STAGING, ActivationState.STAGED})


class DiskRoom:
    """Of one device. Call it from one thread; what takes long is done in others."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self._journal = journal
        self._store = store

    def disk(self) -> Disk:
        """How it is now."""
        spare, besides = self._surplus(), self._surplus(superseded=True)
        return Disk(
            path=str(self._store.root),
            free=self._store.free(),
            reserve=RESERVE,
            prunable=spare.bytes,
            superseded=besides.bytes - spare.bytes,
            spare=tuple(sorted({*besides.blobs, *besides.partials})),
        )

    def prunable(self) -> Prunable:
        """What a prune would delete now."""
        return _told(self._surplus())

    async def prune(self, *, dry_run: bool) -> Pruned:
        """Deletes what nothing refers to that stays."""
        gone = self._surplus()
        if not dry_run:
            await self._delete(gone)
        return Pruned(gone=_told(gone), disk=self.disk())

    async def make(self, release: DeviceRelease, *, prune: bool) -> None:
        """Returns when what is missing of a release that is to be staged fits; with `prune` after deleting, oldest
        first, as much as that takes. Raises NoSpace with the arithmetic; nothing is deleted where it would not do."""
        missing = [blob for blob in release.blobs() if not self._store.has(blob.digest)]
        lacking = sum(blob.size - self._store.offset(blob.digest) for blob in missing) - self._usable()
        if not missing or lacking <= 0:
            return
        if not prune or self._surplus(release).bytes < lacking:
            raise self._refusal(release, lacking)
        await self._delete(self._surplus(release, at_least=lacking))
        if self._usable() < sum(blob.size - self._store.offset(blob.digest) for blob in missing):
            raise self._refusal(release, lacking)

    async def sweep(self) -> None:
        """Deletes what an agent before this one pruned and could not delete any more."""
        await asyncio.to_thread(self._store.empty)

    def _usable(self) -> int:
        return max(self._store.free() - RESERVE, 0)

    async def _delete(self, gone: Surplus) -> None:
        # Between these two lines nothing else happens: whoever asks sees all of it or nothing.
        self._store.set_aside(gone.blobs, gone.partials)
        self._journal.forget(gone.releases)
        await asyncio.to_thread(self._store.empty)

    def _surplus(
        self,
        incoming: DeviceRelease | None = None,
        *,
        superseded: bool = False,
        at_least: int | None = None,
    ) -> Surplus:
        """With an `incoming` release, or `superseded`, what is staged now counts no longer."""
        found = self._store.contents()
        needed = frozenset(blob.digest for blob in incoming.blobs()) if incoming else frozenset()
        account = self._account(staged=incoming is None and not superseded)
        return pruning.surplus(account, found.blobs, found.partials, needed=needed, at_least=at_least)

    def _account(self, *, staged: bool) -> Account:
        """Without `staged`, what waits to be activated is as good as superseded."""
        latest = self._journal.latest()
        over = TERMINAL_STATES if staged else TERMINAL_STATES | _WAITING
        return Account(
            releases={
                digest: Known(release.manifest, frozenset(blob.digest for blob in release.blobs()))
                for digest, release in self._journal.releases().items()
            },
            committed=self._journal.committed(),
            active=self._journal.active(),
            staged=frozenset({latest.release}) if latest and latest.state not in over else frozenset(),
            barred=frozenset(each.release for each in self._journal.quarantined()),
        )

    def _refusal(self, release: DeviceRelease, lacking: int) -> NoSpace:
        free, usable = self._store.free(), self._usable()
        alone, together = self._surplus().bytes, self._surplus(release).bytes
        if alone >= lacking:
            hint = "make room: edgectl prune NAME, or prune: true under rollout in the manifest"
        elif together >= lacking:
            hint = "let the deploy make room: prune: true under rollout in the manifest"
        else:
            hint = f"free {format_size(lacking - together)} more on the device: pruning alone is not enough"
        return NoSpace(
            f"{release.label} needs {format_size(lacking + usable)} more on the device's disk and {format_size(free)} are"
            f" free at {self._store.root}, of which {format_size(RESERVE)} stay free; a prune would free"
            f" {format_size(together)}",
            hint,
        )


def _told(gone: Surplus) -> Prunable:
    return Prunable(
        releases=gone.releases,
        blobs=tuple(sorted(gone.blobs)),
        partials=tuple(sorted(gone.partials)),
        bytes=gone.bytes,
    )
