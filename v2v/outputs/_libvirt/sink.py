"""A volume that is written and read through libvirt: virStorageVolUpload, virStorageVolDownload.

https://libvirt.org/html/libvirt-libvirt-storage.html. An upload is one range of the volume; holes
are left out of it, so that the ranges between need no flag for sparse streams, with which a daemon
cuts a file off behind a hole.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from v2v.cancel import Cancel
from v2v.copy.sinks import Feed, SinkLost
from v2v.extents import Extent
from v2v.libvirt_connection import LibvirtHost, binding
from v2v.outputs._libvirt.facts import find_pool
from v2v.outputs._libvirt.session import Session
from v2v.outputs._libvirt.volumes import Volume
from v2v.types import GiB, KiB, MiB

T = TypeVar("T")

# Bytes of an upload, measured with libvirtd on the same host, MiB/s:
#   256 KiB   1 MiB   4 MiB   16 MiB   64 MiB   256 MiB
#        61     181     201      842      843       473
# Each one takes 4 ms, and has libvirt look through the pool once more.
UPLOAD_REQUEST = 64 * MiB
HOLE = 1 * MiB  # shorter ones are sent as zeroes: they cost less than another upload
PACKET = 256 * KiB - 24  # what every daemon takes at once: VIR_NET_MESSAGE_LEGACY_PAYLOAD_MAX
BLOCK = 4 * MiB  # handed over to the session's thread at once
MAXIMUM = 1 * GiB
PIECE = 512  # bytes that are read back, of each upload


class VolumeSink:
    """A streaming sink. One request at a time: libvirt refuses a second upload to a volume."""

    request_size: int | None = UPLOAD_REQUEST
    max_request = MAXIMUM
    alignment = 1
    zero_grain = HOLE
    workers = 1
    ordered = True

    def __init__(
        self, host: LibvirtHost, volume: Volume, *, is_zero: bool, stall: float, cancel: Cancel
    ) -> None:
        self.is_zero = is_zero
        self._libvirt = binding()
        self._host = host
        self._volume = volume
        self._stall = stall
        self._cancel = cancel
        self._session = self._connect()

    def write(self, offset: int, buffer: memoryview) -> None:
        position = 0

        def give(length: int) -> memoryview:
            nonlocal position
            position += length
            return buffer[position - length : position]

        self._upload(offset, len(buffer), give)

    def write_from(self, reader: Feed, offset: int, length: int) -> None:
        block = memoryview(bytearray(min(BLOCK, length)))

        def give(count: int) -> memoryview:
            filled = 0
            while filled < count:
                got = reader.readinto(block[filled:count])
                if got == 0:
                    raise OSError(errno.EIO, "the source ended too early")
                filled += got
            return block[:count]

        self._upload(offset, length, give)

    def zero(self, offset: int, length: int) -> None:
        zeroes = memoryview(bytes(min(BLOCK, length)))
        self._upload(offset, length, lambda count: zeroes[:count])

    def flush(self) -> None:
        """Every write has ended with the daemon's word that it is written, and was looked at."""

    def read_back(self, offset: int, buffer: memoryview) -> None:
        def receive(connection: Any) -> None:
            stream = connection.newStream(0)
            self._find(connection).download(stream, offset, len(buffer), 0)
            filled = 0
            while filled < len(buffer):
                got = stream.recv(min(PACKET, len(buffer) - filled))
                if not got:
                    raise OSError(errno.EIO, f"the volume ends at byte {offset + filled}")
                buffer[filled : filled + len(got)] = got
                filled += len(got)
            stream.finish()

        self._call(receive)

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self._volume.size)

    def reopen(self) -> None:
        self._session.give_up()
        self._session = self._connect()
        self._call(self._find)

    def close(self) -> None:
        self._session.close()

    def _connect(self) -> Session:
        return Session(self._host, stall=self._stall, cancel=self._cancel)

    def _find(self, connection: Any) -> Any:
        pool = find_pool(self._libvirt, connection, self._volume.pool)
        return pool.storageVolLookupByName(self._volume.name)

    def _upload(self, offset: int, length: int, give: Callable[[int], memoryview]) -> None:
        """`give` gives the next bytes, as many as it is asked for."""

        def begin(connection: Any) -> Any:
            stream = connection.newStream(0)
            self._find(connection).upload(stream, offset, length, 0)
            return stream

        stream = self._call(begin)
        last = Extent(offset, 0), b""  # what was sent last that is not all zeroes
        tail = last
        try:
            position, end = offset, offset + length
            while position < end:
                block = give(min(BLOCK, end - position))
                self._call(partial(_send, stream, block))
                last = _not_zero(position, block) or last
                position += len(block)
                tail = _piece(position, block[-PIECE:])
            self._call(lambda _: stream.finish())
        except BaseException:
            self._abort(stream)
            raise
        self._check(*last)
        if tail != last:
            self._check(*tail)

    def _check(self, place: Extent, sent: bytes) -> None:
        """A daemon stops to write at its first error, as a full pool, and may forget to tell of it:
        libvirt 9.0 does for 2 of 100 on a busy machine. Then what came last is not there."""
        found = bytearray(place.length)
        if found:
            self.read_back(place.offset, memoryview(found))
        if found != sent:
            raise SinkLost(
                errno.EIO, f"libvirt did not write all up to byte {place.end}, and told no error"
            )

    def _abort(self, stream: Any) -> None:
        """End it at the daemon as well: it takes no other upload before."""

        self._session.post(lambda _: stream.abort())  # what went wrong is being raised

    def _call(self, action: Callable[[Any], T]) -> T:
        try:
            return self._session.call(action)
        except (TimeoutError, ConnectionError) as exc:
            raise SinkLost(exc.errno, exc.strerror) from exc
        except self._libvirt.libvirtError as exc:
            raise self._failure(exc) from exc

    def _failure(self, exc: Any) -> OSError:
        text = str(exc)
        if "No space left" in text or exc.get_int1() == errno.ENOSPC:
            return OSError(errno.ENOSPC, text)
        if exc.get_error_code() == self._libvirt.VIR_ERR_OPERATION_INVALID or not self._is_alive():
            # Busy with the upload of a connection that broke, or gone.
            return SinkLost(errno.ENOTCONN, text)
        return OSError(errno.EIO, text)

    def _is_alive(self) -> bool:
        try:
            return bool(self._session.call(lambda connection: connection.isAlive()))
        except (TimeoutError, ConnectionError, self._libvirt.libvirtError):
            return False


def _not_zero(position: int, block: memoryview) -> tuple[Extent, bytes] | None:
    """The last piece of a block that is not all zeroes; `position` is the block's."""
    tail = block[-PIECE:]
    end = len(block) if any(tail) else len(bytes(block).rstrip(b"\0"))
    return _piece(position + end, block[max(end - PIECE, 0) : end]) if end else None


def _piece(end: int, content: memoryview) -> tuple[Extent, bytes]:
    return Extent(end - len(content), len(content)), bytes(content)


def _send(stream: Any, block: memoryview, connection: Any) -> None:
    data = bytes(block)
    for start in range(0, len(data), PACKET):
        packet = data[start : start + PACKET]
        while packet:
            packet = packet[stream.send(packet) :]
