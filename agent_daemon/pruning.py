"""What of a store may go, and what has to stay. PURE: the journal's and the store's account in, a frozen value out.

A group is what one manifest made: its current release, the last good one before that, and what is staged stay, for each
group by itself, so that no group loses its way back to another's deploys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Known:
    """A release: its group, and the digests of its blobs."""

    manifest: str
    blobs: frozenset[str]


@dataclass(frozen=True)
class Account:
    """What a device's journal says. All but the keys and values of `releases` are digests of releases."""

    releases: Mapping[str, Known]
    """Oldest first."""
    committed: tuple[str, ...] = ()
    """In the order in which they were committed, oldest first."""
    active: str | None = None
    staged: frozenset[str] = frozenset()
    barred: frozenset[str] = frozenset()
    """In quarantine."""


@dataclass(frozen=True)
class Surplus:
    """What nothing that stays refers to. `blobs` and `partials` with their bytes, each oldest first."""

    blobs: Mapping[str, int] = field(default_factory=dict)
    partials: Mapping[str, int] = field(default_factory=dict)
    releases: tuple[str, ...] = ()
    """Releases that lack a blob once these are gone."""

    @property
    def bytes(self) -> int:
        return sum(self.blobs.values()) + sum(self.partials.values())


def kept(account: Account) -> frozenset[str]:
    """The releases that stay."""
    keep = {account.active, *account.staged} - {None}
    active = account.releases.get(account.active) if account.active else None
    for manifest in {known.manifest for known in account.releases.values()}:
        good = [
            digest
            for digest in _latest_first(account.committed)
            if digest not in account.barred
            and digest != account.active
            and digest in account.releases
            and account.releases[digest].manifest == manifest
        ]
        keep.update(good[: 1 if active and active.manifest == manifest else 2])
    return frozenset(digest for digest in keep if digest is not None)


def surplus(
    account: Account,
    blobs: Mapping[str, int],
    partials: Mapping[str, int],
    *,
    needed: frozenset[str] = frozenset(),
    at_least: int | None = None,
) -> Surplus:
    """What of these blobs may go, but for those that are `needed` besides; with `at_least` only as many as it takes to
    free so many bytes, or all. Oldest first: by the newest release that names them, and those that none names before."""
    staying = kept(account)
    used = needed.union(*(account.releases[each].blobs for each in staying if each in account.releases))
    age = {digest: rank for rank, known in enumerate(account.releases.values()) for digest in known.blobs}
    parts = [(age.get(digest, -1), 0, digest) for digest in partials.keys() - used]
    wholes = [(age.get(digest, -1), 1, digest) for digest in blobs.keys() - used]
    gone: tuple[dict[str, int], dict[str, int]] = ({}, {})
    freed = 0
    for _, whole, digest in sorted(parts + wholes):
        if at_least is not None and freed >= at_least:
            break
        size = (blobs if whole else partials)[digest]
        gone[whole][digest] = size
        freed += size
    left = blobs.keys() - gone[1].keys()
    lacking = (
        digest
        for digest, known in account.releases.items()
        if digest not in staying and not known.blobs <= left
    )
    return Surplus(gone[1], gone[0], tuple(lacking))


def _latest_first(committed: tuple[str, ...]) -> tuple[str, ...]:
    """Each release once, where it was committed last."""
    return tuple(dict.fromkeys(reversed(committed)))
