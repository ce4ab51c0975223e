"""Reading the headers of an image, wherever it is, without trusting them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from v2v.errors import SourceError


class Reader(Protocol):
    """Random access to an image: a file, a URL or an NBD export."""

    name: str  # for messages
    size: int  # bytes

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end."""
        ...


class FileReader:
    """A regular file or a block device, opened read-only."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            raise unreadable(path, exc) from exc
        self.size = os.lseek(self._fd, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset >= self.size:
            return b""
        try:
            return os.pread(self._fd, length, offset)
        except OSError as exc:
            raise SourceError(
                f"{self.name}: reading at byte {offset} failed: {exc.strerror}", id="source-read"
            ) from exc

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)


class SliceReader:
    """`length` bytes of another reader from `offset`, which must be there."""

    def __init__(self, reader: Reader, offset: int, length: int, name: str) -> None:
        self.name = name
        self.size = length
        self._reader, self._offset = reader, offset
        if offset + length > reader.size:
            raise truncated(reader, name, offset + length)

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset >= self.size:
            return b""
        return self._reader.read(self._offset + offset, min(length, self.size - offset))


def unreadable(path: Path, exc: OSError) -> SourceError:
    return SourceError(
        f"{path}: cannot be read: {exc.strerror}",
        id="source-unreadable",
        hint="run v2v as a user that may read it",
    )


def corrupt(reader: Reader, what: str) -> SourceError:
    return SourceError(
        f"{reader.name}: corrupt image: {what}",
        id="image-corrupt",
        hint="take the copy again from where it came",
    )


def truncated(reader: Reader, what: str, end: int) -> SourceError:
    return SourceError(
        f"{reader.name}: truncated image: {what} ends at byte {end}, "
        f"but the image has {reader.size} bytes",
        id="image-truncated",
        hint="the copy did not finish; take it again from where it came",
    )


def unsupported(reader: Reader, what: str, hint: str) -> SourceError:
    return SourceError(f"{reader.name}: {what}", id="image-unsupported", hint=hint)


def exactly(reader: Reader, offset: int, length: int, what: str) -> bytes:
    """`length` bytes from `offset`, or an error that says the image is too short for them."""
    if offset + length > reader.size:
        raise truncated(reader, what, offset + length)
    found = reader.read(offset, length)
    if len(found) < length:
        raise truncated(reader, what, offset + length)
    return found
