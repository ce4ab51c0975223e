"""Parts of a disk whose blocks ("grains") are found through tables: a directory tells where these
are. Tables are read when they are needed, checked, and kept as runs within a bound of memory.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from threading import Lock

from v2v.image.reader import corrupt, exactly, truncated
from v2v.types import GiB, KiB, MiB
from v2v.vmdk.pieces import NOWHERE, Part, Piece, Together, gather
from v2v.vmdk.reads import Reads
from v2v.vmdk.runs import OddEntryError, Runs
from v2v.vmdk.store import File

CACHE = 64 * MiB  # memory for the tables of one disk
DIRECTORIES = GiB  # and for its directories: 31 MiB for each of 32 snapshots of 62 TiB
AT_ONCE = 4 * MiB  # bytes of tables that are asked for together, if so many are needed
AHEAD = 256 * KiB  # and of those that merely follow in the file: they cost no round trip


@dataclass(frozen=True, slots=True)
class Layout:
    """How the tables of a part are, in bytes."""

    directory: array[int]  # bytes of the file where the tables begin, 0 where there is none
    table: int  # bytes of one
    entries: int  # of a table
    grain: int
    capacity: int  # bytes of disk that the file has tables for
    decode: Callable[[bytes, int], Runs]  # a table, and how many of its entries are of the disk


class Tables(Part):
    def __init__(self, file: File, start: int, end: int, layout: Layout, cache: Cache) -> None:
        super().__init__(file, start, end)
        cache.hold(file, layout)
        self.layout = layout
        self._cache = cache
        self._span = layout.entries * layout.grain  # bytes of disk of one table
        self.tables = -(-layout.capacity // self._span)  # the directory may have more

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        last = (end - 1 - self.start) // self._span
        while start < end:
            number = (start - self.start) // self._span
            if self.layout.directory[number]:
                stop = min(end, self.start + (number + 1) * self._span)
                runs = self._cache.runs(self, number, last)
                yield from self._within(runs, self.start + number * self._span, start, stop)
            else:
                stop = min(end, self.start + self._next_table(number, last) * self._span)
                yield Piece(start, stop, self, NOWHERE)
            start = stop

    def _next_table(self, number: int, last: int) -> int:
        directory = self.layout.directory
        number += 1
        while number <= last and not directory[number]:
            number += 1
        return number

    def _within(self, runs: Runs, base: int, start: int, end: int) -> Iterator[Piece]:
        """The range, which is in the table of the disk's bytes from `base`."""
        grain, firsts, places = self.layout.grain, runs.firsts, runs.places
        at = bisect_right(firsts, (start - base) // grain) - 1
        while start < end:
            place = places[at]
            if place >= 0 and self.plain:
                place += start - base - firsts[at] * grain
            stop = min(end, base + firsts[at + 1] * grain)
            yield Piece(start, stop, self, place, runs.stored[at] if runs.stored else 0)
            start = stop
            at += 1

    def read_tables(self, numbers: Together[int]) -> Iterator[tuple[int, Runs | Exception]]:
        """The tables of a range of the file; of a damaged one the error."""
        raw = exactly(self.file, numbers.start, numbers.end - numbers.start, "a grain table")
        for number in numbers.items:
            at = self.layout.directory[number] - numbers.start
            yield number, self._checked(raw[at : at + self.layout.table], number)

    def _checked(self, raw: bytes, number: int) -> Runs | Exception:
        layout = self.layout
        left = layout.capacity - number * self._span
        count = min(layout.entries, -(-left // layout.grain))
        try:
            runs = layout.decode(raw, count)
        except OddEntryError:
            return corrupt(self.file, "an odd entry in a grain table")
        end = self._data_end(runs, left)
        return truncated(self.file, "the data", end) if end > self.file.size else runs

    def _data_end(self, runs: Runs, left: int) -> int:
        """The byte of the file where the grains of a table end; the last may end with the disk."""
        if not self.plain:
            return max(runs.places) + 1
        grain, end = self.layout.grain, 0
        for at, place in enumerate(runs.places):
            if place >= 0:
                first, behind = runs.firsts[at], min(runs.firsts[at + 1] * grain, left)
                end = max(end, place + behind - first * grain)
        return end


Key = tuple[Tables, int]


class Cache:
    """The tables of a disk that were used last. Threads that need the same one wait for one."""

    def __init__(self, reads: Reads, limit: int = CACHE, *, directories: int = DIRECTORIES) -> None:
        self._reads = reads
        self._limit = limit
        self._directories = directories  # bytes that more of them may take
        self._lock = Lock()
        self._kept: OrderedDict[Key, Runs] = OrderedDict()
        self._cost = 0
        self._loading: dict[Key, Future[Runs]] = {}

    def hold(self, file: File, layout: Layout) -> None:
        """Before the directory of one more part of the disk is kept. A disk may have thousands of
        parts, and each may say that it is huge. SourceError."""
        self._directories -= len(layout.directory) * layout.directory.itemsize
        if self._directories < 0:
            raise corrupt(file, "with it, the disk has too many grain tables")

    def runs(self, part: Tables, number: int, last: int) -> Runs:
        """A table of the part; those up to `last` will be asked for next."""
        key = (part, number)
        with self._lock:
            if found := self._kept.get(key):
                self._kept.move_to_end(key)
                return found
            loading = self._loading.get(key)
            claims = {} if loading else self._claim(part, number, last)
        if claims:
            self._load(part, claims)
        return (loading or claims[number]).result()

    def _claim(self, part: Tables, number: int, last: int) -> dict[int, Future[Runs]]:
        """What this thread is to load: `number` and what may as well be read now."""
        directory, length = part.layout.directory, part.layout.table
        claims: dict[int, Future[Runs]] = {}
        behind = 0  # where the last table ends
        for at in range(number, part.tables):
            place, claimed = directory[at], len(claims) * length
            if claimed >= AT_ONCE or (at > last and (place != behind or claimed >= AHEAD)):
                break
            key = (part, at)
            if place and key not in self._kept and key not in self._loading:
                claims[at] = self._loading[key] = Future()
            behind = place + length
        return claims

    def _load(self, part: Tables, claims: dict[int, Future[Runs]]) -> None:
        layout = part.layout
        places = ((layout.directory[n], layout.directory[n] + layout.table, n) for n in claims)
        jobs = [
            partial(self._read, part, claims, numbers)
            for numbers in gather(places, self._reads.gap)
        ]
        try:
            self._reads.run(jobs)
        except BaseException as exc:
            for future in claims.values():
                if not future.done():
                    future.set_exception(exc)
            raise
        finally:
            with self._lock:
                for number in claims:
                    del self._loading[part, number]

    def _read(self, part: Tables, claims: dict[int, Future[Runs]], numbers: Together[int]) -> None:
        for number, found in part.read_tables(numbers):
            if isinstance(found, Runs):
                self._keep((part, number), found)
                claims[number].set_result(found)
            else:
                claims[number].set_exception(found)

    def _keep(self, key: Key, runs: Runs) -> None:
        with self._lock:
            self._kept[key] = runs
            self._cost += runs.cost
            while self._cost > self._limit and len(self._kept) > 1:
                _, gone = self._kept.popitem(last=False)
                self._cost -= gone.cost
