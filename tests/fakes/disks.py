"""Small disks for tests."""

from __future__ import annotations

import random
import struct
from functools import cache

from v2v.types import KiB, MiB


@cache
def disk_content(seed: int = 0, size: int = 6 * MiB) -> bytes:
    """A disk with an MBR, one partition, data that does not repeat, and holes."""
    disk = bytearray(size)
    disk[0:512] = mbr((0x83, 2048, size // 512 - 2048))
    noise = random.Random(seed)
    for start in range(MiB, size - MiB, MiB):
        disk[start : start + 200 * KiB] = noise.randbytes(200 * KiB)
    disk[-512:] = noise.randbytes(512)
    return bytes(disk)


def mbr(*partitions: tuple[int, int, int]) -> bytes:
    """A boot sector with partitions: type, first sector, number of sectors."""
    table = b"".join(struct.pack("<4xB3xII", *partition) for partition in partitions)
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"
