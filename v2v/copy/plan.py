"""Arithmetic of copying: from extents to requests. Nothing here reads or writes.

Reads and writes have different sizes: a write fills the sink's request, the reads that fill it are
bounded by what the source can give at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from v2v.extents import Extent, merge, split
from v2v.types import GiB

ZERO_REQUEST = 1 * GiB  # zeroing is cheap, but the NBD protocol's length has 32 bits


@dataclass(frozen=True, slots=True)
class Write:
    """`length` bytes to write at `offset`; what `reads` leave uncovered is filled with zeroes."""

    offset: int
    length: int
    reads: tuple[Extent, ...]

    def gaps(self) -> Iterator[Extent]:
        """The ranges that no read covers."""
        position = self.offset
        for read in self.reads:
            if read.offset > position:
                yield Extent(position, read.offset - position, zero=True)
            position = read.end
        if position < self.offset + self.length:
            yield Extent(position, self.offset + self.length - position, zero=True)


@dataclass(frozen=True, slots=True)
class Zero:
    """`length` bytes at `offset` that the target must read as zeroes."""

    offset: int
    length: int


Step: TypeAlias = Write | Zero


def plan(
    extents: Iterable[Extent], size: int, *, request: int, maximum_read: int, alignment: int = 1
) -> Iterator[Step]:
    """The requests that copy a disk of `size` bytes, in order, covering each byte once.

    Every write lies between two multiples of `request`, a multiple of `alignment`; it starts at a
    multiple of `alignment` and ends there or at the end of the disk. Reads take at most
    `maximum_read` bytes and touch data only.
    """
    if request % alignment:
        raise ValueError(f"a request of {request} bytes is not a multiple of {alignment}")
    written = 0
    for part in _aligned(extents, request, alignment, size):
        if part.offset > written:
            yield from _zeroes(written, part.offset)
        yield Write(part.offset, part.length, tuple(_cut(part.reads, maximum_read)))
        written = part.offset + part.length
    yield from _zeroes(written, size)


def request_size(preferred: int | None, default: int, *, maximum: int, alignment: int) -> int:
    """Bytes per write: what the sink prefers, as far as it can take it, and whole blocks of it."""
    size = min(preferred or default, maximum)
    return max(size // alignment, 1) * alignment


def _aligned(extents: Iterable[Extent], request: int, alignment: int, size: int) -> Iterator[Write]:
    """Data cut at multiples of `request` and widened to `alignment`; neighbours are joined."""
    pending: Write | None = None
    for extent in _data(extents, request):
        start = extent.offset // alignment * alignment
        end = min(-(-extent.end // alignment) * alignment, size)
        if pending is None:
            pending = Write(start, end - start, (extent,))
        elif _joins(pending, start, request):
            joined = max(end, pending.offset + pending.length) - pending.offset
            pending = Write(pending.offset, joined, (*pending.reads, extent))
        else:
            yield pending
            pending = Write(start, end - start, (extent,))
    if pending is not None:
        yield pending


def _joins(pending: Write, start: int, request: int) -> bool:
    """Whether what starts at `start` touches the pending write, within the same request."""
    touches = start <= pending.offset + pending.length
    return touches and start // request == pending.offset // request


def _data(extents: Iterable[Extent], request: int) -> Iterator[Extent]:
    for extent in merge(extents):
        if not extent.zero:
            yield from split(extent, request)


def _cut(reads: Iterable[Extent], maximum: int) -> Iterator[Extent]:
    for read in reads:
        for offset in range(read.offset, read.end, maximum):
            yield Extent(offset, min(maximum, read.end - offset))


def _zeroes(start: int, end: int) -> Iterator[Zero]:
    for offset in range(start, end, ZERO_REQUEST):
        yield Zero(offset, min(ZERO_REQUEST, end - offset))
