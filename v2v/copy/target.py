"""One disk's sink, and what is remembered of it: what was written, what of that is durable."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from v2v.cancel import Cancel
from v2v.copy.digests import CHUNK, Digests
from v2v.copy.failures import failure, naming
from v2v.copy.fetch import RETRY_SECONDS
from v2v.copy.ledger import Ledger
from v2v.copy.plan import Unit
from v2v.copy.sinks import Feed, FileSink, Sink, SinkLost, StreamingSink
from v2v.copy.zeroes import pieces, runs
from v2v.extents import Extent, Ranges, data_bytes, split
from v2v.types import MiB

CHECKPOINT = 256 * MiB  # written: then what was written is flushed and recorded
CHECKPOINT_SECONDS = 30.0  # or so long after the last time: some links are slow
UNRECORDED = 512 * MiB  # written at most before it is; what a killed copy reads again
POLL_SECONDS = 0.2


@dataclass
class Tally:
    """What a disk's copy took. For any number of threads."""

    data: int = 0
    found_zero: int = 0
    by_kernel: int = 0
    retries: int = 0
    connections: int = 1
    read_size: int = 0
    write_size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, **values: int) -> None:
        with self.lock:
            for name, value in values.items():
                setattr(self, name, getattr(self, name) + value)

    def raise_to(self, **values: int) -> None:
        with self.lock:
            for name, value in values.items():
                setattr(self, name, max(getattr(self, name), value))


