"""Who has to leave memory so that another model can come in, and who has been idle for too long. PURE."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from agent_daemon.room import FreeMemory, Need

_RAM = "ram"
_SEARCHED = 14
"""Workers up to which every set is looked at: 16,383 of them, some ten milliseconds."""


@dataclass(frozen=True)
class Tenant:
    """A worker that is in memory. `frees` is what its end gives back, `used` the time of its last request, in
    seconds of any clock. `busy` ones answer, or are about to; `pinned` ones never leave."""

    key: str
    frees: Need
    used: float
    busy: bool = False
    pinned: bool = False
    idle_ttl: float | None = None


class Verdict(StrEnum):
    FITS = "fits"
    EVICT = "evict"
    WAIT = "wait"
    NEVER = "never"


@dataclass(frozen=True)
class Choice:
    """What to do for a model to come in: nothing, evict the idle workers `keys`, wait for the busy workers `keys`
    to become idle, or give up."""

    verdict: Verdict
    keys: tuple[str, ...] = ()


def choose(wanted: Need, free: FreeMemory, tenants: Iterable[Tenant]) -> Choice:
    """Evicts as few workers as free enough; of as many, those whose last request is longest ago; never a busy
    or a pinned one. Only where no idle ones would do, busy ones are waited for.

    Of a memory whose free bytes are not known, everybody who can leave it has to: what then is left is for
    loading to find out.
    """
    missing = _missing(wanted, free)
    leaving = [each for each in tenants if not each.pinned and _pools(each.frees).keys() & missing.keys()]
    leaving.sort(key=lambda each: (each.used, each.key))
    blind = {pool for pool, size in missing.items() if size is None}

    def enough(group: tuple[Tenant, ...]) -> bool:
        freed = [_pools(each.frees) for each in group]
        gone = {each.key for each in group}
        return all(
            sum(each.get(pool, 0) for each in freed) >= size
            for pool, size in missing.items()
            if size is not None
        ) and all(each.key in gone for each in leaving if _pools(each.frees).keys() & blind)

    if enough(()):
        return Choice(Verdict.FITS)
    if group := _fewest([each for each in leaving if not each.busy], enough):
        return Choice(Verdict.EVICT, tuple(each.key for each in group))
    if group := _fewest(leaving, enough):
        return Choice(Verdict.WAIT, tuple(each.key for each in group if each.busy))
    return Choice(Verdict.NEVER)


def idle_until(tenant: Tenant) -> float | None:
    """When an idle worker's time is up, on the clock of `used`; None while it may stay."""
    if tenant.busy or tenant.pinned or tenant.idle_ttl is None:
        return None
    return tenant.used + tenant.idle_ttl


def _missing(wanted: Need, free: FreeMemory) -> dict[str, int | None]:
    """Bytes that each memory is short of; None where nobody knows."""
    there = {_RAM: free.ram, **free.vram}
    missing: dict[str, int | None] = {}
    for pool, size in _pools(wanted).items():
        known = there.get(pool)
        if known is None:
            missing[pool] = None
        elif size > known:
            missing[pool] = size - known
    return missing


def _pools(need: Need) -> dict[str, int]:
    return {pool: size for pool, size in ((_RAM, need.ram), *need.vram.items()) if size > 0}


def _fewest(
    oldest_first: list[Tenant], enough: Callable[[tuple[Tenant, ...]], bool]
) -> tuple[Tenant, ...] | None:
    if not enough(tuple(oldest_first)):
        return None
    if len(oldest_first) > _SEARCHED:
        return _thinned(oldest_first, enough)
    for count in range(1, len(oldest_first) + 1):
        groups = [group for group in combinations(oldest_first, count) if enough(group)]
        if groups:
            return min(groups, key=lambda group: sorted((each.used for each in group), reverse=True))
    return None


def _thinned(oldest_first: list[Tenant], enough: Callable[[tuple[Tenant, ...]], bool]) -> tuple[Tenant, ...]:
    """Not the fewest of all, but none of them in vain: whoever was used last is spared first."""
    group = tuple(oldest_first)
    for each in reversed(oldest_first):
        without = tuple(other for other in group if other is not each)
        if enough(without):
            group = without
    return group
