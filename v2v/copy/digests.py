"""The checksum of a disk's content, and of each MiB of it; docs/checksum.md defines it.

The digests of the chunks lie in a sparse file: a header that names the disk's size, then 32 bytes
(blake3) for each chunk. A slot of zeroes means that the chunk reads as zeroes, so holes take no
room. A file that belongs to a job is continued when the job is.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v2v.errors import JobError
from v2v.journal import sync_folder
from v2v.types import MiB

CHUNK = 1 * MiB  # of the disk's bytes in one digest
SLOT = 32  # bytes of a digest
BATCH = 32768  # slots looked at together: 1 MiB of the file, 32 GiB of the disk
TITLE = b"v2v-checksum-1\n"  # what a root begins with; another number means another definition


class Digests:
    """The digests of one disk of `size` bytes. All methods may be called from any thread.

    Without a path they are in an unnamed temporary file. `continued` tells whether an earlier
    run's file was found: if not, what that run copied has no digests here. Raises JobError when
    the file cannot be read or written, ValueError for ranges that are not whole chunks.
    """

    def __init__(self, path: Path | None, size: int) -> None:
        self.size = size
        self.chunks = -(-size // CHUNK)
        self._path = path
        self._zero = _digest(bytes(CHUNK))
        self._last_zero = _digest(bytes((size - 1) % CHUNK + 1))  # the last chunk may be short
        with self._trouble("opened"):
            self._fd = _open(path)
            try:
                self.continued = self._begin()
            except BaseException:
                os.close(self._fd)
                raise

    def _begin(self) -> bool:
        """Whether the file is this disk's already; otherwise make it so."""
        header = (TITLE + self.size.to_bytes(8, "little")).ljust(SLOT, b"\0")
        length = SLOT + self.chunks * SLOT
        if os.pread(self._fd, SLOT, 0) == header and os.fstat(self._fd).st_size == length:
            return True
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, length)
        os.pwrite(self._fd, header, 0)
        if self._path is not None:
            os.fsync(self._fd)
            sync_folder(self._path.parent)
        return False

    def put(self, offset: int, buffer: memoryview) -> None:
        """The disk holds these bytes: whole chunks, but that the disk's last may be short."""
        self._check(offset, len(buffer))
        self._write(offset // CHUNK, self._slots(offset, buffer))

    def put_zero(self, offset: int, length: int) -> None:
        """These whole chunks read as zeroes."""
        self._check(offset, length)
        for first, slots in self._batches(offset // CHUNK, -(-(offset + length) // CHUNK)):
            if any(slots):  # a hole of the file stays one
                self._write(first, bytes(len(slots)))

    def matches(self, offset: int, buffer: memoryview) -> bool:
        """Whether these whole chunks are what was put last."""
        self._check(offset, len(buffer))
        slots = self._slots(offset, buffer)
        return self._read(offset // CHUNK, len(slots) // SLOT) == slots

    def zeroes(self) -> bytearray:
        """One byte for each chunk of the disk: 1 if it reads as zeroes, else 0."""
        found = bytearray(self.chunks)
        for first, slots in self._batches(0, self.chunks):
            for index in _empty(slots):
                found[first + index] = 1
        return found

    def root(self) -> str:
        """The checksum of the disk, in hex."""
        from blake3 import blake3

        whole = blake3(TITLE + self.size.to_bytes(8, "little"))
        zeroes = self._zero * BATCH
        for first, slots in self._batches(0, self.chunks):
            count = len(slots) // SLOT
            if not any(memoryview(slots).cast("Q")) and first + count < self.chunks:
                whole.update(zeroes)
                continue
            for index in _empty(slots):
                slots[index * SLOT : (index + 1) * SLOT] = self._zero_digest(first + index)
            whole.update(slots)
        return whole.hexdigest()

    def sync(self) -> None:
        """Make durable what was put. To be called before the ledger counts on it."""
        if self._path is not None:
            with self._trouble("written"):
                os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def _check(self, offset: int, length: int) -> None:
        end = offset + length
        whole = offset % CHUNK == 0 and (end % CHUNK == 0 or end == self.size)
        if not whole or not 0 <= offset <= end <= self.size:
            raise ValueError(f"{length} bytes from {offset} are not whole chunks of the disk")

    def _zero_digest(self, chunk: int) -> bytes:
        return self._last_zero if chunk == self.chunks - 1 else self._zero

    def _slots(self, offset: int, buffer: memoryview) -> bytearray:
        """What belongs into the slots of these chunks."""
        slots = bytearray()
        for start in range(0, len(buffer), CHUNK):
            digest = _digest(buffer[start : start + CHUNK])
            zero = digest == self._zero_digest((offset + start) // CHUNK)
            slots += bytes(SLOT) if zero else digest
        return slots

    def _batches(self, first: int, end: int) -> Iterator[tuple[int, bytearray]]:
        """The slots from `first` to `end`, with the number of the first of each batch."""
        for start in range(first, end, BATCH):
            yield start, self._read(start, min(BATCH, end - start))

    def _read(self, first: int, count: int) -> bytearray:
        slots = bytearray(count * SLOT)
        with self._trouble("read"):
            if os.preadv(self._fd, [slots], SLOT + first * SLOT) != len(slots):
                raise OSError(errno.EIO, "the file is too short")
        return slots

    def _write(self, first: int, slots: bytes | bytearray) -> None:
        with self._trouble("written"):
            if os.pwrite(self._fd, slots, SLOT + first * SLOT) != len(slots):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def _trouble(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            name = self._path or f"a temporary file in {tempfile.gettempdir()}"
            raise JobError(
                f"the checksums of a disk, {name}, cannot be {what}: {exc.strerror}",
                id="journal-write",
                hint="make room there, then `v2v resume` the job",
            ) from exc


def _open(path: Path | None) -> int:
    if path is not None:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with tempfile.TemporaryFile(prefix="v2v-") as file:
        return os.dup(file.fileno())


def _digest(buffer: bytes | memoryview) -> bytes:
    from blake3 import blake3

    return blake3(buffer).digest()


def _empty(slots: bytearray) -> list[int]:
    """The numbers of the slots that hold zeroes."""
    words = memoryview(slots).cast("Q")[:: SLOT // 8].tolist()  # the first word of each
    likely = [index for index, word in enumerate(words) if not word]
    return [i for i in likely if not any(slots[i * SLOT : (i + 1) * SLOT])]
