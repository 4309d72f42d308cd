"""Packets of an SSH connection, many of a channel's at a time.

paramiko makes each packet by itself, which takes it as long again as encrypting it and leaves a fast wire idle. Here
those of AES-GCM are encrypted one after the other and written at once; all other ciphers go paramiko's way.
"""

import os
import struct
from collections.abc import Sequence
from typing import Any

from paramiko.common import cMSG_CHANNEL_DATA  # type: ignore[import-untyped]
from paramiko.message import Message  # type: ignore[import-untyped]
from paramiko.packet import Packetizer  # type: ignore[import-untyped]

_AT_ONCE = 8
"""Packets written at once: 256 KiB where they are full."""
_SEQUENCE = 2**32
_BLOCK = 16


class Burst:
    """Data of one channel, a packet for each piece. `asbytes` is what paramiko's other messages have."""

    def __init__(self, channel: int, pieces: Sequence[memoryview]) -> None:
        self._head = cMSG_CHANNEL_DATA + struct.pack(">I", channel)
        self._pieces = pieces

    def payloads(self) -> list[list[Any]]:
        """Of each packet, in parts. RFC 4254, section 5.2."""
        return [[self._head, struct.pack(">I", len(piece)), piece] for piece in self._pieces]


class Packets(Packetizer):  # type: ignore[misc]
    """Rekeys as rarely as OpenSSH does with AES: paramiko's 512 MiB fall into every larger model, and rekeying amid
    a transfer has broken it."""

    REKEY_BYTES = 2**36
    REKEY_PACKETS = 2**31

    _Packetizer__iv_out: bytes
    _Packetizer__sequence_number_out: int

    def close(self) -> None:
        # Ends the timer of the handshake, which would otherwise hold up the end of the program.
        self.complete_handshake()
        super().close()

    def send_message(self, data: Any) -> None:
        if not isinstance(data, Burst):
            super().send_message(data)
        elif not self._Packetizer__aead_out or self._Packetizer__compress_engine_out is not None:
            for parts in data.payloads():
                super().send_message(Message(b"".join(parts)))
        else:
            with self._Packetizer__write_lock:
                self._send_encrypted(data.payloads())

    def _send_encrypted(self, payloads: list[list[Any]]) -> None:
        """RFC 5647, section 7: the length is authenticated, all else encrypted; the counter in the nonce goes on."""
        encrypt, nonce, out = (
            self._Packetizer__block_engine_out.encrypt,
            self._Packetizer__iv_out,
            bytearray(),
        )
        for parts in payloads:
            size = sum(map(len, parts)) + 1
            padding = _BLOCK - size % _BLOCK
            padding += _BLOCK if padding < 4 else 0
            length = struct.pack(">I", size + padding)
            out += length
            out += encrypt(nonce, b"".join((bytes((padding,)), *parts, os.urandom(padding))), length)
            nonce = self._inc_iv_counter(nonce)
        self._Packetizer__iv_out = nonce
        self._Packetizer__sequence_number_out = (
            self._Packetizer__sequence_number_out + len(payloads)
        ) % _SEQUENCE
        self._Packetizer__sent_bytes += len(out)
        self._Packetizer__sent_packets += len(payloads)
        self.write_all(bytes(out))


def send(channel: Any, data: memoryview) -> int:
    """Sends the beginning of `data` through a paramiko channel, as `Channel.send` does and with what it raises, but in
    several packets; returns how many bytes, 0 where the other side takes no more."""
    pieces: list[memoryview] = []
    taken = 0
    with channel.lock:
        if channel.closed:
            raise OSError("the channel is closed")
        while taken < len(data) and len(pieces) < _AT_ONCE and (not pieces or channel.out_window_size):
            size = channel._wait_for_send_window(len(data) - taken)
            if size == 0:
                break
            pieces.append(data[taken : taken + size])
            taken += size
    if pieces:
        # Outside the lock, as paramiko does, for a new exchange of keys not to wait for itself.
        channel.transport._send_user_message(Burst(channel.remote_chanid, pieces))
    return taken
