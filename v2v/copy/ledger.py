"""What of one disk is durable on the target, so that a job that goes on copies none of it twice.

A file of JSON lines: {"phase": "source", "ranges": [[offset, length], ...]}, in bytes. A line is
appended after the sink was flushed, and synced before anybody counts on it. A line whose phase is
null takes its ranges back, of all phases: the target does not hold what was written. A torn last
line (the machine died while writing it) is cut off; what it told of is copied again.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from v2v.errors import JobError
from v2v.extents import Extent, Ranges, subtract
from v2v.journal import read_entries, sync_folder

Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**62)]  # the end of a range fits in 64 bits


@dataclass(frozen=True, slots=True)
class _Line:
    phase: str | None
    ranges: list[tuple[Bytes, Bytes]]


class Ledger:
    """The ledger of one disk; thread-safe. Without a path it is kept in memory only.

    Whoever opens it holds the job's lock: two processes must not have one ledger open. Raises
    JobError when the file cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._done: dict[str, Ranges] = {}
        for line in () if path is None else _load(path):
            self._note(line.phase, [Extent(offset, length) for offset, length in line.ranges])

    def __bool__(self) -> bool:
        """Whether anything is recorded."""
        with self._lock:
            return any(self._done.values())

    def done(self, phase: str) -> Ranges:
        """A copy of what is recorded for that phase.

        "source" is what is on the target as the source has it, "overlay" what is there as the
        converted guest has it.
        """
        with self._lock:
            return self._done.get(phase, Ranges()).copy()

    def done_otherwise(self, phase: str) -> Ranges:
        """A copy of what is recorded for any other phase."""
        with self._lock:
            others = (ranges for name, ranges in self._done.items() if name != phase)
            return Ranges(extent for ranges in others for extent in ranges)

    def touched(self) -> Ranges:
        """A copy of what is recorded for any phase."""
        with self._lock:
            return Ranges(extent for ranges in self._done.values() for extent in ranges)

    def record(self, phase: str, extents: Iterable[Extent]) -> None:
        """These ranges, data or zero, were written and flushed. Durable when this returns."""
        self._add(phase, Ranges(extents))

    def forget(self, extents: Iterable[Extent]) -> None:
        """These ranges count for no phase any longer. Durable when this returns."""
        self._add(None, Ranges(extents))

    def _add(self, phase: str | None, ranges: Ranges) -> None:
        if not ranges:
            return
        with self._lock:
            if self.path is not None:
                _append(self.path, phase, ranges)
            self._note(phase, ranges)

    def _note(self, phase: str | None, ranges: Iterable[Extent]) -> None:
        if phase is not None:
            self._done.setdefault(phase, Ranges()).update(ranges)
            return
        gone = Ranges(ranges)
        self._done = {name: Ranges(subtract(done, gone)) for name, done in self._done.items()}

    def clear(self) -> None:
        """Forget all: the target is made anew."""
        with self._lock:
            if self.path is not None:
                with _writing(self.path) as fd:
                    os.ftruncate(fd, 0)
                    os.fsync(fd)
            self._done.clear()


def _load(path: Path) -> list[_Line]:
    created = not path.exists()
    with _writing(path) as fd:
        entries, good_bytes = read_entries(path)
        if good_bytes < os.fstat(fd).st_size:
            os.ftruncate(fd, good_bytes)
            os.fsync(fd)
        if created:
            sync_folder(path.parent)
    try:
        return msgspec.convert(entries, list[_Line])
    except msgspec.ValidationError as exc:
        raise JobError(
            f"{path}: the ledger of the copy cannot be read: {exc}",
            id="journal-unreadable",
            hint="it was written by another version of v2v; start the job again",
        ) from exc


def _append(path: Path, phase: str | None, ranges: Ranges) -> None:
    pairs = [[extent.offset, extent.length] for extent in ranges]
    line = json.dumps({"phase": phase, "ranges": pairs}, separators=(",", ":"))
    with _writing(path) as fd:
        good_bytes = os.fstat(fd).st_size
        try:
            _write_all(fd, line.encode("ascii") + b"\n")
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, good_bytes)  # what follows a torn line would not be read
            raise


def _write_all(fd: int, line: bytes) -> None:
    if os.write(fd, line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _writing(path: Path) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)
    except OSError as exc:
        raise JobError(
            f"{path} cannot be written: {exc.strerror}",
            id="journal-write",
            hint="make room where jobs are kept, then `v2v resume` the job",
        ) from exc
