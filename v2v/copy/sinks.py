"""What the copy engine writes to."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from typing import Any, Protocol

from v2v import nbd_client
from v2v.endpoint import Endpoint
from v2v.types import GiB, MiB

FILE_MAXIMUM = 1 * GiB  # Linux writes at most a little under 2 GiB at once
NBD_MAXIMUM = 32 * MiB  # what every NBD server takes
ZERO_BLOCK = 1 * MiB  # zeroes written at once where the filesystem cannot make them itself

# linux/falloc.h
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10


class Sink(Protocol):
    """One target disk, open for writing.

    Calls come from one thread at a time unless `workers` says more. Offsets and lengths are bytes;
    a write is never larger than `max_request`. Errors are raised as v2v.errors.CopyError or OSError
    and belong to the range of the call.
    """

    request_size: int | None  # preferred bytes per write; None: the engine's choice
    max_request: int  # the largest write it can take
    alignment: int  # writes start at multiples of it, and end there or at the end of the disk
    workers: int  # how many threads may call it at once
    is_zero: bool  # the whole disk is known to read as zeroes before the copy

    def write(self, offset: int, buffer: memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...

    def flush(self) -> None: ...


class FileSink:
    """A raw file or a block device, through an open descriptor that stays the caller's.

    `sparse` decides whether zeroed ranges give their space back or stay allocated.
    """

    max_request = FILE_MAXIMUM
    alignment = 1
    workers = 1

    def __init__(
        self, fd: int, *, request_size: int | None, is_zero: bool, sparse: bool = True
    ) -> None:
        self.request_size = request_size
        self.is_zero = is_zero
        self._fd = fd
        self._modes = (PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE) if sparse else (ZERO_RANGE,)

    def write(self, offset: int, buffer: memoryview) -> None:
        while buffer:
            written = os.pwrite(self._fd, buffer, offset)
            offset, buffer = offset + written, buffer[written:]

    def zero(self, offset: int, length: int) -> None:
        if not any(_fallocate(self._fd, mode, offset, length) for mode in self._modes):
            self._write_zeroes(offset, length)

    def _write_zeroes(self, offset: int, length: int) -> None:
        zeroes = memoryview(bytes(min(ZERO_BLOCK, length)))
        for start in range(offset, offset + length, ZERO_BLOCK):
            self.write(start, zeroes[: offset + length - start])

    def flush(self) -> None:
        os.fsync(self._fd)


class NbdSink:
    """A writable NBD export. `alignment` is for targets that want whole clusters.

    An export of whole blocks may be a little larger than the disk; the last block is filled up with
    zeroes.
    """

    workers = 1

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        request_size: int | None,
        is_zero: bool,
        alignment: int | None = None,
    ) -> None:
        import nbd

        self.request_size = request_size
        self.max_request = min(endpoint.maximum_block, NBD_MAXIMUM)
        self.alignment = max(endpoint.minimum_block, alignment or 1)
        self.is_zero = is_zero
        self._error = nbd.Error
        self._handle = nbd_client.connect(endpoint)
        self._can_zero = self._handle.can_zero()

    def write(self, offset: int, buffer: memoryview) -> None:
        missing = -len(buffer) % self.alignment
        self._call(
            self._handle.pwrite, bytes(buffer) + bytes(missing) if missing else buffer, offset
        )

    def zero(self, offset: int, length: int) -> None:
        length += -length % self.alignment
        if self._can_zero:
            self._call(self._handle.zero, length, offset)
            return
        zeroes = memoryview(bytes(min(ZERO_BLOCK, length)))
        for start in range(offset, offset + length, ZERO_BLOCK):
            self.write(start, zeroes[: offset + length - start])

    def flush(self) -> None:
        if self._handle.can_flush():
            self._call(self._handle.flush)

    def close(self) -> None:
        self._call(self._handle.shutdown)

    def hang_up(self) -> None:
        nbd_client.hang_up(self._handle)

    def _call(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except self._error as exc:
            raise OSError(exc.errnum or errno.EIO, exc.string) from exc


class NullSink:
    """Takes everything and keeps nothing."""

    max_request = FILE_MAXIMUM
    alignment = 1
    workers = 1
    is_zero = True

    def __init__(self, *, request_size: int | None = None) -> None:
        self.request_size = request_size

    def write(self, offset: int, buffer: memoryview) -> None:
        """Forget it."""

    def zero(self, offset: int, length: int) -> None:
        """Nothing is kept."""

    def flush(self) -> None:
        """Nothing is kept."""


@functools.cache
def _libc_fallocate() -> Any:
    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]
    return function


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """fallocate(2); False when the filesystem or the device cannot do it."""
    while _libc_fallocate()(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.EINVAL):
            return False
        raise OSError(number, os.strerror(number))
    return True
