"""Parts of a disk that are in a file as they are."""

from __future__ import annotations

from collections.abc import Iterator

from v2v.extents import Extent
from v2v.types import MiB
from v2v.vmdk.pieces import Part, Piece
from v2v.vmdk.store import File

# Where so much lies between two pieces that are looked at, what a file knows of its holes is asked
# for anew, rather than gone through.
SKIP = 64 * MiB


class Flat(Part):
    def __init__(self, file: File, start: int, end: int, offset: int) -> None:
        super().__init__(file, start, end)
        self.shift = offset - start  # from a byte of the disk to its place in the file

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        yield Piece(start, end, self, start + self.shift)


class Holes:
    """What a flat part's file knows of its holes, for ranges one after the other up to `end`."""

    def __init__(self, part: Flat, end: int) -> None:
        self._part = part
        self._end = min(end, part.end)
        self._found: Iterator[Extent] = iter(())
        self._last = Extent(part.start, 0)  # of the disk
        self._asked = False

    def within(self, start: int, end: int) -> Iterator[Extent]:
        """The range as extents of the disk."""
        if not self._asked or start > self._last.end + SKIP:
            shift = self._part.shift
            self._found = self._part.file.extents(start + shift, self._end - start)
            self._last = Extent(start, 0)
            self._asked = True
        while start < end:
            while self._last.end <= start:
                self._last = self._next()
            told = self._last.offset <= start
            stop = min(end, self._last.end if told else self._last.offset)
            yield Extent(start, stop - start, told and self._last.zero)
            start = stop

    def _next(self) -> Extent:
        found = next(self._found, None)
        if found is None:  # it may be anything
            return Extent(self._last.end, self._end - self._last.end)
        return Extent(found.offset - self._part.shift, found.length, found.zero)
