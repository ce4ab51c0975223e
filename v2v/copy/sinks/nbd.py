"""Disks behind an NBD server."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from v2v import nbd_client
from v2v.cancel import Cancel
from v2v.copy.sinks._base import SinkLost
from v2v.copy.sinks._connection import Connection
from v2v.copy.sinks._pool import Pool
from v2v.endpoint import Endpoint
from v2v.errors import SourceError
from v2v.extents import Extent
from v2v.types import KiB, MiB

MAXIMUM = 32 * MiB  # what every NBD server takes
ZERO_MAXIMUM = 64 * MiB  # a server that has to write its zeroes must answer before it is lost
ZERO_BLOCK = 1 * MiB  # zeroes written at once where the server cannot make them itself
GRAIN = 64 * KiB  # a cluster of qcow2, and about what costs as much as a request
CONNECTIONS = 8  # more have not made any server faster
STALL = 60.0  # seconds; a busy disk array may need many, a dead network needs no more


class NbdSink:
    """A writable NBD export. `alignment` is for targets that want whole clusters.

    An export of whole blocks may be a little larger than the disk; the last block is filled up with
    zeroes. With `sparse` zeroes may become holes. No answer for `stall` seconds is SinkLost.
    """

    ordered = False

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        request_size: int | None,
        is_zero: bool,
        alignment: int | None = None,
        zero_grain: int = GRAIN,
        sparse: bool = True,
        stall: float = STALL,
        cancel: Cancel | None = None,
    ) -> None:
        self.alignment = max(endpoint.minimum_block, alignment or 1)
        maximum = min(endpoint.maximum_block, MAXIMUM)
        self.max_request = max(maximum - maximum % self.alignment, self.alignment)
        self.request_size = request_size
        self.zero_grain = max(zero_grain, self.alignment)
        self.workers = CONNECTIONS if endpoint.multi_conn else 1
        self.is_zero = is_zero
        self._endpoint = endpoint
        self._sparse = sparse
        self._stall = stall
        self._cancel = cancel or Cancel()
        self._pool = Pool(self._connect, self.workers, self._cancel)
        with self._pool.first() as connection:
            self._can_zero = connection.handle.can_zero()
            self._can_flush = connection.handle.can_flush()
        self._zero_maximum = ZERO_MAXIMUM

    def write(self, offset: int, buffer: memoryview) -> None:
        missing = self._padded(offset, len(buffer)) - len(buffer)
        if missing:
            buffer = memoryview(bytes(buffer) + bytes(missing))
        with self._pool.any() as connection:
            connection.write(offset, buffer)

    def zero(self, offset: int, length: int) -> None:
        end = offset + self._padded(offset, length)
        with self._pool.any() as connection:
            while offset < end:
                offset += self._zero_some(connection, offset, end - offset)

    def _zero_some(self, connection: Connection, offset: int, length: int) -> int:
        """Zero the beginning of a range; says how much of it."""
        if not self._can_zero:
            length = min(length, ZERO_BLOCK, self.max_request)
            connection.write(offset, memoryview(bytes(length)))
            return length
        length = min(length, self._zero_maximum)
        try:
            connection.zero(offset, length, allocate=not self._sparse)
        except OSError as exc:
            if not self._learn(exc, length):
                raise
            return 0
        return length

    def _learn(self, error: OSError, length: int) -> bool:
        """Whether the server only wants its zeroes in another way, and which."""
        if error.errno in (errno.EINVAL, errno.EOVERFLOW) and length > self.max_request:
            self._zero_maximum = self.max_request
            return True
        if error.errno == errno.EOPNOTSUPP:
            self._can_zero = False
            return True
        return False

    def flush(self) -> None:
        with self._pool.first() as connection:
            if self._can_flush:
                connection.flush()

    def read_back(self, offset: int, buffer: memoryview) -> None:
        while buffer:
            view = buffer[: self.max_request]
            self._read_some(offset, view)
            offset, buffer = offset + len(view), buffer[len(view) :]

    def _read_some(self, offset: int, view: memoryview) -> None:
        length = self._padded(offset, len(view))
        with self._pool.any() as connection:
            if length == len(view):
                connection.read(offset, view)
                return
            whole = memoryview(bytearray(length))
            connection.read(offset, whole)
            view[:] = whole[: len(view)]

    def extents(self) -> Iterator[Extent]:
        """Asked for on a connection of its own."""
        connection = self._connect()
        try:
            yield from nbd_client.extents(
                self._endpoint, connection.handle, cancel=self._cancel, stall=self._stall
            )
        except SourceError as exc:
            raise SinkLost(errno.ENOTCONN, str(exc)) from exc
        finally:
            connection.hang_up()

    def reopen(self) -> None:
        self._pool.reopen()

    def close(self) -> None:
        """Say goodbye to the server. What counts was flushed."""
        self._pool.close()

    def hang_up(self) -> None:
        """Break all connections at once."""
        self._pool.hang_up()

    def _connect(self, seconds: float | None = None) -> Connection:
        return Connection(self._endpoint, stall=self._stall, cancel=self._cancel, seconds=seconds)

    def _padded(self, offset: int, length: int) -> int:
        """The length up to the end of its last block, if the export goes so far."""
        filled = length + -length % self.alignment
        return max(min(filled, self._endpoint.size - offset), length)
