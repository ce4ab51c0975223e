"""The start of a file, read once: headers are looked at in many small reads."""

from __future__ import annotations

from v2v.types import KiB
from v2v.vmdk.store import File

HEAD = 64 * KiB  # most descriptors, all headers, the directories of small disks


class Start:
    """A v2v.image.reader.Reader."""

    def __init__(self, file: File) -> None:
        self.name = file.name
        self.size = file.size
        self._file = file
        self._head = file.read(0, HEAD)

    def read(self, offset: int, length: int) -> bytes:
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        return self._file.read(offset, length)
