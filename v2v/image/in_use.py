"""Whether another process uses a disk image: copying it while it is written would give a torn disk,
and replacing it would lose what is written afterwards.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from v2v import file_locks
from v2v.errors import SourceError

# QEMU holds shared locks on byte 100 + n for each permission n it uses (block/file-posix.c);
# BLK_PERM_WRITE is bit 1. They are seen across containers and, on NFS, across hosts.
QEMU_WRITE_LOCK = 101
LOOP_GET_STATUS64 = 0x4C05  # linux/loop.h
LOOP_INFO_BYTES = 232  # struct loop_info64, which begins with the file's device and inode


def check_not_written(path: Path) -> None:
    """Raise SourceError when somebody else may be writing to a regular file or block device."""
    writer = _writer(path)
    if writer is not None:
        raise SourceError(
            f"{path} is in use: {writer}",
            id="source-in-use",
            hint="shut the virtual machine down, or end the program, and try again",
        )


def file_user(path: Path) -> str | None:
    """What would go on with a file that nobody finds any more, if another took its name.

    A loop device counts even where it only reads: what is made of it may be the source.
    """
    with suppress(OSError):  # we may not look: then it is not known
        return process_writing(path) or _loop_device(path) or _locked_by_qemu(path)
    return None


def loop_file(device: Path) -> tuple[int, int] | None:
    """st_dev and st_ino of the file that a loop device, or a partition of one, is made of."""
    info = bytearray(LOOP_INFO_BYTES)
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, LOOP_GET_STATUS64, info)
        finally:
            os.close(fd)
    except OSError:
        return None
    number, inode = struct.unpack_from("QQ", info)
    return number, inode


def _writer(path: Path) -> str | None:
    if path.is_block_device():
        return process_writing(path) or _held_by_kernel(path)
    return process_writing(path) or _loop_device(path, writes=True) or _locked_by_qemu(path)


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
    try:
        lines = fdinfo.read_text().splitlines()
    except OSError:
        return False  # it was closed meanwhile; the process may have another
    for line in lines:
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)
    return False


def _locked_by_qemu(path: Path) -> str | None:
    with path.open("rb") as file:
        try:
            if not file_locks.is_locked(file.fileno(), QEMU_WRITE_LOCK, 1):
                return None
        except OSError:
            return None  # a filesystem without locks
    return "QEMU holds a lock on it for writing, perhaps on another host or in a container"


def _loop_device(path: Path, *, writes: bool = False) -> str | None:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        device = backing.parent.parent
        try:
            if not _is_backed_by(Path("/dev") / device.name, backing, path):
                continue
            read_only = (device / "ro").read_text().strip() == "1"
        except OSError:
            continue
        if not read_only:
            return f"it is attached to /dev/{device.name} for writing"
        if not writes:
            return f"it is attached to /dev/{device.name}"
    return None


def _is_backed_by(device: Path, backing: Path, path: Path) -> bool:
    """By whichever name: the kernel tells the file itself, to root; to others one of its names."""
    wanted = path.stat()
    found = loop_file(device)
    if found is not None:
        return found == (wanted.st_dev, wanted.st_ino)
    return path.samefile(backing.read_text().rstrip("\n"))


def _held_by_kernel(path: Path) -> str | None:
    """O_EXCL fails for a block device that is mounted, or part of LVM, RAID or the like."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            return "it is mounted on this host, or part of an active volume group or RAID"
        raise
    return None
