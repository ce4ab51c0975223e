"""Copies one disk: reads data from an endpoint, many requests in flight, and writes it to a sink.

Holes and ranges known to be zero are never read; they are zeroed on the target only when it is not
known to be zero already.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from v2v import nbd_client
from v2v.cancel import Cancel
from v2v.copy.plan import Step, Write, plan, request_size
from v2v.copy.reader import Reader, open_reader
from v2v.copy.sinks import Sink
from v2v.endpoint import Endpoint
from v2v.errors import CopyError
from v2v.extents import data_bytes
from v2v.types import CopyResult, MiB

MEMORY = 64 * MiB  # for the data of one disk's requests in flight
IN_FLIGHT = 16  # writes being filled at once; qemu-nbd works on as many requests of a client
REQUEST = 1 * MiB  # bytes per write where the sink has no preference
POLL_SECONDS = 0.2  # the longest a cancelled copy waits for a silent source
PROGRESS_SECONDS = 0.2

Progress: TypeAlias = Callable[[int, int], None]  # bytes done, bytes that hold data


def measure(endpoint: Endpoint, cancel: Cancel | None = None) -> int:
    """How many bytes of the disk hold data."""
    return data_bytes(nbd_client.extents(endpoint, cancel=cancel))


def copy_disk(
    disk: int, endpoint: Endpoint, sink: Sink, *, cancel: Cancel, progress: Progress
) -> CopyResult:
    """Copy disk number `disk` (from 0) and flush the target.

    `progress` is called a few times a second and once at the end. Raises CopyError, naming the
    disk and the range, and Cancelled.
    """
    started = time.monotonic()
    meter = _Meter(measure(endpoint, cancel), progress)
    with open_reader(endpoint) as reader:
        copier = _Copier(disk, reader, sink, cancel, meter)
        copier.copy(endpoint.size)
    with _naming(disk, "flush", 0, endpoint.size):
        sink.flush()
    meter.finish()
    return CopyResult(
        disk=disk,
        size=endpoint.size,
        data=meter.done,
        zero=endpoint.size - meter.done,
        seconds=time.monotonic() - started,
    )


class _Meter:
    """Counts bytes and tells of them, not too often."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.done = 0
        self._total = total
        self._progress = progress
        self._told = time.monotonic()

    def add(self, length: int) -> None:
        self.done += length
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            self._progress(self.done, self._total)

    def finish(self) -> None:
        self._progress(self.done, self._total)


class _Filling:
    """A write whose reads are under way, and the memory that they fill."""

    def __init__(self, write: Write, buffer: memoryview) -> None:
        self.write = write
        self.buffer = buffer
        self.missing = len(write.reads)

    def view(self, offset: int, length: int) -> memoryview:
        start = offset - self.write.offset
        return self.buffer[start : start + length]


class _Copier:
    """The requests in flight of one disk. Writes happen in whatever order their reads end."""

    def __init__(
        self, disk: int, reader: Reader, sink: Sink, cancel: Cancel, meter: _Meter
    ) -> None:
        self._disk = disk
        self._reader = reader
        self._sink = sink
        self._cancel = cancel
        self._meter = meter
        maximum = min(sink.max_request, MEMORY // 2)
        self._request = request_size(
            sink.request_size, REQUEST, maximum=maximum, alignment=sink.alignment
        )
        count = min(max(MEMORY // self._request, 1), IN_FLIGHT)
        self._free = [memoryview(bytearray(self._request)) for _ in range(count)]
        self._count = count
        self._full: deque[_Filling] = deque()
        self._error: CopyError | None = None

    def copy(self, size: int) -> None:
        steps = plan(
            self._reader.extents(self._cancel),
            size,
            request=self._request,
            maximum_read=self._reader.maximum,
            alignment=self._sink.alignment,
        )
        for step in steps:
            self._cancel.check()
            self._do(step)
        self._drain(self._count)

    def _do(self, step: Step) -> None:
        if isinstance(step, Write):
            self._drain(1)
            self._start(_Filling(step, self._free.pop()))
        elif not self._sink.is_zero:
            with _naming(self._disk, "zero", step.offset, step.length):
                self._sink.zero(step.offset, step.length)

    def _start(self, filling: _Filling) -> None:
        for gap in filling.write.gaps():
            filling.view(gap.offset, gap.length)[:] = bytes(gap.length)
        for read in filling.write.reads:
            with _naming(self._disk, "read", read.offset, read.length):
                view = filling.view(read.offset, read.length)
                self._reader.read(
                    read.offset, view, self._when_read(filling, read.offset, len(view))
                )

    def _when_read(
        self, filling: _Filling, offset: int, length: int
    ) -> Callable[[OSError | None], None]:
        def done(error: OSError | None) -> None:
            filling.missing -= 1
            if error is not None:
                self._error = self._error or _failure(self._disk, "read", offset, length, error)
            elif filling.missing == 0:
                self._full.append(filling)

        return done

    def _drain(self, free: int) -> None:
        """Write what is full, and wait for more to be, until `free` buffers are free."""
        while True:
            if self._error is not None:
                raise self._error
            while self._full:
                self._cancel.check()
                self._finish(self._full.popleft())
            if len(self._free) >= free:
                return
            self._cancel.check()
            self._reader.wait(POLL_SECONDS)

    def _finish(self, filling: _Filling) -> None:
        write = filling.write
        with _naming(self._disk, "write", write.offset, write.length):
            self._sink.write(write.offset, filling.buffer[: write.length])
        self._free.append(filling.buffer)
        self._meter.add(data_bytes(write.reads))


@contextmanager
def _naming(disk: int, verb: str, offset: int, length: int) -> Iterator[None]:
    """Turn a system error into one that names the disk and the range."""
    try:
        yield
    except OSError as exc:
        raise _failure(disk, verb, offset, length, exc) from exc


def _failure(disk: int, verb: str, offset: int, length: int, error: OSError) -> CopyError:
    cause = error.strerror or str(error)
    where = f"bytes {offset} to {offset + length - 1}"
    message = f"disk {disk + 1}: cannot {verb} {where}: {cause}"
    if verb != "read" and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CopyError(
            message, id="target-full", hint="make room on the target, then `v2v resume` the job"
        )
    return CopyError(
        message,
        id="copy-read" if verb == "read" else "copy-write",
        hint="the job can be continued with `v2v resume` when that is repaired",
    )
