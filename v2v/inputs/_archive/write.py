"""Writing a member of an archive into a file of ours."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from v2v.errors import HostError
from v2v.inputs._archive import Member
from v2v.inputs._checksums import FileCheck, file_differs
from v2v.run import Run
from v2v.texts import size_text
from v2v.types import Checksum, KiB

HOLE = 64 * KiB  # bytes of zeroes that become a hole
ZEROES = bytes(HOLE)


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it was unpacked; `found` is its checksum, where one was to be compared."""

    name: str
    path: Path
    found: Checksum | None = None

    def check(self, expected: Checksum | None, where: str, run: Run) -> None:
        """A manifest that came late: the file is read again."""
        if expected is None:
            return
        digest = self.found.digest if self.found else ""
        if self.found is None or self.found.algorithm != expected.algorithm:
            digest = _digest(self.path, expected, run)
        if digest != expected.digest:
            raise file_differs(f"{self.name} in {where}", expected, digest)


def write(
    chunks: Iterator[bytes], member: Member, path: Path, expected: Checksum | None, run: Run
) -> Written:
    """Write the chunks, which may be fewer bytes than told; zeroes become holes."""
    _check_space(member, path, run)
    digest = expected and hashlib.new(expected.algorithm, usedforsecurity=False)
    try:
        with path.open("xb") as file:
            for chunk in chunks:
                run.cancel.check()
                if digest:
                    digest.update(chunk)
                _write(file, chunk)
            file.truncate()
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(member, path, run) from exc
        raise HostError(
            f"{path}: what was unpacked cannot be written: {exc.strerror}",
            id="unpack-write",
            hint="see to the folder of jobs",
        ) from exc
    found = Checksum(expected.algorithm, digest.hexdigest()) if expected and digest else None
    return Written(member.name, path, found)


def _write(file: BinaryIO, chunk: bytes) -> None:
    for at in range(0, len(chunk), HOLE):
        part = chunk[at : at + HOLE]
        if part == ZEROES[: len(part)]:
            file.seek(len(part), os.SEEK_CUR)
        else:
            file.write(part)


def _digest(path: Path, expected: Checksum, run: Run) -> str:
    digest = hashlib.new(expected.algorithm, usedforsecurity=False)
    for chunk in FileCheck(path.name, expected, path).chunks(run.cancel):
        digest.update(chunk)
    return digest.hexdigest()


def _check_space(member: Member, path: Path, run: Run) -> None:
    if shutil.disk_usage(path.parent).free < member.size:
        raise _no_space(member, path, run)


def _no_space(member: Member, path: Path, run: Run) -> HostError:
    free = shutil.disk_usage(path.parent).free
    return HostError(
        f"{run.folder}: {size_text(free)} free, to unpack {member.name!r} takes "
        f"{size_text(member.size)}",
        id="no-space-jobs",
        hint="make room, or choose another place with --jobs-dir or $V2V_JOBS; "
        "an archive that is not compressed needs none",
    )
