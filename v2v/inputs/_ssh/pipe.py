"""What a channel has received and nobody has taken yet."""

from __future__ import annotations

import time
from collections import deque

from paramiko.buffered_pipe import BufferedPipe, PipeTimeout


class Pipe(BufferedPipe):  # type: ignore[misc]
    """In the packets that it came in: paramiko's own moves all that is left at each read."""

    def __init__(self) -> None:
        super().__init__()
        self._packets: deque[memoryview] = deque()
        self._length = 0

    def feed(self, data: bytes) -> None:
        with self._cv:
            if not data:
                return
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
