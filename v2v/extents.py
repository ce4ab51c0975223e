"""Extents, and arithmetic on lists of them.

A list of extents is sorted and without overlaps. One that describes a disk covers it completely;
one that tells what to do may have gaps: what is not listed is to be left alone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, cycle, islice
from operator import sub

MAP_LIMIT = 4_000_000  # extents that one map holds: 32 MiB
REBUILD = 32  # one range set into the middle costs about as much as going over this many


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


def subtract(extents: Iterable[Extent], gone: Iterable[Extent]) -> Iterator[Extent]:
    """The parts of `extents` that no extent of `gone` covers; their kind is kept."""
    holes = (hole for hole in gone if hole.length)
    hole = next(holes, None)
    for extent in extents:
        start, end = extent.offset, extent.end
        while hole is not None and hole.offset < end:
            if start < hole.offset:
                yield Extent(start, hole.offset - start, extent.zero)
            start = max(start, hole.end)
            if hole.end > end:
                break  # it goes on in the next extent
            hole = next(holes, None)
        if start < end:
            yield extent if start == extent.offset else Extent(start, end - start, extent.zero)


def intersect(extents: Iterable[Extent], kept: Iterable[Extent]) -> Iterator[Extent]:
    """The parts of `extents` that lie in `kept`; the kind is that of `extents`."""
    ranges = iter(kept)
    keep = next(ranges, None)
    for extent in extents:
        start, end = extent.offset, extent.end
        while keep is not None and keep.offset < end:
            low, high = max(start, keep.offset), min(end, keep.end)
            if low < high:
                yield Extent(low, high - low, extent.zero)
            if keep.end > end:
                break  # it goes on in the next extent
            keep = next(ranges, None)


def widen(extents: Iterable[Extent], alignment: int, end: int) -> Iterator[Extent]:
    """The ranges, of either kind, widened to multiples of `alignment` bytes and joined.

    `end` is the disk's: nothing reaches beyond it, whether it is a multiple or not.
    """
    return merge(_widened(extents, alignment, end))


def _widened(extents: Iterable[Extent], alignment: int, end: int) -> Iterator[Extent]:
    position = 0  # what is before it has been given already
    for extent in extents:
        if extent.length == 0:
            continue
        low = max(extent.offset // alignment * alignment, position)
        high = min(-(-extent.end // alignment) * alignment, end)
        if low < high:
            yield Extent(low, high - low)
            position = high


class Ranges:
    """A set of byte ranges that can be added to. Ranges that touch become one.

    Not thread-safe. The edges of all ranges are in one sorted array: a start, an end, a start ...
    """

    def __init__(self, extents: Iterable[Extent] = ()) -> None:
        self._edges = array("Q")
        self.update(extents)

    def __iter__(self) -> Iterator[Extent]:
        starts, ends = self._edges[::2], self._edges[1::2]  # copies: one may add meanwhile
        return map(Extent, starts, map(sub, ends, starts))

    def __bool__(self) -> bool:
        return bool(self._edges)

    def __repr__(self) -> str:
        return f"Ranges({list(self)})"

    @property
    def length(self) -> int:
        """How many bytes the ranges hold together."""
        return sum(self._edges[1::2]) - sum(self._edges[::2])

    def copy(self) -> Ranges:
        other = Ranges()
        other._edges = self._edges[:]
        return other

    def covers(self, offset: int, length: int) -> bool:
        """Whether all of these bytes are in the set."""
        if length == 0:
            return True
        at = bisect_right(self._edges, offset)
        return at % 2 == 1 and offset + length <= self._edges[at]

    def within(self, extent: Extent) -> Iterator[Extent]:
        """The parts of `extent` that are in the set. Quick, however many ranges there are."""
        first = bisect_right(self._edges, extent.offset) // 2 * 2
        last = bisect_left(self._edges, extent.end)
        edges = self._edges[first : last + last % 2]
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            low, high = max(start, extent.offset), min(end, extent.end)
            if low < high:
                yield Extent(low, high - low, extent.zero)

    def add(self, offset: int, length: int) -> None:
        """Add these bytes, of which some may be there already."""
        if length == 0:
            return
        end = offset + length
        # What lies between is swallowed. An odd place is within a range, whose edge stays.
        low, high = bisect_left(self._edges, offset), bisect_right(self._edges, end)
        edges = [offset] * (low % 2 == 0) + [end] * (high % 2 == 0)
        self._edges[low:high] = array("Q", edges)

    def update(self, extents: Iterable[Extent]) -> None:
        """Add ranges, in any order."""
        fresh = list(extents)
        if len(fresh) * REBUILD < len(self._edges):
            for extent in fresh:
                self.add(extent.offset, extent.length)
            return
        self._rebuild(sorted(chain(self, fresh), key=lambda extent: extent.offset))

    def _rebuild(self, extents: Iterable[Extent]) -> None:
        edges = array("Q")
        last = -1  # where the last range ends
        for extent in extents:
            end = extent.end
            if extent.length == 0 or end <= last:
                continue
            if extent.offset <= last:
                edges[-1] = end
            else:
                edges.extend((extent.offset, end))
            last = end
        self._edges = edges


class ExtentMap:
    """The extents of a whole disk, [0, size), in eight bytes each.

    Above `limit` extents the smallest holes are taken as data, until half of the limit is free:
    memory stays bounded, and all that is lost is time. Raises ValueError when the extents leave
    something out.
    """

    def __init__(self, extents: Iterable[Extent], *, limit: int = MAP_LIMIT) -> None:
        if limit < 1:
            raise ValueError("an extent map holds one extent at least")
        self._edges = array("Q", [0])  # kinds alternate: only that of the first is kept
        self._first_zero = False
        for extent in merge(extents):
            if extent.offset != self._edges[-1]:
                raise ValueError(f"extents end at {self._edges[-1]}, go on at {extent.offset}")
            self._append(extent.end, extent.zero)
            if len(self._edges) - 1 > limit:
                self._coalesce(limit // 2)
        self.data = self._data()  # bytes that hold data

    def __iter__(self) -> Iterator[Extent]:
        lengths = map(sub, islice(self._edges, 1, None), self._edges)
        return map(Extent, self._edges, lengths, cycle((self._first_zero, not self._first_zero)))

    @property
    def size(self) -> int:
        return self._edges[-1]

    @property
    def count(self) -> int:
        """How many extents there are."""
        return len(self._edges) - 1

    def _append(self, end: int, zero: bool) -> None:
        if self.count == 0:
            self._first_zero = zero
        elif zero == (self._first_zero ^ (self.count % 2 == 0)):
            self._edges[-1] = end  # the same kind as the last one
            return
        self._edges.append(end)

    def _data(self) -> int:
        first = int(self._first_zero)
        return sum(self._edges[first + 1 :: 2]) - sum(self._edges[first:-1:2])

    def _coalesce(self, count: int) -> None:
        """Take the smallest holes as data, one at least, until about `count` extents are left."""
        first, size = int(not self._first_zero), self.size
        starts, ends = self._edges[first::2], self._edges[first + 1 :: 2]
        # A hole that is given up joins two extents.
        given_up = _smallest(map(sub, ends, starts), max((self.count - count) // 2, 1))
        edges = array("Q")
        for start, end in zip(starts, ends, strict=False):  # the last start may be data's end
            bits = (end - start).bit_length()
            if given_up[bits]:
                given_up[bits] -= 1
            else:
                edges.extend((start, end))
        self._first_zero = bool(edges) and edges[0] == 0
        if not self._first_zero:
            edges.insert(0, 0)
        if edges[-1] < size:
            edges.append(size)
        self._edges = edges


def _smallest(lengths: Iterable[int], number: int) -> Counter[int]:
    """How many of each class (bits of a length) make the `number` smallest ones, by class."""
    classes = Counter(map(int.bit_length, lengths))
    for bits in sorted(classes):
        classes[bits] = min(classes[bits], number)
        number -= classes[bits]
    return classes
