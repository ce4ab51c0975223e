"""Connections to an NBD server that notice when it is gone, silent, or no longer wanted."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from v2v import nbd_client
from v2v.cancel import Cancel
from v2v.copy.sinks._base import SinkLost
from v2v.endpoint import Endpoint
from v2v.errors import SourceError


class Connection:
    """One command at a time, for the thread that holds it.

    A server's refusal is an OSError with its number, and the connection goes on. Whatever else goes
    wrong is SinkLost: no answer for `stall` seconds, for one.
    """

    def __init__(
        self, endpoint: Endpoint, *, stall: float, cancel: Cancel, seconds: float | None = None
    ) -> None:
        """`seconds` for the handshake, where it is not to be as long as `stall`."""
        import nbd

        self._nbd = nbd
        self._stall = stall
        self._cancel = cancel
        try:
            self.handle = nbd_client.connect(endpoint, cancel=cancel, seconds=seconds or stall)
        except SourceError as exc:
            raise SinkLost(errno.ENOTCONN, str(exc)) from exc
        self.handle.set_pread_initialize(False)  # what it fills is the caller's own memory

    def write(self, offset: int, buffer: memoryview) -> None:
        self._command(self.handle.aio_pwrite, buffer, offset)  # an nbd.Buffer would stay

    def read(self, offset: int, buffer: memoryview) -> None:
        self._command(self.handle.aio_pread, buffer, offset)

    def zero(self, offset: int, length: int, *, allocate: bool) -> None:
        """`allocate`: the range is to keep its space."""
        flags = self._nbd.CMD_FLAG_NO_HOLE if allocate else 0
        self._command(lambda: self.handle.aio_zero(length, offset, flags=flags))

    def flush(self) -> None:
        self._command(self.handle.aio_flush)

    def close(self) -> None:
        """Say goodbye, without waiting for an answer."""
        try:
            self.handle.aio_disconnect()
        except self._nbd.Error:
            self.hang_up()

    def hang_up(self) -> None:
        nbd_client.hang_up(self.handle)

    def _command(self, start: Callable[..., int], *arguments: Any) -> None:
        try:
            nbd_client.wait(self.handle, start(*arguments), self._cancel, self._stall)
        except TimeoutError as exc:
            raise SinkLost(exc.errno, exc.strerror) from exc
        except self._nbd.Error as exc:
            self._cancel.check()
            raise self._failure(exc) from exc

    def _failure(self, error: Any) -> OSError:
        gone = self.handle.aio_is_dead() or self.handle.aio_is_closed()
        number = error.errnum or errno.EIO
        if gone or number == errno.ESHUTDOWN:
            return SinkLost(errno.ENOTCONN, f"the NBD server went away: {error.string}")
        return OSError(number, error.string)
