"""Files of this host as a store."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice

from v2v.errors import SourceError
from v2v.extents import Extent
from v2v.types import MiB
from v2v.vmdk.store import MAX_ENTRIES, Entry, Kind

BLOCK = 512  # bytes that st_blocks counts
KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}


class LocalFile:
    def __init__(self, path: str) -> None:
        self.name = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as exc:
            raise missing(path) from exc
        except OSError as exc:
            raise unreadable(path, exc.strerror or str(exc)) from exc
        try:
            found = os.fstat(self._fd)
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
                raise unreadable(path, "it is not a regular file")
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
        except BaseException:
            self.close()
            raise
        self.version = f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"

    def read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        while buffer:
            try:
                count = os.preadv(self._fd, [buffer], offset)
            except OSError as exc:
                raise self._failed(offset, exc.strerror or str(exc)) from exc
            if count == 0:
                raise self._failed(offset, "the file ends there")
            offset += count
            buffer = buffer[count:]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        while offset < end:
            data = min(self._seek(offset, os.SEEK_DATA, end), end)
            if offset < data:
                yield Extent(offset, data - offset, zero=True)
            offset = min(self._seek(data, os.SEEK_HOLE, end), end) if data < end else end
            if data < offset:
                yield Extent(data, offset - data)

    def _seek(self, offset: int, whence: int, end: int) -> int:
        """Where the next data or hole begins. Where the filesystem cannot tell, all is data."""
        try:
            return os.lseek(self._fd, offset, whence)
        except OSError as exc:
            if exc.errno == errno.ENXIO and os.lseek(self._fd, 0, os.SEEK_END) >= end:
                return end  # a hole up to the end; of a file that was cut it would be no hole
            return offset if whence == os.SEEK_DATA else end

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def _failed(self, offset: int, why: str) -> SourceError:
        return SourceError(f"{self.name}: reading at byte {offset} failed: {why}", id="source-read")


class LocalStore:
    """Closes its files when it is left."""

    request_size = MiB
    parallel = 1  # from the page cache, threads of Python gain nothing

    def __init__(self) -> None:
        self._files = ExitStack()

    def open(self, path: str) -> LocalFile:
        file = LocalFile(path)
        self._files.callback(file.close)
        return file

    def real_path(self, path: str) -> str:
        return os.path.realpath(path)

    def entries(self, path: str) -> Sequence[Entry]:
        try:
            with os.scandir(path) as found:
                return [_entry(one) for one in islice(found, MAX_ENTRIES)]
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise missing(path) from exc
        except OSError as exc:
            raise unreadable(path, exc.strerror or str(exc)) from exc

    def __enter__(self) -> LocalStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self._files.close()


def _entry(found: os.DirEntry[str]) -> Entry:
    try:
        status = found.stat(follow_symlinks=False)
    except FileNotFoundError:  # removed meanwhile
        return Entry(found.name, Kind.OTHER)
    kind = KINDS.get(stat.S_IFMT(status.st_mode), Kind.OTHER)
    return Entry(found.name, kind, status.st_size, status.st_blocks * BLOCK)


def unreadable(path: str, why: str) -> SourceError:
    return SourceError(
        f"{path}: cannot be read: {why}",
        id="source-unreadable",
        hint="run v2v as a user that may read it",
    )


def missing(path: str) -> SourceError:
    return SourceError(
        f"{path} is not there",
        id="image-file-missing",
        hint="give the path of the disk's descriptor, and copy all files of the VM's folder",
    )
