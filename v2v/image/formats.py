"""What an image says of itself, and the headers of VHD, VHDX and VDI images read by ourselves.

QEMU is only given an image after these checks, so that a hostile header makes it open nothing that
the user did not name. Layouts: Microsoft's "Virtual Hard Disk Image Format Specification" 1.0 and
[MS-VHDX]; VirtualBox's VDI 1.1. The others are in v2v.image.qcow2 and v2v.image.vmdk.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from v2v.image.reader import Reader, corrupt, exactly, truncated, unsupported
from v2v.types import DiskFormat, KiB, MiB

SECTOR = 512
MAX_SIZE = 1 << 60  # 1 EiB: no real disk is larger, and sums stay far from 64 bits
MAX_TABLE = 32 * MiB  # QEMU's own limit on a qcow2 L1 table; enough for the others' tables too

PARENT_HINT = "merge it with its parent first: qemu-img convert, or the hypervisor's consolidate"


@dataclass(frozen=True, slots=True)
class ExtentFile:
    """A file that a VMDK descriptor names; `length` bytes of the disk from `offset` in the file."""

    name: str
    length: int
    offset: int = 0
    kind: str = "FLAT"  # as the descriptor has it


@dataclass(frozen=True, slots=True)
class Header:
    """What an image says of itself. Names are as the image spells them, and not to be trusted."""

    format: DiskFormat
    size: int  # virtual size in bytes
    backing: str | None = None
    backing_format: str | None = None
    data_file: str | None = None
    extents: tuple[ExtentFile, ...] = ()
    cid: int | None = None  # of a VMDK: a number that changes when the content does
    backing_cid: int | None = None  # what the backing file's must be


# VHD ----------------------------------------------------------------------------------------------

VHD_FIXED, VHD_DYNAMIC, VHD_DIFFERENCING = 2, 3, 4


def read_vhd(reader: Reader) -> Header:
    footer = reader.read(reader.size - SECTOR, SECTOR) if reader.size >= SECTOR else b""
    if footer[:8] != b"conectix":
        raise truncated(reader, "the VHD footer, which comes last,", reader.size + SECTOR)
    if _vhd_checksum(footer, 64) != int.from_bytes(footer[64:68], "big"):
        raise corrupt(reader, "the checksum of the VHD footer is wrong")
    (header_offset,) = struct.unpack_from(">Q", footer, 16)
    (size,) = struct.unpack_from(">Q", footer, 48)
    (kind,) = struct.unpack_from(">I", footer, 60)
    if kind == VHD_DIFFERENCING:
        raise unsupported(reader, "a differencing VHD needs its parent", PARENT_HINT)
    if kind not in (VHD_FIXED, VHD_DYNAMIC) or size > MAX_SIZE:
        raise corrupt(reader, f"VHD type {kind} of {size} bytes")
    if kind == VHD_FIXED and size + SECTOR > reader.size:
        raise truncated(reader, "the data", size + SECTOR)
    if kind == VHD_DYNAMIC:
        _check_dynamic_vhd(reader, header_offset, size)
    return Header(DiskFormat.VPC, size // SECTOR * SECTOR)


def _check_dynamic_vhd(reader: Reader, offset: int, size: int) -> None:
    header = exactly(reader, offset, 1024, "the VHD's dynamic header")
    if header[:8] != b"cxsparse":
        raise corrupt(reader, "the VHD has no dynamic header")
    table_offset, _, entries, block = struct.unpack_from(">QIII", header, 16)
    if block < SECTOR or block & (block - 1) or block > 256 * MiB:
        raise corrupt(reader, f"a VHD block size of {block} bytes")
    if entries * 4 > MAX_TABLE or entries * block < size:
        raise corrupt(reader, f"a VHD block table of {entries} entries for {size} bytes")
    table = exactly(reader, table_offset, entries * 4, "the VHD block table")
    used = [item for (item,) in struct.iter_unpack(">I", table) if item != 0xFFFFFFFF]
    bitmap = -(-block // SECTOR // 8 // SECTOR) * SECTOR
    end = max(used, default=0) * SECTOR + (bitmap + block if used else 0)
    if end > reader.size - SECTOR:
        raise truncated(reader, "the data", end + SECTOR)


def _vhd_checksum(block: bytes, at: int) -> int:
    return ~(sum(block) - sum(block[at : at + 4])) & 0xFFFFFFFF


# VHDX ---------------------------------------------------------------------------------------------

REGION_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
REGION_BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
ITEM_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
ITEM_DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
ITEM_LOGICAL_SECTOR = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le


def read_vhdx(reader: Reader) -> Header:
    regions = _vhdx_regions(reader)
    metadata = regions.get(REGION_METADATA)
    bat = regions.get(REGION_BAT)
    if metadata is None or bat is None:
        raise corrupt(reader, "the VHDX has no metadata or no block table")
    items = _vhdx_items(reader, *metadata)
    (size,) = _vhdx_item(reader, items, ITEM_DISK_SIZE, "<Q")
    (sector,) = _vhdx_item(reader, items, ITEM_LOGICAL_SECTOR, "<I")
    block, flags = _vhdx_item(reader, items, ITEM_FILE_PARAMETERS, "<II")
    if flags & 2:
        raise unsupported(reader, "a differencing VHDX needs its parent", PARENT_HINT)
    if size > MAX_SIZE or sector not in (512, 4096) or size % sector:
        raise corrupt(reader, f"a VHDX of {size} bytes with sectors of {sector}")
    if not MiB <= block <= 256 * MiB or block & (block - 1):
        raise corrupt(reader, f"a VHDX block size of {block} bytes")
    _check_vhdx_blocks(reader, *bat, size, block, sector)
    return Header(DiskFormat.VHDX, size)


def _vhdx_regions(reader: Reader) -> dict[bytes, tuple[int, int]]:
    """Offset and length in bytes of the regions; the table is there twice."""
    for start in (192 * KiB, 256 * KiB):
        table = exactly(reader, start, 64 * KiB, "the VHDX region table")
        (count,) = struct.unpack_from("<I", table, 8)
        if table[:4] == b"regi" and count <= 2047:
            break
    else:
        raise corrupt(reader, "the VHDX has no region table")
    regions = {}
    for index in range(count):
        guid, offset, length, required = struct.unpack_from("<16sQII", table, 16 + index * 32)
        if required & 1 and guid not in (REGION_METADATA, REGION_BAT):
            raise unsupported(reader, "the VHDX has an unknown region", "convert it on its host")
        regions[guid] = (offset, length)
    return regions


def _vhdx_items(reader: Reader, start: int, length: int) -> dict[bytes, int]:
    """Where the metadata items are in the file."""
    table = exactly(reader, start, 64 * KiB, "the VHDX metadata")
    (count,) = struct.unpack_from("<H", table, 10)
    if table[:8] != b"metadata" or count > 2047:
        raise corrupt(reader, "the VHDX has no metadata table")
    items = {}
    for index in range(count):
        guid, offset = struct.unpack_from("<16sI", table, 32 + index * 32)
        if offset >= length:
            raise corrupt(reader, "a VHDX metadata item lies outside of its region")
        items[guid] = start + offset
    return items


def _vhdx_item(
    reader: Reader, items: dict[bytes, int], guid: bytes, layout: str
) -> tuple[int, ...]:
    if guid not in items:
        raise corrupt(reader, "the VHDX metadata lacks an item that it must have")
    raw = exactly(reader, items[guid], struct.calcsize(layout), "the VHDX metadata")
    return struct.unpack(layout, raw)


def _check_vhdx_blocks(
    reader: Reader, start: int, length: int, size: int, block: int, sector: int
) -> None:
    blocks = -(-size // block)
    entries = blocks + (blocks - 1) // ((1 << 23) * sector // block) if blocks else 0
    if entries * 8 > min(length, MAX_TABLE):
        raise corrupt(reader, f"a VHDX block table of {length} bytes for {size} bytes")
    table = exactly(reader, start, entries * 8, "the VHDX block table")
    present = [item >> 20 for (item,) in struct.iter_unpack("<Q", table) if item & 7 >= 6]
    end = max(present, default=0) * MiB + block  # bitmap blocks: only where there is a parent
    if present and end > reader.size:
        raise truncated(reader, "the data", end)


# VDI ----------------------------------------------------------------------------------------------

VDI_DYNAMIC, VDI_FIXED, VDI_UNDO, VDI_DIFFERENCING = 1, 2, 3, 4


def read_vdi(reader: Reader) -> Header:
    header = exactly(reader, 0, SECTOR, "the VDI header")
    version, _, kind = struct.unpack_from("<III", header, 0x44)
    map_offset, data_offset = struct.unpack_from("<II", header, 0x154)
    (sector,) = struct.unpack_from("<I", header, 0x168)
    size, block, _, blocks, allocated = struct.unpack_from("<QIIII", header, 0x170)
    if version != 0x00010001:
        raise unsupported(reader, f"VDI version {version:#x}", "convert it with VBoxManage")
    if kind in (VDI_UNDO, VDI_DIFFERENCING) or header[0x1A8:0x1C8].strip(b"\0"):
        raise unsupported(reader, "a differencing VDI needs its parent", PARENT_HINT)
    if kind not in (VDI_DYNAMIC, VDI_FIXED) or sector != SECTOR or size > MAX_SIZE:
        raise corrupt(reader, f"VDI type {kind} of {size} bytes with sectors of {sector}")
    if block != MiB or blocks * block < size or blocks * 4 > MAX_TABLE or allocated > blocks:
        raise corrupt(reader, f"a VDI of {blocks} blocks of {block} bytes for {size} bytes")
    exactly(reader, map_offset, blocks * 4, "the VDI block map")
    end = data_offset + allocated * block
    if allocated and end > reader.size:
        raise truncated(reader, "the data", end)
    return Header(DiskFormat.VDI, -(-size // SECTOR) * SECTOR)
