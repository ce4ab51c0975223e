"""An append-only file of what a job has finished, one JSON object a line, synced line by line.

A line is {"key": ..., "at": ..., "value": ...}; the last line of a key counts, and "forget" names
keys that count no more. A torn last line (the machine died while writing it) is cut off when the
journal is opened. Values are the frozen
dataclasses of v2v.types, checked against their type when they are read back. Secrets never get in:
options that hold them name a file.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from v2v import file_locks
from v2v.errors import JobError

T = TypeVar("T")


class Journal:
    """The journal of one job, held under an exclusive lock while it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        created = not path.exists()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if not file_locks.lock(self._fd):
            os.close(self._fd)
            raise JobError(
                f"job {path.parent.name} is running in another process",
                id="job-running",
                hint="wait for it, or stop that process first",
            )
        if created:
            sync_folder(path.parent)
        self._lock = threading.Lock()
        self._values = self._load()

    def _load(self) -> dict[str, Any]:
        entries, good_bytes = read_entries(self.path)
        if good_bytes < self.path.stat().st_size:
            os.ftruncate(self._fd, good_bytes)
        return latest(entries)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, kind: type[T]) -> T:
        """The value recorded under `key`, as a `kind`."""
        if key not in self._values:
            raise JobError(
                f"{self.path}: there is no entry {key!r}: v2v was killed before it wrote one",
                id="journal-incomplete",
                hint="discard the job with `v2v jobs discard`, and start it again",
            )
        try:
            return msgspec.convert(self._values[key], kind)
        except msgspec.ValidationError as exc:
            raise JobError(
                f"{self.path}: the entry {key!r} cannot be read: {exc}",
                id="journal-unreadable",
                hint="it was written by another version of v2v; start the job again",
            ) from exc

    def put(self, key: str, value: object) -> None:
        """Record `value` durably: when this returns it survives a crash."""
        plain = msgspec.to_builtins(value)
        # Not msgspec's encoder: names from a guest may hold bytes that are no UTF-8 (surrogates).
        entry = {"key": key, "at": time.time(), "value": plain}
        line = json.dumps(entry, separators=(",", ":")).encode("ascii") + b"\n"
        with self._lock:  # disks are copied by several threads
            self._append(line)
            self._values[key] = plain

    def _append(self, line: bytes) -> None:
        good_bytes = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._fd)
        except OSError as exc:
            os.ftruncate(self._fd, good_bytes)  # what follows a torn line would not be read
            raise JobError(
                f"{self.path} cannot be written: {exc.strerror}",
                id="journal-write",
                hint="make room where jobs are kept, then `v2v resume` the job",
            ) from exc

    def forget(self, *, keep: Iterable[str]) -> None:
        """Drop all but the keys to keep: what they told of was undone."""
        self.drop(set(self._values) - set(keep))

    def drop(self, keys: Iterable[str]) -> None:
        """Forget these keys alone; those that are not there are no error."""
        gone = sorted(set(keys) & set(self._values))
        if not gone:
            return
        self.put("forget", gone)
        for key in [*gone, "forget"]:
            del self._values[key]

    def close(self) -> None:
        os.close(self._fd)


def read_entries(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The complete entries of a journal, and how many bytes they take. Takes no lock."""
    entries: list[dict[str, Any]] = []
    good_bytes = 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        entries.append(entry)
        good_bytes += len(line)
    return entries, good_bytes


def latest(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What counts: the last value of each key that was not forgotten since."""
    values: dict[str, Any] = {}
    for entry in entries:
        if entry["key"] == "forget":
            for key in entry["value"]:
                values.pop(key, None)
        else:
            values[entry["key"]] = entry["value"]
    return values


def is_locked(path: Path) -> bool:
    """Whether a process has this journal open, which means that its job is running.

    Takes no lock, or a job that begins just now would be told that it runs already.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return file_locks.is_locked(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make names created, renamed or removed in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
