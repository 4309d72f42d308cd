"""A real hub and real agents: who was off when its turn came gets its release by checking in, whatever lies between."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent_daemon.contract.wire import Outcome
from edgectl.inventory.repository import Repository
from edgectl.rollouts.undertaking import Undertaking
from tests.support.agent import wait_until
from tests.support.hub import HubProcess, running_hub, secrets_in
from tests.support.inventory_messages import select
from tests.support.late import CuttingWire, HubDevice, from_here, missed, never, outcome_in
from tests.support.models import quickstart_model, refused_by_llama, renamed, silent
from tests.support.releases import blob, deploy, release

pytestmark = pytest.mark.engine

MIB = 1 << 20


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "inventory.db"


@pytest.fixture
def repository(database: Path) -> Iterator[Repository]:
    with Repository(database) as opened:
        yield opened


@pytest.fixture
def hub(database: Path, repository: Repository) -> Iterator[HubProcess]:
    with running_hub(database) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, repository: Repository, hub: HubProcess) -> Iterator[HubDevice]:
    made = HubDevice(tmp_path, repository, hub.url)
    made.introduce(repository)
    yield made
    made.agent.stop()


def test_who_was_off_gets_it_by_checking_in(
    device: HubDevice, hub: HubProcess, repository: Repository, database: Path
) -> None:
    rollout, wanted = missed(repository, release(from_here("assistant", quickstart_model())), "desk")
    device.agent.start()
    wait_until(lambda: repository.rollout(rollout).state == "finished")
    assert outcome_in(repository, rollout, "desk") is Outcome.SUCCEEDED
    assert device.agent.state()["active"] == wanted.digest()
    assert device.agent.state()["active_number"] == wanted.number
    assert device.agent.chat()[0] == 200
    # The inventory has the device's own events, and knows what a rollback would go back from.
    states = [state for (state,) in select(database, "select state from activation_event order by seq")]
    assert list(dict.fromkeys(states)) == [
        "staging", "staged", "activating", "probing", "committed",
    ]  # fmt: skip
    assert repository.current_release("desk") == wanted
    wait_until(lambda: device.agent.state()["hub"]["delivery"] is None)
    assert f"desk fetches {quickstart_model().name}" in hub.log.read_text()
    assert secrets_in(hub.log.read_text() + device.agent.log.read_text()) == []
    # It was fetched once, and is not offered again.
    assert hub.log.read_text().count("desk fetches") == 1


def test_a_link_that_breaks_again_and_again_costs_no_byte_twice(
    tmp_path: Path, repository: Repository, hub: HubProcess
) -> None:
    with closing(CuttingWire(hub)) as wire:
        device = HubDevice(tmp_path, repository, wire.url)
        device.introduce(repository)
        rollout, _ = missed(repository, release(from_here("assistant", quickstart_model())), "desk")
        wire.passed, wire.limit = 0, 20 * MIB
        device.agent.start()
        try:
            wait_until(lambda: outcome_in(repository, rollout, "desk") is Outcome.SUCCEEDED, 120)
        finally:
            device.agent.stop()
    size = blob(quickstart_model()).size
    assert wire.cuts >= 4
    assert size < wire.passed < size * 1.03


def test_the_agent_and_the_hub_may_be_killed_meanwhile(
    device: HubDevice, hub: HubProcess, repository: Repository
) -> None:
    asked = Undertaking(limit_rate=20 * MIB)
    rollout, _ = missed(repository, release(from_here("assistant", quickstart_model())), "desk", asked=asked)
    partial = device.agent.state_dir / "store" / "partial" / blob(quickstart_model()).digest[7:]

    def held() -> int:
        return partial.stat().st_size if partial.exists() else 0

    device.agent.start()
    wait_until(lambda: held() > 10 * MIB)
    hub.kill()
    wait_until(lambda: "cannot be reached" in str(device.agent.state()["hub"]["delivery"]))
    device.agent.kill()
    kept = held()
    assert kept > 10 * MIB
    hub.start()
    device.agent.start()
    wait_until(lambda: outcome_in(repository, rollout, "desk") is Outcome.SUCCEEDED, 120)
    assert f"desk fetches {quickstart_model().name} from byte {kept} on" in hub.log.read_text()


def test_what_the_device_refuses_when_it_measures_is_reported_and_not_offered_again(
    device: HubDevice, hub: HubProcess, repository: Repository, tmp_path: Path
) -> None:
    broken = release(from_here("assistant", refused_by_llama(tmp_path)))
    rollout, _ = missed(repository, broken, "desk")
    device.agent.start()
    wait_until(lambda: outcome_in(repository, rollout, "desk") not in (Outcome.UNREACHABLE, None), 120)
    # llama.cpp refuses it when it is measured, before anything changes.
    assert outcome_in(repository, rollout, "desk") is Outcome.REFUSED
    assert device.agent.state()["active"] is None
    offers = hub.log.read_text().count("has its turn")
    never(lambda: hub.log.read_text().count("has its turn") > offers, 3)


def test_what_reverts_halts_the_rollout_and_is_not_tried_again(
    device: HubDevice, hub: HubProcess, repository: Repository, tmp_path: Path
) -> None:
    mute = release(from_here("assistant", silent(tmp_path)))
    rollout, wanted = missed(repository, mute, "desk")
    device.agent.start()
    wait_until(lambda: outcome_in(repository, rollout, "desk") is Outcome.REVERTED, 120)
    assert repository.rollout(rollout).state == "halted"
    assert [each["release"] for each in device.agent.state()["quarantine"]] == [wanted.digest()]
    # Asked for again, the device's own word is enough: it is quarantined.
    again, _ = missed(repository, mute, "desk")
    wait_until(lambda: repository.rollout(again).state == "finished")
    (part,) = repository.parts(again)
    assert part.outcome is Outcome.REFUSED
    assert "quarantined" in str(part.reason)
    # Unless somebody says that it is to be tried all the same.
    retried, _ = missed(repository, mute, "desk", asked=Undertaking(retry=True))
    wait_until(lambda: outcome_in(repository, retried, "desk") is Outcome.REVERTED, 120)
    assert hub.log.read_text().count("desk fetches") == 1


def test_a_push_in_between_wins_and_the_hub_offers_nothing_any_more(
    device: HubDevice, hub: HubProcess, repository: Repository, tmp_path: Path
) -> None:
    asked = Undertaking(limit_rate=4 * MIB)
    late, _ = missed(repository, release(from_here("assistant", quickstart_model())), "desk", asked=asked)
    device.agent.start()
    wait_until(lambda: "comes" in str(device.agent.state()["hub"]["delivery"]))
    newer = release(from_here("assistant", renamed(tmp_path)), number=9)
    event = deploy(device.agent, newer, renamed(tmp_path))
    assert event.outcome is Outcome.SUCCEEDED
    assert device.agent.state()["active"] == newer.digest()
    # Nobody recorded that push here; the device's own word is that another release came first.
    wait_until(lambda: outcome_in(repository, late, "desk") is Outcome.SUPERSEDED)
    never(lambda: device.agent.state()["active"] != newer.digest(), 3)
    assert repository.pending("desk") is None


def test_a_newer_rollout_takes_the_place_of_what_is_on_its_way(
    device: HubDevice, repository: Repository, tmp_path: Path
) -> None:
    asked = Undertaking(limit_rate=4 * MIB)
    late, _ = missed(repository, release(from_here("assistant", quickstart_model())), "desk", asked=asked)
    device.agent.start()
    wait_until(lambda: "comes" in str(device.agent.state()["hub"]["delivery"]))
    newer, wanted = missed(repository, release(from_here("assistant", renamed(tmp_path))), "desk")
    wait_until(lambda: outcome_in(repository, newer, "desk") is Outcome.SUCCEEDED)
    assert outcome_in(repository, late, "desk") is Outcome.SUPERSEDED
    assert device.agent.state()["active"] == wanted.digest()
    assert blob(quickstart_model()).digest not in device.agent.state()["blobs"]


def test_the_same_release_pushed_meanwhile_arrives_once(device: HubDevice, repository: Repository) -> None:
    asked = Undertaking(limit_rate=4 * MIB)
    late, wanted = missed(
        repository, release(from_here("assistant", quickstart_model())), "desk", asked=asked
    )
    device.agent.start()
    wait_until(lambda: "comes" in str(device.agent.state()["hub"]["delivery"]))
    digest = blob(quickstart_model()).digest

    def pushed() -> bool:
        # As a control side does that is told that the blob is still being received.
        status, _ = device.agent.control(
            "POST", "/v1/releases", f'{{"release": {wanted.model_dump_json()}}}'.encode()
        )
        assert status == 200
        return not device.agent.state()["hub"]["delivery"].count("comes")

    wait_until(pushed, 5)
    event = deploy(device.agent, wanted, quickstart_model())
    assert event.outcome is Outcome.SUCCEEDED
    wait_until(lambda: outcome_in(repository, late, "desk") is Outcome.SUCCEEDED)
    assert digest in device.agent.state()["blobs"]


def test_an_aborted_rollout_stops_what_is_on_its_way(device: HubDevice, repository: Repository) -> None:
    from edgectl.rollouts.owner import current

    asked = Undertaking(limit_rate=4 * MIB)
    late, _ = missed(repository, release(from_here("assistant", quickstart_model())), "desk", asked=asked)
    device.agent.start()
    wait_until(lambda: "comes" in str(device.agent.state()["hub"]["delivery"]))
    repository.abort_rollout(late, current())
    wait_until(lambda: device.agent.state()["hub"]["delivery"] is None)
    never(lambda: device.agent.state()["hub"]["delivery"], 3)
    assert device.agent.state()["active"] is None
