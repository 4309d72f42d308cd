"""Old and new agents and hubs understand each other: what one does not know does not keep the other's reports."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from agent_daemon.contract.check_in import Ack, CheckIn, CheckInReply, Desired, Has
from tests.support.inventory_messages import check_in, device_release, digest


class OldReply(BaseModel):
    """A hub's answer as agents knew it before there was anything to fetch."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    ack: Ack
    next_in: float


class OldCheckIn(BaseModel):
    """A check-in as hubs knew it then."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    schema_version: int
    agent_id: str
    epoch: str
    sent_at: float
    records: tuple[dict[str, Any], ...] = ()
    more: bool = False


REPLY = CheckInReply(
    ack=Ack(epoch="e", seq=4),
    next_in=60,
    desired=Desired(rollout=3, release=device_release(), limit_rate=1000, prune=True),
)


def test_an_old_agent_ignores_what_it_is_offered() -> None:
    assert OldReply.model_validate_json(REPLY.model_dump_json()) == OldReply(ack=REPLY.ack, next_in=60)


def test_an_old_hub_ignores_what_a_device_has() -> None:
    new = check_in().model_copy(update={"has": Has(active=digest("a"), quarantine=(digest("b"),))})
    assert OldCheckIn.model_validate_json(new.model_dump_json()).epoch == "e1"


def test_an_old_hub_offers_nothing_and_an_old_agent_has_nothing() -> None:
    assert CheckInReply.model_validate({"ack": {"epoch": "e", "seq": 1}, "next_in": 5}).desired is None
    old = check_in().model_dump(mode="json")
    del old["has"]
    assert CheckIn.model_validate(old).has is None


def test_the_same_comes_out_as_went_in() -> None:
    assert CheckInReply.model_validate_json(REPLY.model_dump_json()) == REPLY


def test_a_release_of_a_newer_form_costs_no_report() -> None:
    told = json.loads(REPLY.model_dump_json())
    told["desired"]["release"]["hologram"] = True
    read = CheckInReply.model_validate(told)
    assert read.ack == REPLY.ack
    assert isinstance(read.desired, dict)
    assert read.desired["rollout"] == 3
