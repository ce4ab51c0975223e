"""Reading a target back, and comparing it with the digests of what was read from the source."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import compress
from random import SystemRandom

from v2v.cancel import Cancel
from v2v.copy.digests import CHUNK, Digests
from v2v.copy.progress import Meter
from v2v.copy.sinks import Sink
from v2v.errors import CopyError
from v2v.extents import Extent, clip, merge, widen

THREADS = 4  # each hashes 9 GB/s, so that the disks decide


def verify(
    sink: Sink,
    digests: Digests,
    size: int,
    *,
    fraction: float,
    cancel: Cancel,
    meter: Meter | None = None,
    disk: int = 0,
    only: Iterable[Extent] | None = None,
) -> list[Extent]:
    """The chunks of the target, joined, that differ from their digests.

    Holes of the target are not read; all of them are compared. Of the chunks that hold data the
    `fraction` (0 to 1) is read, chosen at random, and one at least. `only` looks at the chunks of
    these ranges alone. To be called after a flush. Raises CopyError verify-read when the target
    cannot be read, Cancelled.
    """
    maps = zip(_asked(only, size), _data(sink, size, disk), digests.zeroes(), strict=True)
    wrong = bytearray()  # one byte for each chunk, as in the maps
    read = bytearray()
    for asked, data, zero in maps:
        wrong.append(asked and not data and not zero)
        read.append(asked and data)
    chosen = _sample(read, fraction)
    if meter is not None:
        meter.begin("verify", sum(_extent(chunk, size).length for chunk in chosen))
    readers = min(sink.workers, THREADS, len(chosen))
    if readers:
        reading = _Reading(sink, digests, size, disk, chosen, cancel, meter)
        for chunk in reading.run(readers):
            wrong[chunk] = True
    if meter is not None:
        meter.finish()
    chunks = compress(range(len(wrong)), wrong)
    return list(merge(_extent(chunk, size) for chunk in chunks))


def _extent(chunk: int, size: int) -> Extent:
    return Extent(chunk * CHUNK, min(CHUNK, size - chunk * CHUNK))


def _asked(only: Iterable[Extent] | None, size: int) -> bytearray:
    """One byte for each chunk: 1 if it is to be looked at, else 0."""
    chunks = -(-size // CHUNK)
    if only is None:
        return bytearray(b"\1" * chunks)
    found = bytearray(chunks)
    for extent in widen(only, CHUNK, size):
        first, end = extent.offset // CHUNK, -(-extent.end // CHUNK)
        found[first:end] = b"\1" * (end - first)
    return found


def _data(sink: Sink, size: int, disk: int) -> bytearray:
    """One byte for each chunk: 0 if all of it is a hole of the target, else 1."""
    chunks = -(-size // CHUNK)
    found = bytearray(b"\1" * chunks)
    try:
        for extent in merge(clip(sink.extents(), 0, size)):
            if extent.zero:
                first = -(-extent.offset // CHUNK)
                end = chunks if extent.end == size else extent.end // CHUNK
                found[first:end] = bytes(max(end - first, 0))
    except OSError as exc:
        raise _unreadable(disk, Extent(0, size), exc) from exc
    return found


def _sample(read: bytearray, fraction: float) -> list[int]:
    """Some of these chunks, in disk order."""
    chunks = list(compress(range(len(read)), read))
    count = min(math.ceil(len(chunks) * fraction), len(chunks))
    return sorted(SystemRandom().sample(chunks, count)) if count < len(chunks) else chunks


class _Reading:
    """Threads that share one list of chunks. The first error ends all of them."""

    def __init__(
        self,
        sink: Sink,
        digests: Digests,
        size: int,
        disk: int,
        chunks: Iterable[int],
        cancel: Cancel,
        meter: Meter | None,
    ) -> None:
        self._sink, self._digests, self._meter = sink, digests, meter
        self._size, self._disk = size, disk
        self._cancel = cancel
        self._chunks = iter(chunks)
        self._lock = threading.Lock()
        self._stopped = False
        self._wrong: list[int] = []

    def run(self, readers: int) -> list[int]:
        """The chunks that differ."""
        with ThreadPoolExecutor(readers, "verify") as pool:
            futures = [pool.submit(self._work) for _ in range(readers)]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                self._stopped = True
        for future in futures:
            future.result()
        return self._wrong

    def _work(self) -> None:
        buffer = memoryview(bytearray(min(CHUNK, self._size)))
        while (chunk := self._next()) is not None:
            self._cancel.check()
            extent = _extent(chunk, self._size)
            view = buffer[: extent.length]
            self._read(extent, view)
            if not self._digests.matches(extent.offset, view):
                self._wrong.append(chunk)
            if self._meter is not None:
                self._meter.add(extent.length)

    def _next(self) -> int | None:
        with self._lock:
            return None if self._stopped else next(self._chunks, None)

    def _read(self, extent: Extent, view: memoryview) -> None:
        step = self._sink.max_request
        try:
            for start in range(0, extent.length, step):
                self._sink.read_back(extent.offset + start, view[start : start + step])
        except OSError as exc:
            raise _unreadable(self._disk, extent, exc) from exc


def _unreadable(disk: int, extent: Extent, error: OSError) -> CopyError:
    where = f"bytes {extent.offset} to {extent.end - 1}"
    return CopyError(
        f"disk {disk + 1}: the target cannot be read back at {where}: {error.strerror or error}",
        id="verify-read",
        hint="everything was written; the job can be continued with `v2v resume` when that is "
        "repaired",
    )
