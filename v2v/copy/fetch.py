"""Filling buffers from one connection to the source, and filling them again when it fails.

A read that fails, a connection that breaks and one that is silent for too long are all repaired in
the same way: the connection is given up, and after a pause everything that was under way is asked
for again on a fresh one.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

from v2v.cancel import Cancel
from v2v.copy.failures import failure
from v2v.copy.plan import Unit
from v2v.copy.reader import Reader, open_reader
from v2v.copy.window import Window
from v2v.endpoint import Endpoint
from v2v.errors import SourceError
from v2v.extents import data_bytes
from v2v.types import MiB

log = logging.getLogger(__name__)

READ_REQUEST = 1 * MiB  # bytes per read where the input has no preference
FEWEST_UNITS = 4  # that may be filled at once: 3 to 6 were as good with checkered data, 10 worse
SMALLEST_WINDOW = 2 * MiB  # two reads: one is on its way while the other is worked on
RETRY_SECONDS = (0.2, 1.0, 3.0, 6.0, 10.0)  # pauses before a read is tried again, then it failed
LOST = (errno.ENOTCONN, errno.ESHUTDOWN)  # what reads fail with when their connection is gone
DRAIN_SECONDS = 0.5  # for answers to come in before a connection is given up
POLL_SECONDS = 0.2  # the longest a cancelled copy waits for a silent source


class Filling:
    """A unit, the buffer that its data is read into, and how far that is."""

    __slots__ = ("attempts", "buffer", "data", "missing", "unit")

    def __init__(self, unit: Unit, buffer: memoryview) -> None:
        self.unit = unit
        self.data = data_bytes(unit.extents)
        self.buffer = buffer
        self.missing = 0  # reads under way
        self.attempts = 0  # that failed

    @property
    def view(self) -> memoryview:
        return self.buffer[: self.unit.length]


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why the connection is given up; which read failed, when it was not the connection itself."""

    error: OSError | SourceError
    filling: Filling | None = None
    offset: int = 0
    length: int = 0


