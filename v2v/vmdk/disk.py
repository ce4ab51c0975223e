"""A VMDK disk that is open: its bytes, and where there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

from v2v.extents import Extent, merge
from v2v.types import MiB
from v2v.vmdk.chain import Layer, open_chain, pieces
from v2v.vmdk.flat import Flat, Holes
from v2v.vmdk.names import Names
from v2v.vmdk.pieces import ZERO, Piece, Together, by_file, gather, joined
from v2v.vmdk.reads import Job, Reads
from v2v.vmdk.store import Store
from v2v.vmdk.tables import Cache

ZEROES = memoryview(bytes(MiB))
PIECES = 16384  # that are looked at together; some 3 MiB of memory


class Disk:
    """Several threads read at once. It closes nothing: the store does."""

    def __init__(self, layers: Sequence[Layer], reads: Reads) -> None:
        self._layers = layers
        self._reads = reads
        self.size = layers[0].size  # bytes
        found = {path: file for layer in layers for path, file in layer.files}
        self.files = tuple(found)  # real paths in the store, the descriptor's own first
        versions = [file.version for file in found.values()]
        self.version = " ".join(versions) if all(versions) else ""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, which must lie within the disk. SourceError."""
        self._check(offset, len(buffer))
        found = self._pieces(offset, offset + len(buffer))
        while some := list(islice(found, PIECES)):
            self._reads.run(_jobs(some, offset, buffer, self._reads.gap))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What is known to be zero without reading it, as VDDK's "query allocated blocks" tells;
        covers the range. SourceError."""
        self._check(offset, length)
        return merge(self._extents(offset, offset + length))

    def _extents(self, start: int, end: int) -> Iterator[Extent]:
        holes: dict[Flat, Holes] = {}
        for piece in self._pieces(start, end):
            if isinstance(piece.part, Flat) and piece.place >= 0:
                known = holes.get(piece.part) or holes.setdefault(
                    piece.part, Holes(piece.part, end)
                )
                yield from known.within(piece.start, piece.end)
            else:
                yield Extent(piece.start, piece.end - piece.start, piece.place == ZERO)

    def _pieces(self, start: int, end: int) -> Iterator[Piece]:
        return joined(pieces(self._layers, start, end))

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{length} bytes at {offset} of a disk of {self.size}")


def open_disk(store: Store, path: str, *, roots: Sequence[str] = ()) -> Disk:
    """The disk whose descriptor is at `path`, with all its parts and parents.

    `roots` are folders that its parents may be in, besides their children's own. SourceError.
    """
    reads = Reads(store.parallel)
    return Disk(open_chain(Names(store, roots), path, Cache(reads)), reads)


def _jobs(found: Sequence[Piece], offset: int, buffer: memoryview, gap: int) -> list[Job]:
    """The reads that fill the pieces' share of the buffer, which begins at `offset`. What needs no
    reading is filled at once."""
    wanted: list[Piece] = []
    for piece in found:
        out = buffer[piece.start - offset : piece.end - offset]
        if piece.place == ZERO:
            _clear(out)
        elif piece.part.plain or not piece.part.fill_known(piece, out):
            wanted.append(piece)
    return [
        partial(_read, together, offset, buffer)
        for ranges in by_file(wanted)
        for together in gather(ranges, gap)
    ]


def _read(together: Together[Piece], offset: int, buffer: memoryview) -> None:
    first = together.items[0]
    file = first.part.file
    if len(together.items) == 1 and first.part.plain:
        file.read_into(together.start, buffer[first.start - offset : first.end - offset])
        return
    end = min(together.end, file.size)
    raw = memoryview(bytearray(end - together.start))
    file.read_into(together.start, raw)
    for piece in together.items:
        at = piece.place - together.start
        length = piece.stored or piece.end - piece.start
        piece.part.fill(
            piece, raw[at : at + length], buffer[piece.start - offset : piece.end - offset]
        )


def _clear(out: memoryview) -> None:
    for at in range(0, len(out), len(ZEROES)):
        length = min(len(ZEROES), len(out) - at)
        out[at : at + length] = ZEROES[:length]
