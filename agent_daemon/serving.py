"""Which release answers requests at this moment: the one switch that activation turns and the gateway reads."""

import asyncio
from dataclasses import dataclass

from agent_daemon.contract.release import DeviceRelease, ServedModel


@dataclass(frozen=True)
class Route:
    """Where requests for one name go, and under which release they are counted."""

    model: ServedModel
    engine_key: str
    release: str
    number: int
    adapter: str | None = None
    """Name of the model's adapter that was asked for; model and adapters share a worker."""

    @property
    def name(self) -> str:
        """What clients ask for: `assistant`, or `assistant:legal`."""
        return f"{self.model.name}:{self.adapter}" if self.adapter else self.model.name


class Serving:
    """Owned by the activator. While `held`, names stay known but requests wait instead of being routed."""

    def __init__(self) -> None:
        self.release: DeviceRelease | None = None
        self._routes: dict[str, Route] = {}
        self._held = False
        self._changed = asyncio.Condition()

    async def switch(self, release: DeviceRelease | None) -> None:
        """From here on new requests are answered by `release` (None: by nothing)."""
        async with self._changed:
            self.release = release
            self._held = False
            self._routes = _routes(release) if release else {}
            self._changed.notify_all()

    async def hold(self) -> None:
        """Lets new requests wait until the next switch."""
        async with self._changed:
            self._held = True

    @property
    def held(self) -> bool:
        """Whether new requests wait for an exchange of releases."""
        return self._held

    def names(self) -> tuple[str, ...]:
        return tuple(self._routes)

    def find(self, name: str) -> Route | None:
        """The route of a served name at this moment, held or not."""
        return self._routes.get(name)

    def flows(self, route: Route) -> bool:
        """Whether requests go along this route at this moment."""
        return not self._held and self._routes.get(route.name) == route

    async def route(self, name: str) -> Route | None:
        """The route of a name, once requests flow. None when no such model is served (any more)."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._held or name not in self._routes)
            return self._routes.get(name)


def _routes(release: DeviceRelease) -> dict[str, Route]:
    digest = release.digest()
    routes = (
        Route(model, model.engine_key(), digest, release.number, adapter)
        for model in release.models
        for adapter in (None, *(each.name for each in model.adapters))
    )
    return {route.name: route for route in routes}
