"""Whether another process has a disk image open for writing: copying it would give a torn disk."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from v2v.errors import SourceError

# QEMU holds shared locks on byte 100 + n for each permission n it uses (block/file-posix.c);
# BLK_PERM_WRITE is bit 1. They are seen across containers and, on NFS, across hosts.
QEMU_WRITE_LOCK = 101
FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux


def check_not_written(path: Path) -> None:
    """Raise SourceError when somebody else may be writing to a regular file or block device."""
    writer = _writer(path)
    if writer is not None:
        raise SourceError(
            f"{path} is in use: {writer}",
            id="source-in-use",
            hint="shut the virtual machine down, or end the program, and try again",
        )


def _writer(path: Path) -> str | None:
    if path.is_block_device():
        return process_writing(path) or _held_by_kernel(path)
    return process_writing(path) or _loop_device(path) or _locked_by_qemu(path)


def process_writing(path: Path) -> str | None:
    """Which other process has it open for writing, among those we may look at."""
    wanted = path.stat()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            for link in (process / "fd").iterdir():
                if _same(link, wanted) and _for_writing(process / "fdinfo" / link.name):
                    name = (process / "comm").read_text(errors="replace").strip()
                    return f"process {process.name} ({name}) has it open for writing"
        except OSError:
            continue  # the process ended, or is another user's
    return None


def _same(link: Path, wanted: os.stat_result) -> bool:
    try:
        found = link.stat()
    except OSError:
        return False
    if wanted.st_rdev:
        return found.st_rdev == wanted.st_rdev and (found.st_mode >> 12) == (wanted.st_mode >> 12)
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)


def _for_writing(fdinfo: Path) -> bool:
    for line in fdinfo.read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)
    return False


def _locked_by_qemu(path: Path) -> str | None:
    question = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, QEMU_WRITE_LOCK, 1, 0)
    with path.open("rb") as file:
        try:
            answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, question)
        except OSError:
            return None  # a filesystem without locks
    if struct.unpack(FLOCK, answer)[0] == fcntl.F_UNLCK:
        return None
    return "QEMU holds a lock on it for writing, perhaps on another host or in a container"


def _loop_device(path: Path) -> str | None:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        device = backing.parent.parent
        try:
            same = Path(backing.read_text().rstrip("\n")) == path.resolve()
            if same and (device / "ro").read_text().strip() == "0":
                return f"it is attached to /dev/{device.name} for writing"
        except OSError:
            continue
    return None


def _held_by_kernel(path: Path) -> str | None:
    """O_EXCL fails for a block device that is mounted, or part of LVM, RAID or the like."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            return "it is mounted on this host, or part of an active volume group or RAID"
        raise
    return None
