"""What a file is, from its first and last bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from v2v.image.reader import Reader
from v2v.image.vmdk import DESCRIPTOR_MAGIC
from v2v.types import DiskFormat, KiB

HEAD = 68 * KiB  # bytes of the start that are looked at: btrfs has its magic at 64 KiB
SECTOR = 512
CYLINDER = 255 * 63 * SECTOR  # old tools round partitions up to it, past the end of the disk


@dataclass(frozen=True, slots=True)
class Foreign:
    """A file that v2v cannot read as a disk, what it is, and what to do."""

    what: str
    hint: str


UNPACK = "unpack it first, and give the disk image inside"
MAYBE_OVA = "if it is an OVA, read it with -i ova; else unpack it first"
CONVERT = "convert it first: qemu-img convert -O qcow2"
VMDK_TEXT = "give the small .vmdk file that names it"
NO_DISK = "give a disk image; `-if raw` takes any file as a disk"

# (offset, magic, what it is, hint). Checked before anything is taken for a raw disk.
FOREIGN = (
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
    (0, b"BZh", "compressed with bzip2", UNPACK),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4", UNPACK),
    (0, b"LZIP", "compressed with lzip", UNPACK),
    (0, b"PK\x03\x04", "a ZIP archive", MAYBE_OVA),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", MAYBE_OVA),
    (0, b"COWD", "the data of a VMDK of type vmfsSparse (COWD)", VMDK_TEXT),
    (0, b"\xbe\xba\xfe\xca", "the data of a VMDK of type seSparse", VMDK_TEXT),
    (0, b"QED\0", "a QED image", CONVERT),
    (0, b"WithoutFreeSpace", "a Parallels image", CONVERT),
    (0, b"WithouFreSpacExt", "a Parallels image", CONVERT),
    (0, b"Bochs Virtual HD Image", "a Bochs image", CONVERT),
    (0, b"EVF\x09\r\n\xff\0", "an EnCase image", "export a raw disk from it first"),
    (0, b"MSWIM\0\0\0", "a Windows installation image (WIM)", NO_DISK),
    (0, b"%PDF", "a PDF document", NO_DISK),
    (0, b"\x7fELF", "a program (ELF)", NO_DISK),
    (0, b"\x89PNG", "a PNG picture", NO_DISK),
    (0, b"\xff\xd8\xff", "a JPEG picture", NO_DISK),
    (0, b"\xed\xab\xee\xdb", "an RPM package", NO_DISK),
    (0, b"!<arch>\n", "a Debian package or an archive", NO_DISK),
    (0, b"SQLite format 3\0", "an SQLite database", NO_DISK),
)

PACKED = ((b"\x1f\x8b\x08", "gzip"), (b"\xfd7zXZ\0", "xz"))

# (offset, magic): what a disk without a partition table may begin with.
FILESYSTEMS = (
    (0x438, b"\x53\xef"),  # ext2, ext3, ext4
    (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"),  # btrfs
    (0x400, b"\x10\x20\xf5\xf2"),  # f2fs
    (0x1000, b"\xfc\x4e\x2b\xa9"),  # Linux md 1.2
    (0, b"\xfc\x4e\x2b\xa9"),  # Linux md 1.1
    (0xFF6, b"SWAPSPACE2"),
    (0, b"LUKS\xba\xbe"),
    (0x8001, b"CD001"),  # ISO 9660
    (0, b"hsqs"),  # squashfs
    *((sector * SECTOR, b"LABELONE") for sector in range(4)),  # LVM physical volume
)


def packed_with(head: bytes) -> str | None:
    """gzip or xz, when the file is compressed in a way that can be served as it is."""
    return next((name for magic, name in PACKED if head.startswith(magic)), None)


def image_format(head: bytes, tail: bytes) -> DiskFormat | None:
    """The image format; None when there is no image header, as in a raw disk."""
    if head.startswith(b"QFI\xfb"):
        return DiskFormat.QCOW2
    if head.startswith((b"KDMV", DESCRIPTOR_MAGIC)):
        return DiskFormat.VMDK
    if head.startswith(b"vhdxfile"):
        return DiskFormat.VHDX
    if head[0x40:0x44] == b"\x7f\x10\xda\xbe":
        return DiskFormat.VDI
    if tail.startswith(b"conectix") or head.startswith(b"conectix"):
        return DiskFormat.VPC
    return None


def foreign(head: bytes) -> Foreign | None:
    """What else the file is, when it is certainly no disk."""
    for offset, magic, what, hint in FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            return Foreign(what, hint)
    start = head[: 4 * KiB].removeprefix(b"\xef\xbb\xbf")
    if start and all(byte in b"\t\n\r\f\x1b" or byte >= 32 for byte in start):
        try:
            start[:-4].decode("utf-8")
        except UnicodeDecodeError as exc:
            if exc.start < len(start) - 8:
                return None
        return Foreign("a text file", NO_DISK)
    return None


def looks_like_disk(head: bytes) -> bool:
    """A partition table, a boot sector, a filesystem, or a disk that begins blank."""
    if not head.strip(b"\0"):
        return True
    if head[510:512] == b"\x55\xaa" or b"EFI PART" in (head[512:520], head[4096:4104]):
        return True
    return any(head[at : at + len(magic)] == magic for at, magic in FILESYSTEMS)


def partitioned_end(head: bytes) -> int:
    """Where the partition table says that the disk, or its last partition, ends; 0 if unsaid."""
    for sector in (512, 4096):
        if head[sector : sector + 8] == b"EFI PART":
            (backup,) = struct.unpack_from("<Q", head, sector + 32)
            return int(backup + 1) * sector
    if head[510:512] != b"\x55\xaa" or not _is_mbr(head):
        return 0
    return max((end for _, end in _mbr_partitions(head)), default=0)


def _is_mbr(head: bytes) -> bool:
    """A boot sector of a filesystem has the same signature, and code where the table would be."""
    return all(head[446 + 16 * index] in (0, 0x80) for index in range(4))


def _mbr_partitions(head: bytes) -> Iterator[tuple[int, int]]:
    """Type, and end in bytes, of the primary partitions."""
    for index in range(4):
        kind, start, count = struct.unpack_from("<4xB3xII", head, 446 + 16 * index)
        if kind not in (0, 0xEE):
            yield kind, (start + count) * SECTOR


def read_ends(reader: Reader) -> tuple[bytes, bytes]:
    """The bytes that the functions above look at."""
    tail = reader.read(reader.size - SECTOR, SECTOR) if reader.size >= SECTOR else b""
    return reader.read(0, HEAD), tail
