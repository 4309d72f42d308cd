"""What a hub answers to a check-in: the release that waits for the device, when it is its turn, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.check_in import CheckInReply, Desired, Has
from agent_daemon.contract.wire import ActivationState, Outcome, Record, RecordKind
from edgectl.hub.journal import Journal
from edgectl.hub.offers import Offers
from edgectl.inventory.repository import Repository
from edgectl.rollouts.owner import current
from edgectl.rollouts.policy import Amount, Policy
from edgectl.rollouts.undertaking import Undertaking
from tests.support.hub import HubProcess, running_hub
from tests.support.inventory_messages import check_in, device_release, digest, facts, record
from tests.support.late import missed, outcome_in

NAMES = ("desk", "lap", "tab")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(tmp_path / "inventory.db") as opened:
        for name in NAMES:
            opened.add_device(name, {"kind": "local"}, facts=facts(f"agent-{name}"))
        yield opened


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def offers(repository: Repository, clock: Clock) -> Offers:
    return Offers(repository, 60.0, Journal(), clock)


def test_what_waits_is_offered_with_all_that_was_asked(repository: Repository, offers: Offers) -> None:
    asked = Undertaking(retry=True, prune=True, limit_rate=2.5e6)
    rollout, release = missed(repository, device_release(), "desk", asked=asked)
    assert offers.desired("desk", Has(active=digest("f"))) == Desired(
        rollout=rollout, release=release, retry=True, limit_rate=2_500_000, prune=True
    )
    assert offers.desired("lap", Has()) is None
    assert outcome_in(repository, rollout, "desk") is Outcome.UNREACHABLE


@pytest.mark.parametrize("state", ["paused", "halted", "interrupted"])
def test_a_rollout_that_stands_hands_out_nothing(repository: Repository, offers: Offers, state: Any) -> None:
    missed(repository, device_release(), "desk", state=state)
    assert offers.desired("desk", Has()) is None


@pytest.mark.parametrize(
    ("has", "outcome"),
    [
        ({"active": "RELEASE"}, Outcome.UNCHANGED),
        ({"quarantine": ["RELEASE"]}, Outcome.REFUSED),
        ({"over": "ROLLOUT"}, Outcome.REFUSED),
        ({"unread": "ROLLOUT"}, Outcome.REFUSED),
    ],
)
def test_the_devices_own_word_may_be_enough(
    repository: Repository, offers: Offers, has: dict[str, Any], outcome: Outcome
) -> None:
    rollout, release = missed(repository, device_release(), "desk")
    text = json.dumps(has).replace('"ROLLOUT"', str(rollout)).replace("RELEASE", release.digest())
    assert offers.desired("desk", Has.model_validate_json(text)) is None
    assert outcome_in(repository, rollout, "desk") is outcome
    assert repository.rollout(rollout).state == "finished"


def test_no_more_at_once_than_may_be_unavailable(
    repository: Repository, offers: Offers, clock: Clock
) -> None:
    asked = Undertaking(policy=Policy(max_unavailable=Amount(count=1), progress_deadline=100.0))
    rollout, release = missed(repository, device_release(), *NAMES, asked=asked)
    assert offers.desired("desk", Has()) is not None
    assert offers.desired("lap", Has()) is None
    clock.now += 150
    # Who is heard of keeps its turn, however long it takes.
    assert offers.desired("desk", Has()) is not None
    clock.now += 150
    assert offers.desired("tab", Has()) is None
    # Its turn ends with its verdict,
    repository.record_outcome(rollout, "desk", Outcome.SUCCEEDED)
    assert offers.desired("desk", Has(active=release.digest())) is None
    assert offers.desired("lap", Has()) is not None
    # or when it is not heard of any more.
    clock.now += 181
    assert offers.desired("tab", Has()) is not None
    assert offers.desired("lap", Has()) is None


def test_a_newer_rollout_takes_the_turn_along(repository: Repository, offers: Offers) -> None:
    asked = Undertaking(policy=Policy(max_unavailable=Amount(count=1)))
    missed(repository, device_release(), "desk", "lap", asked=asked)
    assert offers.desired("desk", Has()) is not None
    _, newer = missed(repository, device_release(blob="b"), "desk", asked=asked)
    found = offers.desired("desk", Has())
    assert found is not None
    assert found.release == newer
    assert offers.desired("lap", Has()) is not None


# -- over the wire ---------------------------------------------------------------------------------------


@pytest.fixture
def hub(repository: Repository, tmp_path: Path) -> Iterator[HubProcess]:
    with running_hub(tmp_path / "inventory.db") as running:
        yield running


def bring(hub: HubProcess, token: str, name: str, *records: Record, **more: Any) -> dict[str, Any]:
    message = check_in(*records, agent_id=f"agent-{name}").model_dump(mode="json")
    del message["has"]
    status, answer = hub.bring(token, json.dumps({**message, **more}).encode())
    assert status == 200, answer
    return dict(answer)


def test_the_whole_way(hub: HubProcess, repository: Repository) -> None:
    rollout, release = missed(repository, device_release(), "desk")
    token = repository.mint_token("desk", 1)
    # An agent of before says nothing of what it has, and is offered nothing: it could not take it.
    assert bring(hub, token, "desk").keys() == {"ack", "next_in"}
    # Nor is one while it has more to tell.
    assert bring(hub, token, "desk", has=None, more=True).keys() == {"ack", "next_in"}
    has = Has(active=digest("f")).model_dump(mode="json")
    answer = CheckInReply.model_validate(bring(hub, token, "desk", has=has))
    assert isinstance(answer.desired, Desired)
    assert (answer.desired.rollout, answer.desired.release) == (rollout, release)
    # What it tells of the end comes before the question what there is to do.
    event = record(
        1, RecordKind.ACTIVATION, operation=3, release=release.digest(), number=release.number,
        state=ActivationState.COMMITTED, outcome=Outcome.SUCCEEDED,
    )  # fmt: skip
    assert bring(hub, token, "desk", event, has=has).get("desired") is None
    assert repository.rollout(rollout).state == "finished"


def test_budgets_hold_when_devices_come_back_one_after_another(
    hub: HubProcess, repository: Repository
) -> None:
    rollout, release = missed(repository, device_release(), *NAMES)
    tokens = {name: repository.mint_token(name, 1) for name in NAMES}
    has = Has().model_dump(mode="json")
    assert bring(hub, tokens["desk"], "desk", has=has)["desired"] is not None
    event = record(
        1, RecordKind.ACTIVATION, operation=3, release=release.digest(), number=release.number,
        state=ActivationState.REVERTED, outcome=Outcome.REVERTED, detail="probe failed",
    )  # fmt: skip
    assert bring(hub, tokens["desk"], "desk", event, has=has).get("desired") is None
    found = repository.rollout(rollout)
    assert found.state == "halted"
    assert "the budget for reverted is 0" in str(found.state_reason)
    for name in ("lap", "tab"):
        assert bring(hub, tokens[name], name, has=has).get("desired") is None
    # Until somebody goes on with it and leaves it waiting for them.
    repository.take_up(rollout, current())
    repository.set_state(rollout, "waiting")
    assert bring(hub, tokens["lap"], "lap", has=has)["desired"] is not None