class Target:
    """For all threads that copy one disk. `request` is the most bytes of one write."""

    def __init__(
        self,
        disk: int,
        size: int,
        sink: Sink,
        ledger: Ledger,
        digests: Digests | None,
        *,
        request: int,
    ) -> None:
        self.sink = sink
        self.digests = digests
        self.tally = Tally()
        self.written = ledger.touched()  # by earlier passes
        self._disk = disk
        self._size = size
        self._ledger = ledger
        self.request = request
        self._stop = Cancel()
        self._blank = sink.is_zero  # what was not written reads as zeroes
        self._phase = ""
        self._pending = Ranges()  # written since the last flush began
        self._pending_bytes = 0
        self._flushing_bytes = 0
        self._changed = threading.Condition()
        self._flushing = False
        self._checked = time.monotonic()  # when the last flush ended

    def begin(self, phase: str, stop: Cancel) -> None:
        """A pass begins, which `stop` ends; nothing of an earlier one is unrecorded."""
        self._phase = phase
        self._stop = stop
        self.written = self._ledger.touched()

    def lost(self) -> None:
        """What was not flushed may be there or not."""
        self._blank = False
        with self._changed:
            self._pending, self._pending_bytes = Ranges(), 0

    def fill(self, unit: Unit, buffer: memoryview) -> None:
        """Prepare a buffer for a unit: holes that may be written with the data are zeroes."""
        edge = self.sink.alignment  # what of a hole shares a block of the sink with data
        for extent in unit.extents:
            if not extent.zero:
                continue
            start, end = extent.offset - unit.offset, extent.end - unit.offset
            if self.digests is not None or extent.length < self.sink.zero_grain + 2 * edge:
                buffer[start:end] = bytes(extent.length)
            elif edge > 1:
                buffer[start : start + edge] = buffer[end - edge : end] = bytes(edge)

    def put(self, unit: Unit, buffer: memoryview, data: int) -> None:
        """Write a unit that was read, which has `data` bytes of data."""
        self.hash(unit, buffer)
        sink = self.sink
        found = pieces(
            unit, buffer, grain=sink.zero_grain, alignment=sink.alignment, size=self._size
        )
        for piece in found:
            if piece.zero:
                self._zero(piece)
            else:
                self._write(piece, unit.offset, buffer)
        self.tally.add(data=data, found_zero=max(data - data_bytes(found), 0))
        whole = sum(extent.length for extent in unit.extents) == unit.length
        self.done([Extent(unit.offset, unit.length)] if whole else unit.extents, data)

    def hash(self, unit: Unit, buffer: memoryview) -> None:
        """Note the digests of whole chunks that were read; those in gaps were not."""
        if self.digests is None:
            return
        for run in runs(unit.extents):
            start, end = run[0].offset, run[-1].end
            self.digests.put(start, buffer[start - unit.offset : end - unit.offset])

    def hash_zero(self, extent: Extent) -> None:
        """The same of whole chunks that are known to be zeroes."""
        if self.digests is not None:
            self.digests.put_zero(extent.offset, extent.length)

    def stream(self, sink: StreamingSink, request: Unit, feed: Feed, *, skipped: int) -> None:
        """One long request. The first `skipped` bytes are zeroes, which `feed` does not give."""
        if skipped:
            self._zero(Extent(request.offset, skipped, zero=True))
        offset, length = request.offset + skipped, request.length - skipped
        if length:
            with naming(self._disk, "write", offset, length):
                sink.write_from(feed, offset, length)
                if feed.readinto(memoryview(bytearray(1))):
                    raise OSError(errno.EIO, "the target has not taken all of it")
            self.tally.raise_to(write_size=length)
        data = data_bytes(request.extents)
        self.tally.add(data=data)
        self.done(request.extents, data)

    def clone(self, fd: int, extent: Extent) -> bool:
        """Have the kernel copy data from a raw file; False: it cannot."""
        if not isinstance(self.sink, FileSink):
            return False
        with naming(self._disk, "copy", extent.offset, extent.length):
            if not self.sink.clone(fd, extent.offset, extent.length):
                return False
        self.tally.add(data=extent.length, by_kernel=extent.length)
        self.done([extent], extent.length)
        return True

    def zero(self, extent: Extent) -> None:
        """Make a hole of the source read as zeroes."""
        self.hash_zero(extent)
        self._zero(extent)
        self.done([extent], 0)

    def done(self, extents: Iterable[Extent], data: int) -> None:
        """These ranges are on the target; flush and record when much was written."""
        with self._changed:
            while self._flushing and self._pending_bytes + self._flushing_bytes >= UNRECORDED:
                self._stop.check()
                self._changed.wait(POLL_SECONDS)
            self._pending.update(extents)
            self._pending_bytes += data
            due = time.monotonic() - self._checked >= CHECKPOINT_SECONDS
            if self._flushing or not (due or self._pending_bytes >= CHECKPOINT):
                return
            self._flushing = True
        self._checkpoint()

    def checkpoint(self) -> None:
        """Make all that was written durable, and record it. Nobody writes meanwhile."""
        self._flushing = True
        self._checkpoint()

    def _checkpoint(self) -> None:
        with self._changed:
            pending, self._pending = self._pending, Ranges()
            self._flushing_bytes, self._pending_bytes = self._pending_bytes, 0
        try:
            with naming(self._disk, "flush", 0, self._size):
                self.sink.flush()
            if pending:
                if self.digests is not None:
                    self.digests.sync()
                self._ledger.record(self._phase, pending)
        finally:
            with self._changed:
                self._checked = time.monotonic()
                self._flushing, self._flushing_bytes = False, 0
                self._changed.notify_all()

    def _zero(self, extent: Extent) -> None:
        """Zero what may hold something else."""
        if self._blank and not self.written:
            return
        parts = self.written.within(extent) if self._blank else [extent]
        for part in parts:
            self._again("zero", part.offset, part.length, self.sink.zero, part.offset, part.length)

    def _write(self, piece: Extent, base: int, buffer: memoryview) -> None:
        request = self.request
        single = piece.offset // request == (piece.end - 1) // request
        for part in (piece,) if single else split(piece, request):
            view = buffer[part.offset - base : part.end - base]
            self._again("write", part.offset, part.length, self.sink.write, part.offset, view)
            if part.length > self.tally.write_size:
                self.tally.raise_to(write_size=part.length)

    def _again(
        self, verb: str, offset: int, length: int, call: Callable[..., None], *arguments: object
    ) -> None:
        """Call the sink; a server's I/O error may pass."""
        for pause in (*RETRY_SECONDS, None):
            try:
                call(*arguments)
                return
            except SinkLost:
                raise
            except OSError as exc:
                if exc.errno != errno.EIO or pause is None:
                    raise failure(self._disk, verb, offset, length, exc) from exc
                self.tally.add(retries=1)
                self._stop.wait(pause)

    def alignment(self, block: int) -> int:
        """What the edges of units are multiples of, with a source of blocks of `block` bytes."""
        return max(self.sink.alignment, block, CHUNK if self.digests is not None else 1)
