"""What a target cannot take, refused in one way by all outputs that have the limit."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from v2v.errors import TargetError
from v2v.types import ConvertedGuest, Source

SECTOR = 512  # bytes


def check_sectors(sizes: Sequence[int], *, mode: str, sector: int = SECTOR) -> None:
    """Refuse disks that are no whole number of sectors: the target would cut off or add bytes."""
    for number, size in enumerate(sizes, 1):
        if size % sector:
            raise TargetError(
                f"-o {mode}: disk {number} has {size} bytes, no multiple of {sector}",
                id="target-disk-size",
                hint="grow the source's disk to a multiple, such as with truncate or qemu-img "
                "resize; or use -o local",
            )


def check_disk_count(source: Source, most: int, *, mode: str) -> None:
    if len(source.disks) > most:
        raise TargetError(
            f"-o {mode}: {source.name} has {len(source.disks)} disks, {most} are possible",
            id="target-disk-count",
            hint="move the others by themselves, with v2v copy",
        )


def check_arch(guest: ConvertedGuest, known: Collection[str], *, mode: str) -> None:
    if guest.caps.arch not in known:
        raise TargetError(
            f"-o {mode}: guests of {guest.caps.arch} do not run there",
            id="target-arch",
            hint=f"it runs: {', '.join(known)}; or use -o local",
        )
