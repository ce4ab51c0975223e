"""What the first sectors of a disk tell: its partition table and its boot code.

Pure functions on bytes, which are the guest's and so may hold anything. Sources: UEFI
specification, chapter 5 (GPT); GRUB's boot.S, whose sector holds the word GRUB.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from v2v.types import KiB

HEAD_BYTES = 64 * KiB  # boot sector, GPT header and entries, for sectors of 512 or 4096 bytes
SECTOR_SIZES = (512, 4096)
MAX_ENTRIES = 256  # of a GPT that are looked at; tables in the wild have 128
ENTRY_SIZES = range(128, 4096 + 1)  # bytes; the specification's least, and more than there is

ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")


@dataclass(frozen=True, slots=True)
class DiskHead:
    """`partitions` are the types of a GPT's partitions by their number, empty without a GPT."""

    partitions: dict[int, UUID]
    boot_code: bool = False  # a boot sector with code in it
    grub: bool = False  # GRUB's boot sector

    @property
    def esp(self) -> int | None:
        """The number of the EFI system partition."""
        return next((n for n, kind in self.partitions.items() if kind == ESP), None)

    @property
    def bios_boot(self) -> bool:
        return BIOS_BOOT in self.partitions.values()


def read_head(head: bytes) -> DiskHead:
    """Read the first HEAD_BYTES of a disk, or all of a smaller one."""
    signed = head[510:512] == b"\x55\xaa"
    code = head[:440]
    return DiskHead(
        partitions=_gpt(head),
        boot_code=signed and any(code),
        grub=signed and b"GRUB" in code,
    )


def _gpt(head: bytes) -> dict[int, UUID]:
    for sector in SECTOR_SIZES:
        header = head[sector : sector + 92]
        if len(header) == 92 and header.startswith(b"EFI PART"):
            return _entries(head, header, sector)
    return {}


def _entries(head: bytes, header: bytes, sector: int) -> dict[int, UUID]:
    first, count, size = struct.unpack_from("<QII", header, 72)
    if size not in ENTRY_SIZES or first * sector >= len(head):
        return {}
    found = {}
    for index in range(min(count, MAX_ENTRIES)):
        start = first * sector + index * size
        kind = head[start : start + 16]
        if len(kind) < 16:
            break
        if any(kind):
            found[index + 1] = UUID(bytes_le=kind)
    return found
