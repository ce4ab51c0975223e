"""What the engine expects of a sink."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeGuard

from v2v.extents import Extent


class SinkLost(OSError):
    """The connection to the target is gone or silent.

    What was not flushed may be lost. Every call raises it until `reopen` succeeds.
    """


class Sink(Protocol):
    """One target disk, open for writing.

    `workers` threads may call write, zero and read_back at once; other calls come from any one
    thread, also meanwhile. Offsets and lengths are bytes and keep to `alignment`; a write or a
    read_back is at most `max_request` long. Errors are OSErrors and belong to the range of the
    call.
    """

    request_size: int | None  # preferred bytes per write; None: the engine's choice
    max_request: int  # the largest write it can take
    alignment: int  # writes start at multiples of it, and end there or at the end of the disk
    zero_grain: int  # the shortest run of zeroes that is worth a request of its own
    workers: int  # how many threads may call it at once
    ordered: bool  # writes must come in disk order, from one thread
    is_zero: bool  # the whole disk is known to read as zeroes before the copy

    def write(self, offset: int, buffer: memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeroes, of any length."""

    def flush(self) -> None:
        """Whatever was written before is durable when this returns."""

    def read_back(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with what the target holds now."""

    def extents(self) -> Iterator[Extent]:
        """Where the target may hold data, as of the last flush; all is data when it is unknown."""

    def reopen(self) -> None:
        """Connect again. Raises SinkLost when that fails."""


class Feed(Protocol):
    """Where a streaming sink takes the bytes of its request from."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Put the next bytes into `buffer` and say how many; 0 only at the end."""


class StreamingSink(Sink, Protocol):
    """A sink that takes one long request better than many: `request_size` may exceed memory."""

    def write_from(self, reader: Feed, offset: int, length: int) -> None:
        """Write `length` bytes, which `reader` gives in order."""


def is_streaming(sink: Sink) -> TypeGuard[StreamingSink]:
    return hasattr(sink, "write_from")
