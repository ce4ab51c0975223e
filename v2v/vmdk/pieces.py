"""Where the bytes of a disk are: pieces, and which of them are read together. Arithmetic only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from v2v.types import KiB, MiB
from v2v.vmdk.store import File

T = TypeVar("T")

NOWHERE, ZERO = -1, -2  # instead of a place in a file: ask the parent; zeroes

# Places so near each other are read at once. At 100 MiB/s, 32 KiB cost as much as a round trip of
# 5 ms of which 16 are under way; from the page cache, 4 KiB cost as much as the call.
GAP = 32 * KiB
LOCAL_GAP = 4 * KiB
SPAN = MiB  # and no more than this, which needs memory of its own


class Piece(NamedTuple):
    """Bytes [start, end) of the disk, and where they are."""

    start: int
    end: int
    part: Part
    place: int  # byte of the part's file, or NOWHERE, or ZERO
    stored: int = 0  # bytes in the file, at most, where they are packed


class Part(ABC):
    """One file's share of a disk: [start, end) of it."""

    plain = True  # the file has the bytes themselves, one after the other

    def __init__(self, file: File, start: int, end: int) -> None:
        self.file = file
        self.start = start
        self.end = end

    @abstractmethod
    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """The range, which is in the part: pieces in order that cover it all."""

    def fill_known(self, piece: Piece, out: memoryview) -> bool:
        """Fill `out` without reading, if that is possible."""
        return False

    def fill(self, piece: Piece, raw: memoryview, out: memoryview) -> None:
        """Fill `out` with the piece's bytes; `raw` is what the file has for it."""
        out[:] = raw


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbours that go on in the same file, or are alike, become one piece."""
    last: Piece | None = None
    for piece in pieces:
        if last is not None and _goes_on(last, piece):
            last = last._replace(end=piece.end)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _goes_on(one: Piece, other: Piece) -> bool:
    if one.place < 0 or other.place < 0:
        return one.place == other.place
    same = one.part is other.part and one.part.plain
    return same and one.place + one.end - one.start == other.place


@dataclass(slots=True)
class Together(Generic[T]):
    """A range of a file that is read at once, and what of it is wanted."""

    start: int
    end: int
    items: list[T]


def gather(ranges: Iterable[tuple[int, int, T]], gap: int, span: int = SPAN) -> list[Together[T]]:
    """Ranges (start, end, item) of one file, read in as few requests as makes sense."""
    found: list[Together[T]] = []
    for start, end, item in sorted(ranges, key=_start):
        if found and start - found[-1].end <= gap and end - found[-1].start <= span:
            found[-1].end = max(found[-1].end, end)
            found[-1].items.append(item)
        else:
            found.append(Together(start, end, [item]))
    return found


def _start(found: tuple[int, int, object]) -> int:
    return found[0]


def by_file(pieces: Iterable[Piece]) -> Iterator[Sequence[tuple[int, int, Piece]]]:
    """The pieces of each file, with what of the file they need."""
    files: dict[int, list[tuple[int, int, Piece]]] = {}
    for piece in pieces:
        end = piece.place + (piece.stored or piece.end - piece.start)
        files.setdefault(id(piece.part.file), []).append((piece.place, end, piece))
    yield from files.values()
