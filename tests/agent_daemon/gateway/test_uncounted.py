"""A request that cannot be counted, because the disk is full, gets a sentence instead of its answer."""

import asyncio
from dataclasses import dataclass

import pytest

from agent_daemon.contract.release import ServedModel
from agent_daemon.errors import NoSpace
from agent_daemon.gateway.call import Call
from agent_daemon.gateway.errors import ApiError
from agent_daemon.metering import RequestRecord
from agent_daemon.serving import Route
from tests.support import releases
from tests.support.tiny_models import tiny_model


@dataclass
class Disk:
    """Counts as a spool does; `full` says whether its disk is."""

    full: bool
    counted: int = 0

    def count(self, _record: RequestRecord) -> None:
        if self.full:
            raise NoSpace("the disk is full: reports cannot be kept in spool.db")
        self.counted += 1


@pytest.fixture(scope="module")
def model() -> ServedModel:
    return releases.served("assistant", tiny_model("templated"))


def route(model: ServedModel) -> Route:
    return Route(model, model.engine_key(), release=f"sha256:{'a' * 64}", number=1)


def test_the_client_is_told_why_it_gets_no_answer(model: ServedModel) -> None:
    call = Call("assistant", "", 60, Disk(full=True).count)
    with pytest.raises(ApiError, match="assistant's answer cannot be counted: the disk is full") as raised:
        asyncio.run(call.settle(route(model)))
    assert (raised.value.status, raised.value.body["error"]["code"]) == (503, "not_counted")
    # It is over: what is left of it is not tried again.
    asyncio.run(call.settle(route(model)))


def test_nobody_is_told_who_has_left(model: ServedModel) -> None:
    disk = Disk(full=True)
    asyncio.run(Call("assistant", "", 60, disk.count).leave(route(model)))
    disk.full = False
    call = Call("assistant", "", 60, disk.count)
    asyncio.run(call.leave(route(model)))
    asyncio.run(call.settle(route(model)))
    assert disk.counted == 1
