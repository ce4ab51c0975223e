"""Is there room in the guest for what conversion writes?

The numbers are those the field knows from virt-v2v's manual: 100 MB on /, 50 MB on /boot, 10 MB on
others, and 100 free inodes wherever a filesystem has inodes at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conversion.problems import Problems
from v2v.errors import GuestError
from v2v.types import MiB

NEEDED = {"/": 100 * MiB, "/boot": 50 * MiB}
NEEDED_ELSEWHERE = 10 * MiB
NEEDED_INODES = 100
ST_RDONLY = 1  # statvfs(3)


@dataclass(frozen=True, slots=True)
class Room:
    """Of a mounted filesystem: free bytes, free inodes (None where there are no inodes)."""

    mountpoint: str
    free: int
    inodes: int | None


def measure(g: Any, mounts: Mapping[str, str]) -> list[Room]:
    """The room on every mounted filesystem that can be written to."""
    rooms = []
    for mountpoint in mounts:
        stat = g.statvfs(mountpoint)
        if not stat["flag"] & ST_RDONLY:
            inodes = stat["favail"] if stat["files"] > 0 else None
            rooms.append(Room(mountpoint, stat["bfree"] * stat["frsize"], inodes))
    return rooms


def too_full(room: Room) -> GuestError | None:
    """What is wrong with a filesystem, if it is too full to convert the guest."""
    needed = NEEDED.get(room.mountpoint, NEEDED_ELSEWHERE)
    if room.free < needed:
        what = f"{room.free / MiB:.0f} MiB free, conversion needs {needed // MiB} MiB"
    elif room.inodes is not None and room.inodes < NEEDED_INODES:
        what = f"{room.inodes} free inodes, conversion needs {NEEDED_INODES}"
    else:
        return None
    return GuestError(
        f"{room.mountpoint} in the guest has {what}",
        id="guest-no-space",
        hint=f"remove files from {room.mountpoint} in the source guest",
    )


def refuse_full(g: Any, mounts: Mapping[str, str], problems: Problems) -> None:
    for room in measure(g, mounts):
        if error := too_full(room):
            problems.refuse(error)
