"""Volumes as devices of the server that we run in."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v2v.errors import HostError, TargetError
from v2v.outputs._openstack.volumes import READY_SECONDS
from v2v.run import Run

SERIAL = 20  # characters of a volume's id that virtio-blk shows, and so udev's names have
PARTITION = re.compile(r"-part[0-9]+$")
BLOCK = Path("/sys/class/block")
PAUSE = 0.1  # seconds between two looks


def find_device(folder: Path, volume: str, run: Run) -> Path:
    """The device of an attached volume, once udev has made its name."""
    deadline = time.monotonic() + READY_SECONDS
    while not (names := _names(folder, volume)):
        if time.monotonic() > deadline:
            raise TargetError(
                f"volume {volume} is attached, but {folder} shows no device of it",
                id="volume-device",
                hint="v2v must run in the server that -oo server-id names; "
                "-oo dev-disk-by-id=FOLDER tells where udev names disks by their serial",
            )
        run.cancel.wait(PAUSE)
    return names[0]


@contextmanager
def opened(device: Path, size: int) -> Iterator[tuple[int, int]]:
    """A descriptor, for us alone, and the device's bytes, which are `size` at least."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_EXCL)
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            raise TargetError(
                f"{device} is in use on this host",
                id="target-in-use",
                hint="a volume manager or an automounter may have taken it: end that",
            ) from exc
        raise HostError(
            f"{device}: cannot be opened: {exc.strerror}", id="device-open", hint="run as root"
        ) from exc
    try:
        length = os.lseek(fd, 0, os.SEEK_END)
        if length < size:
            raise TargetError(
                f"{device} has {length} bytes, the disk has {size}",
                id="target-too-small",
                hint="an encrypted volume may keep some of its space for itself: choose another "
                "type with -os",
            )
        yield fd, length
    finally:
        os.close(fd)


def _names(folder: Path, volume: str) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:  # udev makes it with the first disk
        return []
    except OSError as exc:
        raise HostError(f"{folder}: {exc.strerror}", id="device-folder") from exc
    serial = volume[:SERIAL]
    named = [one for one in paths if serial in one.name and not PARTITION.search(one.name)]
    return [one for one in named if one.exists() and _agrees(one, serial)]


def _agrees(name: Path, serial: str) -> bool:
    """Whether the kernel calls that device so. Until udev has removed an old name, that may lead to
    nothing, or to another volume which came meanwhile. Disks of SCSI have no such file."""
    try:
        return (BLOCK / name.resolve().name / "serial").read_text().strip() == serial
    except FileNotFoundError:
        return True
