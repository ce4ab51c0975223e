"""What has come from a host: paramiko's own parts, where they are slow or take without limit."""

from __future__ import annotations

import time
from collections import deque

from paramiko import SSHException
from paramiko.buffered_pipe import BufferedPipe, PipeTimeout
from paramiko.packet import Packetizer

from v2v.types import KiB, MiB

WINDOW = 16 * MiB  # that the host may send before we take it: 10 ms at 1.6 GB/s
MAX_PACKET = 1 * MiB  # bytes; we ask for 128 KiB at most
MAX_GREETING = 64 * KiB  # before the host says that it speaks SSH


class Packets(Packetizer):  # type: ignore[misc]
    """Of the size that we agreed on: a host may say 4 GiB, before it is known who it is."""

    _greeting = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > MAX_PACKET:
            raise SSHException(f"a packet of {n} bytes")
        data: bytes = super().read_all(n, check_rekey)
        return data

    def _read_timeout(self, timeout: float) -> bytes:
        """A part of the greeting."""
        data: bytes = super()._read_timeout(timeout)
        self._greeting += len(data)
        if self._greeting > MAX_GREETING:
            raise SSHException(": it does not end")  # follows paramiko's words
        return data


class Pipe(BufferedPipe):  # type: ignore[misc]
    """What a channel has received and nobody has taken yet, in the packets that it came in.

    paramiko's own moves all that is left at each read, and lets a host send more than it may.
    """

    def __init__(self) -> None:
        super().__init__()
        self._packets: deque[memoryview] = deque()
        self._length = 0

    def feed(self, data: bytes) -> None:
        with self._cv:
            if not data:
                return
            if self._length > WINDOW:
                raise SSHException("the host sends more than it may")
            self._packets.append(memoryview(data))
            self._length += len(data)
            if self._event is not None:
                self._event.set()
            self._cv.notify_all()

    def read(self, nbytes: int, timeout: float | None = None) -> memoryview | bytes:
        """Of one packet, at most; b"" at the end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._cv:
            while not self._packets:
                if self._closed:
                    return b""
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise PipeTimeout
                self._cv.wait(left)
            packet = self._packets.popleft()
            if len(packet) > nbytes:
                self._packets.appendleft(packet[nbytes:])
                packet = packet[:nbytes]
            self._length -= len(packet)
            if self._event is not None and not self._packets and not self._closed:
                self._event.clear()
            return packet

    def read_ready(self) -> bool:
        return self._length > 0

    def empty(self) -> bytes:
        with self._cv:
            data = b"".join(self._packets)
            self._packets.clear()
            self._length = 0
            return data

    def __len__(self) -> int:
        return self._length
