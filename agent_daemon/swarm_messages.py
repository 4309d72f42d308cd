"""The lines between the agent and its swarm process, one JSON message each."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from agent_daemon.contract.device_facts import Message
from agent_daemon.contract.swarm import Address, Endpoint, Rate, SwarmState

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes: a torrent of a thousand pieces has 32 KiB, in base64 a third more."""

# -- to the swarm process --------------------------------------------------------------------------------


class Begin(Message):
    """Take part in the swarm of one blob. `whole`: the file is the store's own, and is only read."""

    do: Literal["begin"] = "begin"
    digest: str
    torrent: str
    folder: str
    whole: bool = False
    listen: tuple[Address, ...] = ()


class Meet(Message):
    """Who else takes part in any swarm of this device, and what may be sent to all of them together."""

    do: Literal["meet"] = "meet"
    digest: str
    peers: tuple[Endpoint, ...] = ()
    allowed: tuple[Address, ...] = ()
    upload_rate: Rate


class Leave(Message):
    """Take part no longer; answered by `Left`."""

    do: Literal["leave"] = "leave"
    digest: str


Command = Annotated[Begin | Meet | Leave, Field(discriminator="do")]

# -- from it ---------------------------------------------------------------------------------------------


class Listening(Message):
    said: Literal["listening"] = "listening"
    endpoints: tuple[Endpoint, ...] = ()
    problem: str | None = None


class Standing(Message):
    """How one swarm gets on; see `SwarmProgress`. `VERIFYING` here: all pieces are on the disk."""

    said: Literal["standing"] = "standing"
    digest: str
    state: SwarmState
    done: int = 0
    connected: int = 0
    received: int = 0
    sent: int = 0
    problem: str | None = None


class Left(Message):
    """`prefix`: bytes from the beginning of the file that are right without a gap."""

    said: Literal["left"] = "left"
    digest: str
    prefix: int = 0


Said = Annotated[Listening | Standing | Left, Field(discriminator="said")]

_COMMANDS: TypeAdapter[Begin | Meet | Leave] = TypeAdapter(Command)
_SAID: TypeAdapter[Listening | Standing | Left] = TypeAdapter(Said)


def line(message: Message) -> bytes:
    return message.model_dump_json().encode() + b"\n"


def parse_command(text: bytes) -> Begin | Meet | Leave:
    """Raises ValueError for anything else."""
    return _COMMANDS.validate_json(text)


def parse_said(text: bytes) -> Listening | Standing | Left:
    """Raises ValueError for anything else."""
    return _SAID.validate_json(text)
