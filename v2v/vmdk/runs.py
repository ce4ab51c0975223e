"""What a grain table says, as runs of grains that are side by side. Arithmetic only.

A table is gone through once, when it is read. Afterwards a range of any length costs as much as it
has runs, and a disk whose data is in one piece as little as a flat one.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass

from v2v.image.formats import SECTOR
from v2v.image.vmdk_sesparse import GRAIN_BYTES, USED, grain_number
from v2v.vmdk.pieces import NOWHERE, ZERO

NEXT_GRAIN = 1 << 48  # the lowest twelve bits of a grain's number are above its others


FAR = 1 << 62  # a byte that no file has, and that an array holds


class OddEntryError(ValueError):
    """An entry that no table has."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Run n is of the grains [firsts[n], firsts[n + 1]); the first of them is at places[n]."""

    firsts: array[int]  # numbers of grains of the table; the last is where the table ends
    places: array[int]  # bytes of the file, or NOWHERE, or ZERO
    stored: array[int] | None = None  # bytes that a packed grain has in the file, at most

    @property
    def cost(self) -> int:
        """About how many bytes of memory they take."""
        return 512 + 24 * len(self.firsts)


class _Builder:
    def __init__(self, grain: int, *, apart: bool = False) -> None:
        self.grain, self.apart = grain, apart
        self.firsts, self.places = array("I"), array("q")

    def add(self, first: int, place: int) -> None:
        """A run from grain `first`, which may be no more than the last one going on."""
        if not self.places or place != self._next(first) or (self.apart and place >= 0):
            self.firsts.append(first)
            self.places.append(place)

    def _next(self, first: int) -> int:
        last = self.places[-1]
        return last if last < 0 else last + (first - self.firsts[-1]) * self.grain

    def runs(self, count: int) -> Runs:
        self.firsts.append(count)
        return Runs(self.firsts, self.places)


def sector_runs(raw: bytes, count: int, grain: int, *, zero: bool, apart: bool = False) -> Runs:
    """A table of 32-bit numbers of sectors, of which the first `count` are of the disk.

    `grain` is in sectors. 0 is no grain; `zero`: 1 is a grain of zeroes. `apart`: each grain is a
    run of its own. Raises OddEntryError.
    """
    built = _Builder(grain * SECTOR, apart=apart)
    expected = step = -1
    for index, entry in enumerate(_numbers("I", raw, count)):
        if entry == expected:
            expected += step
            continue
        if entry > 1:
            built.add(index, entry * SECTOR)
            step = grain
        elif entry == 1 and not zero:
            raise OddEntryError
        else:
            built.add(index, ZERO if entry else NOWHERE)
            step = 0
        expected = -1 if apart and entry > 1 else entry + step
    return built.runs(count)


def sesparse_runs(raw: bytes, count: int, grains: int) -> Runs:
    """A table of seSparse; `grains` is the byte where the first grain is. Raises OddEntryError."""
    entries = _numbers("Q", raw, count)
    if max(entries) >> 60 > USED:
        raise OddEntryError
    built = _Builder(GRAIN_BYTES)
    expected = step = -1
    for index, entry in enumerate(entries):
        if entry == expected:
            expected += step
            continue
        if entry >> 60 == USED:
            built.add(index, min(grains + grain_number(entry) * GRAIN_BYTES, FAR))
            step = NEXT_GRAIN
        elif entry >> 60 or not entry:
            built.add(index, ZERO if entry else NOWHERE)
            step = 0
        else:
            raise OddEntryError
        expected = entry + step
    return built.runs(count)


def _numbers(code: str, raw: bytes, count: int) -> array[int]:
    numbers = array(code, raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers[:count]
