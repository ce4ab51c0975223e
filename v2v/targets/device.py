"""A block device as a target: nobody else may use it, and what it holds is not lost lightly."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from v2v.copy.sinks import FileSink, Sink
from v2v.disk_sinks import RAW_REQUEST, drops_cache
from v2v.errors import TargetError
from v2v.extents import Extent
from v2v.image.in_use import loop_file, process_writing
from v2v.job import CopyOptions
from v2v.run import Run
from v2v.targets._base import Opened, Place
from v2v.types import Source

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BLKROGET = 0x125E  # linux/fs.h: whether the device is read-only

WHY_CLOSED = {
    errno.EACCES: ("target-unwritable", "run v2v as a user that may write to it"),
    errno.EPERM: ("target-unwritable", "run v2v as a user that may write to it"),
    errno.EROFS: ("target-read-only", "is its write protection on?"),
    errno.ENXIO: ("target-device", "is there a medium in it?"),
    errno.ENOMEDIUM: ("target-device", "is there a medium in it?"),
}


class BlockDevice(Place):
    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def check(self, source: Source) -> None:
        self._check_is_device()
        for file in (Path(name) for disk in source.disks for name in disk.files):
            if file.is_block_device() and _overlap(file, self.path):
                raise TargetError(
                    f"{self.path} is the source, or shares its bytes with {file}",
                    id="target-is-source",
                    hint="`lsblk` shows which device is which",
                )
        if user := device_user(self.path) or process_writing(self.path):
            raise self._in_use(user)

    def look(self, options: CopyOptions, run: Run, *, blank: bool) -> int:
        with self._opened() as fd:
            return self._look(fd, blank=blank)

    @contextmanager
    def open(self, disk: Opened, run: Run, *, sparse: bool) -> Iterator[Sink]:
        with self._opened() as fd:
            self.note_size(disk.size, os.lseek(fd, 0, os.SEEK_END), run)
            self._look(fd, blank=not disk.resumed and not disk.force)
            yield FileSink(
                fd,
                request_size=RAW_REQUEST,
                is_zero=False,
                sparse=sparse,
                drop_cache=drops_cache(disk.options.page_cache, disk.used),
                size=disk.size,
            )

    def is_same(self, other: Place) -> bool:
        return isinstance(other, BlockDevice) and _overlap(self.path, other.path)

    def identity(self) -> str:
        """The same as long as the host is up and the device stays: diskseq counts the disks that
        the kernel has seen. A partition is known by its disk.
        """
        if not self.path.is_block_device():
            return "gone"
        known = [BOOT_ID, *(folder / "diskseq" for folder in (_sysfs(self.path), self._disk))]
        words = [line for path in known for line in _lines(path)]
        return " ".join([*words, str(self.path.stat().st_rdev)])

    @property
    def _disk(self) -> Path:
        return _sysfs(self.path).resolve().parent

    def _check_is_device(self) -> None:
        if not self.path.is_block_device():
            raise TargetError(
                f"{self.path}: {'not a block device' if self.path.exists() else 'no such device'}",
                id="target-device",
                hint="`lsblk` lists the block devices",
            )

    def _look(self, fd: int, *, blank: bool) -> int:
        size = os.lseek(fd, 0, os.SEEK_END)
        if blank:
            self.check_blank(lambda at, n: os.pread(fd, n, at), size, [Extent(0, size)])
        return size

    @contextmanager
    def _opened(self) -> Iterator[int]:
        fd = self._open()
        try:
            yield fd
        finally:
            os.close(fd)

    def _open(self) -> int:
        """O_EXCL keeps everybody out who would mount it, or make it part of something."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
            if _is_read_only(fd):
                os.close(fd)
                raise OSError(errno.EROFS, "it is read-only")
            return fd
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                why = "it, or a partition of it, is mounted, or part of an active group or RAID"
                raise self._in_use(why) from exc
            id, hint = WHY_CLOSED.get(exc.errno or 0, ("target-unwritable", "see `dmesg`"))
            raise TargetError(
                f"{self.path} cannot be written: {exc.strerror}", id=id, hint=hint
            ) from exc

    def _in_use(self, why: str) -> TargetError:
        return TargetError(
            f"{self.path} is in use: {why}",
            id="target-in-use",
            hint="not even --force overwrites that; unmount it, or end what uses it",
        )


def _is_read_only(fd: int) -> bool:
    """Some read-only devices can be opened for writing, by root at least."""
    (flag,) = struct.unpack("i", fcntl.ioctl(fd, BLKROGET, bytes(4)))
    return bool(flag)


def device_user(path: Path) -> str | None:
    """What uses a device or a partition of it, as far as the system tells."""
    numbers = {_number(path), *(_number(Path("/dev") / name) for name in _partitions(path))}
    for line in _lines(Path("/proc/self/mounts")):
        device, place = (_unescaped(word) for word in line.split()[:2])
        if device.startswith("/") and _number(Path(device)) in numbers:
            return f"{device} is mounted on {place}"
    for line in _lines(Path("/proc/swaps"))[1:]:
        device = _unescaped(line.split()[0])
        if _number(Path(device)) in numbers:
            return f"{device} is swap space"
    holders = sorted(one.name for one in _sysfs(path).glob("holders/*"))
    return f"{', '.join(holders)} is made of it" if holders else None


def _overlap(one: Path, other: Path) -> bool:
    """The same device, one is a partition of the other, or both are made of one file."""
    if _number(one) == _number(other):
        return True
    file = loop_file(one)
    if file is not None and file == loop_file(other):
        return True
    a, b = _sysfs(one).resolve(), _sysfs(other).resolve()
    return a.is_relative_to(b) or b.is_relative_to(a)


def _partitions(path: Path) -> list[str]:
    return [file.parent.name for file in _sysfs(path).glob("*/partition")]


def _sysfs(path: Path) -> Path:
    number = path.stat().st_rdev
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")


def _number(path: Path) -> int | None:
    """The device's number; None for what is no block device."""
    with suppress(OSError):
        if path.is_block_device():
            return path.stat().st_rdev
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _unescaped(word: str) -> str:
    """Spaces and the like are octal in these files: \\040."""
    return word.encode("utf-8", "surrogateescape").decode("unicode_escape", "replace")
