"""Frames over the socket between an agent and its worker, and what the messages in them are made of.

A frame is a head of nine bytes (kind, request, length; little-endian `<BII`) and its body. `MESSAGE` frames
carry one message as JSON. `CHUNK` frames carry bytes of an answer that go to the client as they are: the worker
writes a stream's events itself, by the `Frame` that came with the request, so that the agent neither parses nor
encodes tokens.

Messages are msgspec's and not pydantic's, whose import takes longer than all else of a worker's start.
"""

import struct
from typing import NamedTuple, TypeVar

import msgspec

HEAD = struct.Struct("<BII")
MESSAGE, CHUNK = 0, 1


_encoder = msgspec.json.Encoder()


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What messages are made of: values by name, and no others. Only what arrives is checked, not what is made here."""


class Message(Part, frozen=True):
    def json(self) -> bytes:
        """This message as a line of JSON."""
        return _encoder.encode(self)

    def frame(self) -> bytes:
        """This message as the bytes of one frame."""
        body = self.json()
        return HEAD.pack(MESSAGE, getattr(self, "id", 0), len(body)) + body


class Chunk(NamedTuple):
    """Bytes of a streamed answer, ready to be sent on."""

    id: int
    data: bytes

    def frame(self) -> bytes:
        """This chunk as the bytes of one frame."""
        return HEAD.pack(CHUNK, self.id, len(self.data)) + self.data


_T = TypeVar("_T")


def decoded(decoder: msgspec.json.Decoder[_T], body: bytes | str) -> _T:
    """What `decoder` reads. Raises ValueError with what is wrong."""
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
