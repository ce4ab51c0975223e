"""Reading one disk, with many reads in flight: from an NBD server, or from a local raw file."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from v2v import nbd_client
from v2v.cancel import Cancel
from v2v.endpoint import Endpoint
from v2v.types import MiB

LIBNBD_MAXIMUM = 32 * MiB  # bytes per read that every server takes
HANDSHAKE_TRIPS = 5  # round trips of connecting and negotiating, about

# Called with something whose `value` is an errno, 0 for none; gives 1: nothing else asks for it.
Done: TypeAlias = Callable[[Any], int]


class Reader(Protocol):
    """One connection. For one thread; what `read` fills must stay where it is until `done`."""

    latency: float  # seconds of a small request, as seen when it was opened
    maximum: int  # the largest read

    def read(self, offset: int, view: memoryview, done: Done) -> None:
        """Fill `view` from `offset`, then call `done`."""

    def wait(self, seconds: float) -> bool:
        """Handle what came, waiting for it at most so long. False: nothing came."""

    def close(self) -> None:
        """Nothing is filled or called any more after this."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: int


class NbdReader:
    """`done` is called inside `wait`, in whatever order the server answers."""

    def __init__(self, endpoint: Endpoint, *, stall: float, cancel: Cancel) -> None:
        import nbd

        self._nbd = nbd
        began = time.monotonic()
        self._handle = nbd_client.connect(endpoint, cancel=cancel, seconds=stall)
        self._handle.set_pread_initialize(False)  # an error is an error; no buffer is used then
        if self._handle.get_size() != endpoint.size:
            raise OSError(errno.ESTALE, "the server serves another disk now: its size changed")
        self.latency = (time.monotonic() - began) / HANDSHAKE_TRIPS
        self.maximum = min(endpoint.maximum_block, LIBNBD_MAXIMUM)

    def read(self, offset: int, view: memoryview, done: Done) -> None:
        try:
            self._handle.aio_pread(view, offset, done)  # libnbd 1.14 never frees an nbd.Buffer
        except self._nbd.Error as exc:
            raise _error(exc) from exc

    def wait(self, seconds: float) -> bool:
        try:
            return bool(self._handle.poll(int(seconds * 1000)))
        except self._nbd.Error as exc:
            raise _error(exc) from exc

    def close(self) -> None:
        """Say goodbye, without waiting for an answer."""
        try:
            self._handle.aio_disconnect()
        except self._nbd.Error:
            nbd_client.hang_up(self._handle)
        del self._handle  # closes the socket: what is still under way fills nothing


class FileReader:
    """A raw file or block device. `done` is called inside `read`."""

    latency = 0.0
    maximum = LIBNBD_MAXIMUM

    def __init__(self, endpoint: Endpoint) -> None:
        assert endpoint.file is not None  # noqa: S101  the caller's mistake
        self._fd = os.open(endpoint.file, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, view: memoryview, done: Done) -> None:
        number = 0
        try:
            while view and not number:
                count = os.preadv(self._fd, [view], offset)
                number = 0 if count else errno.EIO  # the file has become shorter
                offset, view = offset + count, view[count:]
        except OSError as exc:
            number = exc.errno or errno.EIO
        done(_Outcome(number))

    def wait(self, seconds: float) -> bool:
        return True

    def close(self) -> None:
        os.close(self._fd)


def open_reader(endpoint: Endpoint, *, stall: float, cancel: Cancel) -> Reader:
    """Raises SourceError or OSError when there is no connection within `stall` seconds."""
    if endpoint.file is not None:
        return FileReader(endpoint)
    return NbdReader(endpoint, stall=stall, cancel=cancel)


def _error(exc: Any) -> OSError:
    return OSError(exc.errnum or errno.EIO, exc.string)
