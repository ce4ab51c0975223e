"""Disks in files and on block devices."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Iterator

from v2v.copy.sinks import _fallocate
from v2v.copy.sinks._fallocate import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from v2v.extents import Extent, merge
from v2v.types import GiB, KiB, MiB

MAXIMUM = 1 * GiB  # Linux writes at most a little under 2 GiB at once
ZERO_BLOCK = 1 * MiB  # zeroes written at once where the filesystem cannot make them itself
SPARSE_GRAIN = 4 * KiB  # a block of most filesystems: what a hole can give back
FULL_GRAIN = 64 * KiB  # nothing to gain but time: a system call costs as much as these bytes
WORKERS = 16  # more than any number of processors that a copy would keep busy
BLKSSZGET = 0x1268  # linux/fs.h

# copy_file_range(2): not between these two files, or not with this kernel
CANNOT_CLONE = (
    errno.EXDEV,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EPERM,
    errno.ETXTBSY,
    errno.EISDIR,
    errno.EIO,  # of which file is not said; reading and writing will tell
)


class FileSink:
    """A raw file or a block device, through an open descriptor that stays the caller's.

    `sparse` decides whether zeroed ranges give their space back or stay allocated. `drop_cache`
    keeps the target from filling the page cache. `size` is the disk's: a device may be larger.
    `notes` is what somebody who wonders about the speed would like to know.
    """

    max_request = MAXIMUM
    alignment = 1
    workers = WORKERS
    ordered = False

    def __init__(
        self,
        fd: int,
        *,
        request_size: int | None,
        is_zero: bool,
        sparse: bool = True,
        drop_cache: bool = False,
        size: int | None = None,
    ) -> None:
        self.request_size = request_size
        self.is_zero = is_zero
        self.zero_grain = SPARSE_GRAIN if sparse else FULL_GRAIN
        self.notes: list[str] = []
        self._fd = fd
        self._size = size
        self._drop_cache = drop_cache
        self._modes = (PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE) if sparse else (ZERO_RANGE,)
        self._is_device = stat.S_ISBLK(os.fstat(fd).st_mode)
        self._sector = _sector(fd) if self._is_device else 1
        self._can_clone = True
        self._lock = threading.Lock()
        self._flush_error: OSError | None = None
        self._is_cached = True  # maybe: what was flushed since the last look at the disk

    def write(self, offset: int, buffer: memoryview) -> None:
        while buffer:
            written = os.pwrite(self._fd, buffer, offset)
            offset, buffer = offset + written, buffer[written:]

    def zero(self, offset: int, length: int) -> None:
        """Devices zero whole sectors only: what sticks out is written."""
        end = offset + length
        first = min(-(-offset // self._sector) * self._sector, end)
        last = max(end // self._sector * self._sector, first)
        self._write_zeroes(offset, first - offset)
        if last > first and not self._make_zero(first, last - first):
            self._write_zeroes(first, last - first)
        self._write_zeroes(last, end - last)

    def _make_zero(self, offset: int, length: int) -> bool:
        return any(_fallocate.fallocate(self._fd, mode, offset, length) for mode in self._modes)

    def _write_zeroes(self, offset: int, length: int) -> None:
        zeroes = memoryview(bytes(min(ZERO_BLOCK, length)))
        for start in range(offset, offset + length, ZERO_BLOCK):
            self.write(start, zeroes[: offset + length - start])

    def flush(self) -> None:
        """A failed flush stays failed: Linux forgets what it could not write, and tells once."""
        if self._flush_error is not None:
            raise self._flush_error
        try:
            os.fdatasync(self._fd)
        except OSError as exc:
            self._flush_error = exc
            raise
        self._is_cached = not self._drop_cache
        if self._drop_cache:
            self._drop(0, 0)

    def read_back(self, offset: int, buffer: memoryview) -> None:
        """Read what was flushed from the disk itself rather than from the page cache."""
        with self._lock:
            if self._is_cached:  # all of it: Linux keeps large folios that a range only touches
                self._drop(0, 0)
                self._is_cached = False
        self._read(offset, buffer)
        if self._drop_cache:
            self._drop(offset, len(buffer))

    def _read(self, offset: int, buffer: memoryview) -> None:
        while buffer:
            count = os.preadv(self._fd, [buffer], offset)
            if count == 0:
                raise OSError(errno.EIO, f"the file ends at byte {offset}")
            offset, buffer = offset + count, buffer[count:]

    def _drop(self, offset: int, length: int) -> None:
        """Out of the page cache; length 0 is up to the end."""
        os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def extents(self) -> Iterator[Extent]:
        end = os.lseek(self._fd, 0, os.SEEK_END)
        size = end if self._size is None else self._size
        if self._is_device:
            yield Extent(0, size)
        else:
            yield from merge([*self._file_extents(min(size, end)), Extent(end, max(size - end, 0))])

    def _file_extents(self, end: int) -> Iterator[Extent]:
        offset = 0
        while offset < end:
            data = min(self._seek(offset, os.SEEK_DATA, end), end)
            yield Extent(offset, data - offset, zero=True)
            offset = data
            if offset < end:
                hole = min(self._seek(offset, os.SEEK_HOLE, end), end)
                yield Extent(offset, hole - offset)
                offset = hole

    def _seek(self, offset: int, whence: int, end: int) -> int:
        """The next data or hole. Where the filesystem cannot tell, all is data."""
        try:
            return os.lseek(self._fd, offset, whence)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # none before the end of the file
                return end
            return offset if whence == os.SEEK_DATA else end

    def clone(self, fd: int, offset: int, length: int) -> bool:
        """Have the kernel copy a range from another file, sharing blocks where it can.

        False if it cannot, or if the file ends inside the range: then part of it may be done, and
        the caller copies it whole. Not for what must be looked into (zeroes, digests).
        """
        end = offset + length
        while self._can_clone and offset < end:
            try:
                count = os.copy_file_range(fd, self._fd, end - offset, offset, offset)
            except OSError as exc:
                self._no_clone(exc)
                return False
            if count == 0:
                return False
            offset += count
        return offset == end

    def _no_clone(self, error: OSError) -> None:
        if error.errno not in CANNOT_CLONE:
            raise error
        with self._lock:
            if self._can_clone:
                self.notes.append(f"copy_file_range: {error.strerror}")
            self._can_clone = False

    def reopen(self) -> None:
        """There is no connection that could be lost."""


def _sector(fd: int) -> int:
    """Bytes of a device's logical block."""
    (size,) = struct.unpack("i", fcntl.ioctl(fd, BLKSSZGET, bytes(4)))
    return int(size)
