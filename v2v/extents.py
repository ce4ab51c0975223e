"""Extents, and arithmetic on lists of them.

A list of extents is sorted, without gaps or overlaps, and covers [start, end) completely.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes from `offset`; `zero` when they are known to read as zeroes."""

    offset: int
    length: int
    zero: bool = False

    @property
    def end(self) -> int:
        return self.offset + self.length


def merge(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of the same kind; drop empty ones."""
    last: Extent | None = None
    for extent in extents:
        if extent.length == 0:
            continue
        if last is not None and last.zero == extent.zero and last.end == extent.offset:
            last = Extent(last.offset, last.length + extent.length, last.zero)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last


def clip(extents: Iterable[Extent], start: int, end: int) -> Iterator[Extent]:
    """The parts of the extents that lie in [start, end)."""
    for extent in extents:
        low, high = max(extent.offset, start), min(extent.end, end)
        if low < high:
            yield Extent(low, high - low, extent.zero)


def split(extent: Extent, size: int) -> Iterator[Extent]:
    """Cut at multiples of `size` bytes of the disk, so that requests are aligned."""
    offset = extent.offset
    while offset < extent.end:
        stop = min(extent.end, (offset // size + 1) * size)
        yield Extent(offset, stop - offset, extent.zero)
        offset = stop


def data_bytes(extents: Iterable[Extent]) -> int:
    """How many bytes hold data."""
    return sum(extent.length for extent in extents if not extent.zero)
