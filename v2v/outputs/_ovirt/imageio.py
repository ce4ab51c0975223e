"""Disks behind an ovirt-imageio daemon: long PUTs, fed by what the engine reads."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from v2v.cancel import Cancel
from v2v.copy.sinks import Feed, Pool, SinkLost
from v2v.errors import TargetError, V2VError
from v2v.extents import Extent
from v2v.outputs._ovirt.daemon import Connection
from v2v.outputs._ovirt.places import Transfer
from v2v.types import KiB, MiB

# Bytes per PUT, measured with 512 MiB of data to a daemon on the same two cores, over TLS, seconds:
#                          1 MiB   8 MiB  32 MiB  128 MiB  512 MiB
# qcow2                     1.14    0.98    0.95     0.97     0.99
# qcow2, 20 ms away         7.41    1.87    1.39     1.38     1.37
# A PUT costs the client and the daemon 0.9 ms of processor time, and a round trip. Longer ones than
# this bring little, leave connections idle at the end of a disk, and are longer to send again.
REQUEST = 32 * MiB
CONNECTIONS = 4  # 1, 2, 4, 8 took 1.16, 0.97, 0.94, 1.03 s
# A hole that is worth another PUT: what its zeroes cost, and half a round trip. Shorter ones are
# sent with the data, and take space: the daemon writes much at a time, only all zeroes are noticed.
GRAIN = 1 * MiB
BLOCK = 64 * KiB  # a cluster of qcow2; the daemon reads and writes again what shares a block
ZERO_MAXIMUM = 128 * MiB  # what storage must zero without an answer in between
READ_MAXIMUM = 8 * MiB
KEEP_SECONDS = 600.0  # between two signs of life

log = logging.getLogger(__name__)


class ImageioSink:
    """The disk of one transfer. No answer for `stall` seconds is SinkLost."""

    ordered = False
    max_request = 1 << 62
    alignment = BLOCK
    zero_grain = GRAIN

    def __init__(
        self, transfer: Transfer, *, is_zero: bool, stall: float, cancel: Cancel, request_size: int
    ) -> None:
        self.request_size: int | None = request_size
        self.is_zero = is_zero
        self._transfer = transfer
        self._stall = stall
        self._cancel = cancel
        probe = self._connect()
        probe.close()
        self._transfer = probe.transfer  # with the address that works
        self.workers = min(probe.max_writers, CONNECTIONS)
        self._pool = Pool(self._connect, self.workers, cancel)

    def write_from(self, reader: Feed, offset: int, length: int) -> None:
        with self._pool.any() as connection:
            connection.write(reader, offset, length)

    def write(self, offset: int, buffer: memoryview) -> None:
        self.write_from(_Bytes(buffer), offset, len(buffer))

    def zero(self, offset: int, length: int) -> None:
        end = offset + length
        with self._pool.any() as connection:
            while offset < end:
                step = min(end - offset, ZERO_MAXIMUM)
                connection.zero(offset, step)
                offset += step

    def flush(self) -> None:
        with self._pool.first() as connection:
            connection.flush()

    def read_back(self, offset: int, buffer: memoryview) -> None:
        with self._pool.any() as connection:
            connection.read(offset, buffer)

    def extents(self) -> Iterator[Extent]:
        """Asked for on a connection of its own, whose client remembers nothing."""
        connection = self._connect()
        try:
            found = connection.extents()
        finally:
            connection.close()
        position = 0
        for extent in found:
            if extent.start != position or extent.length <= 0:
                raise SinkLost(
                    errno.EPROTO, "the imageio daemon's extents do not follow each other"
                )
            yield Extent(extent.start, extent.length, zero=bool(extent.zero))
            position += extent.length

    def touch(self) -> None:
        """Show that the disk is not forgotten: the daemon counts that it is asked what it can do,
        with which a client begins. The connections that write are left alone."""
        self._connect().close()

    def reopen(self) -> None:
        self._pool.reopen()

    def close(self) -> None:
        """What counts was flushed."""
        self._pool.close()

    def hang_up(self) -> None:
        """Break all requests, from any thread."""
        self._pool.hang_up()

    def _connect(self, seconds: float | None = None) -> Connection:
        """A daemon takes a connection or refuses it, and so needs no limit of `seconds`."""
        return Connection(self._transfer, stall=self._stall, cancel=self._cancel)


class _Bytes:
    """A buffer as a feed."""

    def __init__(self, buffer: memoryview) -> None:
        self._rest = buffer

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


@contextmanager
def imageio_sink(
    transfer: Transfer,
    *,
    is_zero: bool,
    stall: float,
    cancel: Cancel,
    request_size: int = REQUEST,
) -> Iterator[ImageioSink]:
    """Open a transfer for writing.

    `is_zero`: the disk is known to read as zeroes. Raises TargetError: target-unreachable,
    target-untrusted, transfer-ended.
    """
    try:
        sink = ImageioSink(
            transfer, is_zero=is_zero, stall=stall, cancel=cancel, request_size=request_size
        )
    except OSError as exc:
        raise TargetError(
            f"cannot write to {_place(transfer)}: {exc.strerror}",
            id="target-unreachable",
            hint="v2v needs port 54322 of the oVirt host, or of the engine as a proxy",
        ) from exc
    try:
        with cancel.calling(sink.hang_up), _kept(sink):
            yield sink
    finally:
        sink.close()


@contextmanager
def _kept(sink: ImageioSink) -> Iterator[None]:
    """The engine pauses a transfer to which nothing is sent for long, and a disk may wait for long:
    while the guest is converted, or others of its disks are copied."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(KEEP_SECONDS):
            try:
                sink.touch()
            except (OSError, V2VError) as exc:  # who writes next is told, if it lasts
                log.info("a transfer cannot be kept open: %s", exc)

    thread = threading.Thread(target=keep, name="imageio keep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _place(transfer: Transfer) -> str:
    """Without the path, whose last part opens the transfer to anybody."""
    return " or ".join(
        url.partition("/images/")[0] for url in (transfer.url, transfer.proxy_url) if url
    )
