"""Reading an endpoint with several requests in flight."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from v2v import nbd_client
from v2v.cancel import Cancel
from v2v.endpoint import Endpoint
from v2v.extents import Extent

LIBNBD_MAXIMUM = 32 * 1024 * 1024  # bytes per read that every server takes


class Reader:
    """One connection. Reads are asynchronous and may end in any order.

    What they read into must stay where it is until `done` is called, which happens inside `wait`.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        import nbd

        self._nbd = nbd
        self._endpoint = endpoint
        self._handle = nbd_client.connect(endpoint)
        self.maximum = min(endpoint.maximum_block, LIBNBD_MAXIMUM)
        self.in_flight = 0

    def extents(self, cancel: Cancel) -> Iterator[Extent]:
        """The disk's data and zeroes, asked for as they are needed."""
        return nbd_client.extents(self._endpoint, self._handle, cancel=cancel)

    def read(self, offset: int, view: memoryview, done: Callable[[OSError | None], None]) -> None:
        """Fill `view` from `offset`, then call `done` with None or what went wrong."""

        def completed(error: Any) -> int:
            self.in_flight -= 1
            done(OSError(error.value, os.strerror(error.value)) if error.value else None)
            return 1  # nothing else asks for this command's outcome

        buffer = self._nbd.Buffer.from_buffer(view)
        try:
            self._handle.aio_pread(buffer, offset, completed)
        except self._nbd.Error as exc:
            raise OSError(exc.errnum or 0, exc.string) from exc
        self.in_flight += 1

    def wait(self, seconds: float) -> None:
        """Handle what the server sent, waiting for it at most `seconds`."""
        try:
            self._handle.poll(int(seconds * 1000))
        except self._nbd.Error as exc:
            raise OSError(exc.errnum or 0, exc.string) from exc

    def close(self) -> None:
        self._handle.shutdown()

    def hang_up(self) -> None:
        nbd_client.hang_up(self._handle)


@contextmanager
def open_reader(endpoint: Endpoint) -> Iterator[Reader]:
    """A reader that says goodbye to the server when all went well, and just hangs up otherwise."""
    reader = Reader(endpoint)
    try:
        yield reader
    except BaseException:
        reader.hang_up()
        raise
    reader.close()
