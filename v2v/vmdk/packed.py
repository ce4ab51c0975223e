"""Grains that are compressed one by one, as in the disks of an OVA (streamOptimized).

Before each are 12 bytes: the sector of the disk where it belongs, and its length.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_right
from collections import OrderedDict
from threading import Lock

from v2v.errors import SourceError
from v2v.image.formats import SECTOR
from v2v.image.reader import corrupt, exactly
from v2v.types import KiB, MiB
from v2v.vmdk.pieces import Piece
from v2v.vmdk.runs import Runs, sector_runs
from v2v.vmdk.store import File
from v2v.vmdk.tables import Cache, Layout, Tables

MARKER = struct.Struct("<QI")
KEPT = 8 * MiB  # bytes of unpacked grains per extent: small reads of one grain follow one another
MAX_GRAIN = KEPT  # all of one is in memory, for each read that is under way; VMware's have 64 KiB


def packed_runs(raw: bytes, count: int, grain: int, *, zero: bool) -> Runs:
    """Each grain is a run of its own; it ends in the file where the next one begins, at most."""
    runs = sector_runs(raw, count, grain, zero=zero, apart=True)
    starts = sorted({place for place in runs.places if place >= 0})
    limit = _longest(grain * SECTOR)
    stored = array("I")
    for place in runs.places:
        behind = bisect_right(starts, place)
        room = starts[behind] - place if behind < len(starts) else limit
        stored.append(min(room, limit) if place >= 0 else 0)
    return Runs(runs.firsts, runs.places, stored)


def _longest(grain: int) -> int:
    """Bytes that a grain which cannot be compressed takes, and some more."""
    return MARKER.size + grain + grain // KiB + SECTOR


class Packed(Tables):
    plain = False

    def __init__(self, file: File, start: int, end: int, layout: Layout, cache: Cache) -> None:
        super().__init__(file, start, end, layout, cache)
        self._lock = Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()  # by number of the grain

    def fill_known(self, piece: Piece, out: memoryview) -> bool:
        number, within = divmod(piece.start - self.start, self.layout.grain)
        with self._lock:
            if (grain := self._kept.get(number)) is None:
                return False
            self._kept.move_to_end(number)
        out[:] = memoryview(grain)[within : within + len(out)]
        return True

    def fill(self, piece: Piece, raw: memoryview, out: memoryview) -> None:
        number, within = divmod(piece.start - self.start, self.layout.grain)
        grain = self._unpacked(number, piece.place, raw)
        out[:] = memoryview(grain)[within : within + len(out)]
        with self._lock:
            self._kept[number] = grain
            while len(self._kept) * self.layout.grain > KEPT:
                self._kept.popitem(last=False)

    def _unpacked(self, number: int, place: int, raw: memoryview) -> bytes:
        if len(raw) < MARKER.size:
            raise self._damaged(number, "its header is cut")
        sector, length = MARKER.unpack_from(raw)
        if sector * SECTOR != number * self.layout.grain:
            raise self._damaged(number, f"there is the one of sector {sector} instead")
        if not 0 < length <= _longest(self.layout.grain):
            raise self._damaged(number, f"it has {length} bytes")
        if MARKER.size + length > len(raw):
            raw = memoryview(exactly(self.file, place, MARKER.size + length, "a grain"))
        return self._inflated(number, raw[MARKER.size : MARKER.size + length])

    def _inflated(self, number: int, raw: memoryview) -> bytes:
        """Bounded: what unpacks to more than a grain is damaged."""
        grain = self.layout.grain
        unpacker = zlib.decompressobj()
        try:
            found = unpacker.decompress(raw, grain + 1)
        except zlib.error as exc:
            raise self._damaged(number, str(exc)) from exc
        wanted = min(grain, self.layout.capacity - number * grain)
        if not unpacker.eof or not wanted <= len(found) <= grain:
            raise self._damaged(number, f"it unpacks to {len(found)} bytes")
        return found

    def _damaged(self, number: int, why: str) -> SourceError:
        return corrupt(self.file, f"the compressed grain {number} is damaged: {why}")
