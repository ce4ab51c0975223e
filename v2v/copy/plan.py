"""Arithmetic of copying: from extents to steps. Nothing here reads or writes.

The disk is cut into cells, multiples of `unit` bytes. A cell that holds data is one step, a unit:
its data is read into one buffer, and the buffer is written. Holes need no buffer and are joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from v2v.extents import Extent, merge, split
from v2v.types import GiB

ZERO_REQUEST = 1 * GiB  # zeroing is cheap, but the NBD protocol's length has 32 bits


@dataclass(frozen=True, slots=True)
class Unit:
    """What is to be copied of one cell: from where its first extent starts to where the last ends.

    There is data among the extents. What lies between them is to be left alone on the target.
    """

    offset: int
    length: int
    extents: tuple[Extent, ...]

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Zero:
    """`length` bytes at `offset` that the target must read as zeroes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


Step: TypeAlias = Unit | Zero


def plan(extents: Iterable[Extent], *, unit: int, alignment: int, size: int) -> Iterator[Step]:
    """The steps that copy `extents`, in disk order: every listed byte is in exactly one.

    `unit` is a multiple of `alignment`, both in bytes. Every step begins at a multiple of
    `alignment` and ends at one or at `size`, the disk's end, because the list does so wherever it
    has a gap (see `v2v.extents.widen`). Raises ValueError where that is not so.
    """
    if unit % alignment:
        raise ValueError(f"a unit of {unit} bytes is not a multiple of {alignment}")
    longest = max(ZERO_REQUEST // alignment, 1) * alignment
    return _join_zeroes(_steps(_checked(extents, alignment, size), unit), longest)


def request_size(preferred: int | None, default: int, *, maximum: int, alignment: int) -> int:
    """Bytes per write: what the sink prefers, as far as it can take it, and whole blocks of it."""
    size = min(preferred or default, maximum)
    return max(size // alignment, 1) * alignment


def _checked(extents: Iterable[Extent], alignment: int, size: int) -> Iterator[Extent]:
    """The extents, joined. A wrong list would make requests that the target cannot take."""
    position = 0
    for extent in merge(extents):
        if extent.offset != position:
            _check_gap(position, extent.offset, alignment)
        yield extent
        position = extent.end
    if position > size:
        raise ValueError(f"extents reach {position}, beyond the disk's end at {size}")
    if position < size:
        _check_gap(position, position, alignment)


def _check_gap(start: int, end: int, alignment: int) -> None:
    """The list stops at `start` and goes on at `end`."""
    if start > end:
        raise ValueError(f"extents overlap from {end} to {start}")
    for edge in (start, end):
        if edge % alignment:
            raise ValueError(f"extents have an edge at {edge}, not a multiple of {alignment}")


def _steps(extents: Iterable[Extent], unit: int) -> Iterator[Step]:
    parts: list[Extent] = []  # of the cell at hand
    border = 0  # where that cell ends
    for extent in extents:
        for part in (extent,) if extent.end <= border else _by_cell(extent, unit):
            if part.offset >= border:
                yield from _cell(parts)
                parts = []
                border = (part.offset // unit + 1) * unit
            parts.append(part)
    yield from _cell(parts)


def _by_cell(extent: Extent, unit: int) -> Iterator[Extent]:
    """Cut at the borders of cells; the whole cells of a hole stay one piece, however many."""
    first, last = -(-extent.offset // unit) * unit, extent.end // unit * unit
    if not extent.zero or first >= last:
        yield from split(extent, unit)
        return
    for low, high in ((extent.offset, first), (first, last), (last, extent.end)):
        if low < high:
            yield Extent(low, high - low, zero=True)


def _cell(parts: list[Extent]) -> Iterator[Step]:
    if all(part.zero for part in parts):
        for part in parts:
            yield Zero(part.offset, part.length)
        return
    start = parts[0].offset
    yield Unit(start, parts[-1].end - start, tuple(parts))


def _join_zeroes(steps: Iterable[Step], longest: int) -> Iterator[Step]:
    start = end = 0  # zeroes that may go on
    for step in steps:
        if isinstance(step, Zero) and step.offset == end:
            end = step.end
            continue
        yield from _zeroes(start, end, longest)
        if isinstance(step, Zero):
            start, end = step.offset, step.end
        else:
            start = end = step.end
            yield step
    yield from _zeroes(start, end, longest)


def _zeroes(start: int, end: int, longest: int) -> Iterator[Zero]:
    for offset in range(start, end, longest):
        yield Zero(offset, min(longest, end - offset))