class Fetcher:
    """One connection at a time, for one thread. What is complete is put into `full`."""

    def __init__(
        self,
        disk: int,
        endpoint: Endpoint,
        *,
        requests: int | None,
        largest: int,
        stall: float,
        stop: Cancel,
    ) -> None:
        """`requests`: reads in flight, None to find out. `largest`: bytes in flight at most."""
        self.full: deque[Filling] = deque()
        self.retries = 0
        self.read_size = min(endpoint.request_size or READ_REQUEST, endpoint.maximum_block)
        self.latency = 0.0  # of the last read, in seconds
        self._disk = disk
        self._endpoint = endpoint
        self._requests = requests
        self._largest = largest
        self._stall = stall
        self._stop = stop
        self._flying: dict[int, Filling] = {}
        self._in_flight = 0  # bytes
        self._idle = 0.0  # seconds that we waited in vain
        self._reader: Reader | None = None
        self._window: Window | None = None
        self._broken: _Trouble | None = None

    @property
    def flying(self) -> int:
        """Units that are being filled."""
        return len(self._flying)

    def has_room(self, unit: int) -> bool:
        """Whether another unit of `unit` bytes should be asked for.

        Units that hold little data take as much memory as others, and as much of the cache.
        """
        window = self._window.size if self._window is not None else SMALLEST_WINDOW
        if len(self._flying) >= max(FEWEST_UNITS, 2 * window // unit):
            return False
        if self._requests is not None:
            return self._in_flight < self._requests * self.read_size
        return self._in_flight < window

    def fetch(self, filling: Filling) -> None:
        """Ask for the data of a unit."""
        self._flying[id(filling)] = filling
        if self._broken is None:
            self._ask(filling)

    def wait(self, seconds: float) -> None:
        """Handle what came, waiting at most `seconds`, and repair what broke.

        Raises CopyError (copy-read, copy-stalled) when that was tried often enough.
        """
        if self._broken is None and self._flying:
            self._poll(seconds)
        if self._broken is not None:
            self._repair(self._broken)

    def close(self) -> None:
        if self._reader is not None:
            self._drain(DRAIN_SECONDS)
            self._reader.close()
            self._reader = None

    def _drain(self, seconds: float) -> None:
        """Let answers come in that are under way: nbdkit 1.32 aborts when they are left."""
        end = time.monotonic() + seconds
        while self._reader is not None and self._in_flight and time.monotonic() < end:
            try:
                self._reader.wait(POLL_SECONDS)
            except OSError:
                return
            if self._stop.cancelled:
                end = min(end, time.monotonic() + DRAIN_SECONDS)

    def _poll(self, seconds: float) -> None:
        assert self._reader is not None  # noqa: S101  something is flying
        try:
            if self._reader.wait(seconds):
                self._idle = 0.0
                return
        except OSError as exc:
            self._broken = self._broken or _Trouble(exc)
            return
        self._idle += seconds
        if self._idle >= self._stall:
            silence = OSError(errno.ETIMEDOUT, f"no answer for {self._stall:g} s")
            self._broken = _Trouble(silence)

    def _ask(self, filling: Filling) -> None:
        try:
            reader = self._reader or self._connect()
            reads = list(self._reads(filling.unit, min(self.read_size, reader.maximum)))
            filling.missing = len(reads)
            now = time.monotonic()
            for offset, length in reads:
                start = offset - filling.unit.offset
                self._in_flight += length
                reader.read(
                    offset,
                    filling.buffer[start : start + length],
                    partial(self._done, reader, filling, offset, length, now),
                )
        except (OSError, SourceError) as exc:
            self._broken = self._broken or _Trouble(exc)

    def _connect(self) -> Reader:
        reader = open_reader(self._endpoint, stall=self._stall, cancel=self._stop)
        self._idle = 0.0
        self._in_flight = 0
        self._reader = reader
        self._window = Window(reader.latency, smallest=SMALLEST_WINDOW, largest=self._largest)
        return reader

    @staticmethod
    def _reads(unit: Unit, size: int) -> list[tuple[int, int]]:
        return [
            (offset, min(size, extent.end - offset))
            for extent in unit.extents
            if not extent.zero
            for offset in range(extent.offset, extent.end, size)
        ]

    def _done(
        self, reader: Reader, filling: Filling, offset: int, length: int, sent: float, error: Any
    ) -> int:
        """A read has ended: v2v.copy.reader.Done."""
        if reader is not self._reader:
            return 1  # it was given up
        self._in_flight -= length
        if error.value:
            cause = OSError(error.value, os.strerror(error.value))
            lost = error.value in LOST
            trouble = _Trouble(cause) if lost else _Trouble(cause, filling, offset, length)
            self._broken = self._broken or trouble
            return 1
        now = time.monotonic()
        self.latency = now - sent
        if self._window is not None:
            self._window.done(length, sent, now)
        filling.missing -= 1
        if filling.missing == 0:
            del self._flying[id(filling)]
            self.full.append(filling)
        return 1

    def _repair(self, trouble: _Trouble) -> None:
        """Pause, connect again, ask again. What failed too often is what the error names.

        A lost connection counts for the oldest unit only, which is asked for first: as long as
        connections last for one unit, the copy goes on.
        """
        worst = trouble.filling or next(iter(self._flying.values()), None)
        if trouble.filling is not None:  # the connection works
            self._drain(self._stall)
        self.close()
        self._broken = None
        self.retries += 1
        if worst is None or id(worst) not in self._flying:
            worst = next(iter(self._flying.values()), None)  # that one came in after all
        if worst is None:
            return  # whatever is asked for next connects again
        worst.attempts += 1
        if worst.attempts > len(RETRY_SECONDS):
            offset, length = worst.unit.offset, worst.unit.length
            if trouble.filling is worst:
                offset, length = trouble.offset, trouble.length
            raise failure(self._disk, "read", offset, length, trouble.error)
        # As text: a record that is kept would keep the error, and its traceback the connection.
        log.info("disk %d: reading again: %s", self._disk + 1, str(trouble.error))
        self._stop.wait(RETRY_SECONDS[worst.attempts - 1])
        for filling in tuple(self._flying.values()):
            if self._broken is None:
                self._ask(filling)
