"""Checksums that the source tells, compared in the background while it is converted and copied.

One thread reads one file, or one disk, after the other. Of local files the copy and this reader
find in memory what the other has just read, so that the drive is read once.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from v2v import nbd_client
from v2v.cancel import Cancel, raise_cause
from v2v.endpoint import Endpoint
from v2v.errors import CopyError, GuestError, SourceError
from v2v.image.reader import FileReader
from v2v.run import Run
from v2v.types import Checksum, MiB

CHUNK = MiB  # bytes read at once
ZEROES = bytes(CHUNK)

log = logging.getLogger(__name__)


class Check(Protocol):
    """Bytes whose checksum is known. `name` is how messages call them."""

    @property
    def name(self) -> str: ...
    @property
    def checksum(self) -> Checksum: ...
    def chunks(self, cancel: Cancel) -> Iterator[bytes]: ...
    def differs(self, found: str) -> SourceError: ...


@dataclass(frozen=True, slots=True)
class FileCheck:
    """A local file, or `length` bytes of it from `offset`: what a manifest tells of."""

    name: str
    checksum: Checksum
    path: Path
    offset: int = 0
    length: int | None = None

    def chunks(self, cancel: Cancel) -> Iterator[bytes]:
        with FileReader(self.path) as reader:
            end = reader.size if self.length is None else self.offset + self.length
            for at in range(self.offset, end, CHUNK):
                cancel.check()
                yield reader.read(at, min(CHUNK, end - at))

    def differs(self, found: str) -> SourceError:
        return file_differs(self.name, self.checksum, found)


@dataclass(frozen=True, slots=True)
class DiskCheck:
    """What the guest sees of a disk, zeroes included."""

    name: str
    checksum: Checksum
    endpoint: Endpoint

    def chunks(self, cancel: Cancel) -> Iterator[bytes]:
        with nbd_client.ExportReader(self.endpoint, self.name) as reader:
            for extent in nbd_client.extents(self.endpoint, cancel=cancel):
                for at in range(extent.offset, extent.end, CHUNK):
                    cancel.check()
                    length = min(CHUNK, extent.end - at)
                    yield ZEROES[:length] if extent.zero else reader.read(at, length)

    def differs(self, found: str) -> SourceError:
        return SourceError(
            _difference(self.name, self.checksum, found),
            id="source-checksum",
            hint="the disk is damaged, or was written since its checksum was taken",
        )


def file_differs(name: str, checksum: Checksum, found: str) -> SourceError:
    return SourceError(
        _difference(name, checksum, found),
        id="ova-checksum",
        hint="take the copy again from where it came; -io checksums=no checks nothing",
    )


def _difference(name: str, checksum: Checksum, found: str) -> str:
    return (
        f"{name} is not what the source says: its {checksum.algorithm} is {found}, "
        f"and should be {checksum.digest}"
    )


@contextmanager
def checking(checks: Sequence[Check], run: Run) -> Iterator[None]:
    """Check while the block runs; at its end wait for the rest, and raise for what differs.

    A block that fails ends the checking; a difference found by then is its likely cause, and is
    raised instead. Where the run only looks at the source, and does not read
    all of it, nothing is checked.
    """
    checks = [one for one in checks if _is_known(one, run)]
    if not checks or not run.reads_all:
        yield
        return
    checker = _Checker(checks)
    with run.cancel.calling(checker.cancel.cancel):
        checker.thread.start()
        try:
            yield
            _wait(checker, run)
        except (SourceError, GuestError, CopyError) as exc:
            if checker.errors:
                raise checker.errors[0] from exc
            raise
        finally:
            checker.cancel.cancel()
            checker.thread.join()
    raise_cause(checker.errors)
    for error in checker.differences:
        run.warn(error.message, id="checksum-differs", hint=error.hint)


def _is_known(one: Check, run: Run) -> bool:
    algorithm = one.checksum.algorithm
    if algorithm in hashlib.algorithms_available and not algorithm.startswith("shake"):
        return True
    run.warn(
        f"{one.name}: its checksum is not checked: {algorithm} is not known here",
        id="checksum-unknown",
    )
    return False


def _wait(checker: _Checker, run: Run) -> None:
    if not checker.done.is_set():
        with run.step("checksums", "Checking the checksums of the source"):
            checker.done.wait()
    run.cancel.check()


class _Checker:
    """`errors` end the job, `differences` are only told."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.cancel = Cancel()
        self.done = threading.Event()
        self.errors: list[BaseException] = []
        self.differences: list[SourceError] = []
        self.thread = threading.Thread(target=self._work, args=(checks,), name="checksums")

    def _work(self, checks: Sequence[Check]) -> None:
        try:
            for one in checks:
                self._check(one)
        except BaseException as exc:  # noqa: BLE001  handed to the thread that waits
            self.errors.append(exc)
        finally:
            self.done.set()

    def _check(self, one: Check) -> None:
        digest = hashlib.new(one.checksum.algorithm, usedforsecurity=False)
        for chunk in one.chunks(self.cancel):
            digest.update(chunk)
        found = digest.hexdigest()
        log.debug("%s: %s %s", one.name, one.checksum.algorithm, found)
        if found == one.checksum.digest.lower():
            return
        if one.checksum.enforced:
            raise one.differs(found)
        self.differences.append(one.differs(found))
